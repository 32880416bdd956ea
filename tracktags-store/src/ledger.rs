//! How a batch's entries and a counter's state are packed: one row a batch.
//!
//! **Format 1.** A row is the byte `1`, the number of entries, the entries, and the CRC-32 (ISO-HDLC, little endian)
//! of all before it. Numbers are LEB128 varints, signed ones zigzag. A name is its length plus one and its bytes, or 0
//! for that of the entry before. What neighbours share is written once, so a row of a busy moment takes about 45 bytes
//! an entry, and several rows fit a page: fewer pages to sync.
//!
//! | field of an entry | as |
//! |---|---|
//! | business | name |
//! | customer (empty: the business's own account) | how many bytes it shares with the one before, the length of the rest, the rest |
//! | metric | name |
//! | kind, operation | their place in `EntryKind::ALL`, `Operation::ALL` |
//! | number, take | varint |
//! | at | microseconds after the row's time, signed |
//! | bucket | seconds after `at`, signed |
//! | units, samples | signed, varint |
//! | overage | a byte of bits, then a signed number for each that is set |
//! | state | the counter, against its base |
//!
//! A row of the table `counters` is the counter packed by itself, and the CRC-32 of its key (business, customer and metric,
//! a zero byte after each) and of that: damage to either shows.
//!
//! A counter is packed against a base, which it mostly agrees with: in a row the entry's instant, its number and the
//! state of the entry before; by itself zeros. It is: `changed_at` (microseconds after the base's instant, signed);
//! `entry` (after the base's number, signed); `since`, `level_since`, `start`; a byte of bits saying which windows end
//! elsewhere than the base's and (the highest) that it was cut otherwise; one saying which of the windows and (after
//! them) the level have overage; one saying which have samples. Then `cut` (8 bytes little endian) and the ends
//! (seconds after `changed_at`, signed), where their bits say so; the units of each window and of the level; overage
//! and samples where their bits say so.

use tracktags_core::accounts::{Account, BusinessId, CustomerId, MetricName};
use tracktags_core::metrics::Operation;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, CounterKey, Entry, EntryKind, NO_OVERAGE, Tally};
use tracktags_core::windows::WINDOWS;

/// The format written.
const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
/// Room for any packed counter: every number as long as it can be.
const COUNTER_BYTES_MAX: usize = 10 * (5 + WINDOWS + 3 * (WINDOWS + 1)) + 3 + 8;

/// Bytes that are no ledger row of a known format, or were damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a ledger row: {0}")]
pub struct LedgerError(pub(crate) &'static str);

/// The bit that says that a counter was cut otherwise than its base.
const CUT_BIT: u8 = 1 << WINDOWS;

/// A counter as it is kept in memory and in its own row: about 60 bytes.
pub(crate) type Packed = std::sync::Arc<[u8]>;

/// Packs a batch's entries, and hands out each one's packed state.
pub(crate) fn pack_entries(
    entries: &[Entry],
    at: Timestamp,
    mut state: impl FnMut(&Entry, &[u8]),
) -> Vec<u8> {
    let mut row = Vec::with_capacity(entries.len().saturating_mul(96).saturating_add(128));
    row.push(FORMAT);
    put(&mut row, entries.len() as u64);
    let mut scratch = Vec::with_capacity(128);
    let nothing = Counter::default();
    let mut before = ("", "", "", &nothing);
    for entry in entries {
        let account = entry.counter.account();
        let customer = account.customer.as_ref().map_or("", |customer| customer.as_str());
        let metric = entry.counter.metric().as_str();
        put_name(&mut row, account.business.as_str(), before.0);
        put_tail(&mut row, customer, before.1);
        put_name(&mut row, metric, before.2);
        row.push(place(EntryKind::ALL, entry.kind));
        row.push(place(Operation::ALL, entry.operation));
        put(&mut row, entry.number);
        put(&mut row, entry.take);
        put_signed(&mut row, entry.at.as_micros() - at.as_micros());
        put_signed(&mut row, entry.bucket.as_seconds() - entry.at.as_seconds());
        put_signed(&mut row, entry.units);
        put(&mut row, entry.samples.unsigned_abs());
        row.push(bits(entry.overage.iter().map(|overage| *overage != 0)));
        for overage in entry.overage.iter().filter(|overage| **overage != 0) {
            put_signed(&mut row, *overage);
        }
        put_counter(&mut row, &entry.state, &Base { at: entry.at, number: entry.number, state: before.3 });
        before = (account.business.as_str(), customer, metric, &entry.state);
        scratch.clear();
        pack_counter(&mut scratch, &entry.state);
        state(entry, &scratch);
    }
    let checksum = crc32fast::hash(&row);
    row.extend_from_slice(&checksum.to_le_bytes());
    row
}

/// Reads a row back.
///
/// # Errors
/// [`LedgerError`] for an unknown format, a wrong checksum or bytes that do not add up.
pub(crate) fn unpack_entries(row: &[u8], at: Timestamp) -> Result<Vec<Entry>, LedgerError> {
    let Some((body, checksum)) =
        row.len().checked_sub(CHECKSUM_BYTES).and_then(|at| row.split_at_checked(at))
    else {
        return Err(LedgerError("too short"));
    };
    if crc32fast::hash(body).to_le_bytes() != checksum {
        return Err(LedgerError("the checksum is wrong"));
    }
    let mut reader = Reader(body);
    if reader.byte()? != FORMAT {
        return Err(LedgerError("the format is not known"));
    }
    let count = reader.number()?;
    // A lying count must not reserve memory.
    let mut entries = Vec::new();
    for _ in 0..count {
        let entry = unpack_entry(&mut reader, at, entries.last())?;
        entries.push(entry);
    }
    if reader.0.is_empty() { Ok(entries) } else { Err(LedgerError("bytes are left over")) }
}

fn unpack_entry(
    reader: &mut Reader<'_>,
    at: Timestamp,
    before: Option<&Entry>,
) -> Result<Entry, LedgerError> {
    let key = before.map(|entry| &entry.counter);
    let business = match reader.name()? {
        None => key.ok_or(NO_NAME)?.account().business.clone(),
        Some(text) => BusinessId::parse(text).map_err(|_bad| LedgerError("a business id is wrong"))?,
    };
    let customer = match reader.tail(key.and_then(|key| key.account().customer.as_ref()))? {
        text if text.is_empty() => None,
        text => Some(CustomerId::parse(&text).map_err(|_bad| LedgerError("a customer id is wrong"))?),
    };
    let metric = match reader.name()? {
        None => key.ok_or(NO_NAME)?.metric().clone(),
        Some(text) => MetricName::parse(text).map_err(|_bad| LedgerError("a metric name is wrong"))?,
    };
    let kind = at_place(EntryKind::ALL, reader.byte()?)?;
    let operation = at_place(Operation::ALL, reader.byte()?)?;
    let number = reader.number()?;
    let take = reader.number()?;
    let at = at.plus_micros(reader.signed()?);
    let bucket = Timestamp::from_seconds(at.as_seconds().saturating_add(reader.signed()?));
    let units = reader.signed()?;
    let samples = reader.units()?;
    let mut overage = NO_OVERAGE;
    let set = reader.byte()?;
    for (place, slot) in overage.iter_mut().enumerate().filter(|(place, _)| set & (1 << place) != 0) {
        let _ = place;
        *slot = reader.signed()?;
    }
    let nothing = Counter::default();
    let state = reader.counter(&Base { at, number, state: before.map_or(&nothing, |entry| &entry.state) })?;
    let counter = CounterKey::new(Account { business, customer }, metric);
    Ok(Entry { counter, operation, kind, number, at, bucket, units, samples, overage, take, state })
}

/// What a counter is packed against.
struct Base<'a> {
    at: Timestamp,
    number: u64,
    state: &'a Counter,
}

impl<'a> Base<'a> {
    /// That of a counter by itself.
    const fn none(state: &'a Counter) -> Self {
        Self { at: Timestamp::from_micros(0), number: 0, state }
    }
}

/// Packs a counter by itself.
pub(crate) fn pack_counter(into: &mut Vec<u8>, counter: &Counter) {
    put_counter(into, counter, &Base::none(&Counter::default()));
}

/// Reads a counter back that was packed by itself.
///
/// # Errors
/// [`LedgerError`] for bytes that do not add up.
pub(crate) fn unpack_counter(bytes: &[u8]) -> Result<Counter, LedgerError> {
    let mut reader = Reader(bytes);
    let counter = reader.counter(&Base::none(&Counter::default()))?;
    if reader.0.is_empty() { Ok(counter) } else { Err(LedgerError("bytes are left over in a state")) }
}

/// The checksum of a counter's row.
fn row_checksum(names: [&str; 3], packed: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    for name in names {
        hasher.update(name.as_bytes());
        hasher.update(&[0]);
    }
    hasher.update(packed);
    hasher.finalize().to_le_bytes()
}

/// A packed counter as its row keeps it. The names are business, customer (or nothing) and metric.
pub(crate) fn seal_row(names: [&str; 3], packed: &[u8]) -> Vec<u8> {
    [packed, &row_checksum(names, packed)].concat()
}

/// The packed counter of a row.
///
/// # Errors
/// [`LedgerError`] where the row is not what was written for this key.
pub(crate) fn open_row<'a>(names: [&str; 3], row: &'a [u8]) -> Result<&'a [u8], LedgerError> {
    let split = row.len().checked_sub(CHECKSUM_BYTES).and_then(|at| row.split_at_checked(at));
    let (packed, checksum) = split.ok_or(LedgerError("a counter's row is too short"))?;
    if row_checksum(names, packed) == checksum {
        Ok(packed)
    } else {
        Err(LedgerError("the checksum of a counter's row is wrong"))
    }
}

fn put_counter(into: &mut Vec<u8>, counter: &Counter, base: &Base<'_>) {
    let cut_otherwise = counter.cut != base.state.cut;
    let mut moved = if cut_otherwise { CUT_BIT } else { 0 };
    let (mut overage, mut samples) = (0, 0);
    for (place, (running, before)) in counter.windows.iter().zip(&base.state.windows).enumerate() {
        moved |= u8::from(running.end != before.end) << place;
        overage |= u8::from(running.tally.overage != 0) << place;
        samples |= u8::from(running.tally.samples != 0) << place;
    }
    overage |= u8::from(counter.level.overage != 0) << WINDOWS;
    samples |= u8::from(counter.level.samples != 0) << WINDOWS;
    into.reserve(COUNTER_BYTES_MAX);
    put_signed(into, counter.changed_at.as_micros() - base.at.as_micros());
    put_signed(into, counter.entry.wrapping_sub(base.number) as i64);
    put(into, counter.since);
    put(into, counter.level_since);
    put_signed(into, counter.start);
    into.extend_from_slice(&[moved, overage, samples]);
    if cut_otherwise {
        into.extend_from_slice(&counter.cut.to_le_bytes());
    }
    if moved & !CUT_BIT != 0 {
        let seconds = counter.changed_at.as_seconds();
        let ends = counter.windows.iter().zip(&base.state.windows).filter(|(now, base)| now.end != base.end);
        for (running, _) in ends {
            put_signed(into, running.end.as_seconds() - seconds);
        }
    }
    for running in &counter.windows {
        put_signed(into, running.tally.units);
    }
    put_signed(into, counter.level.units);
    // Most have neither.
    if overage | samples != 0 {
        let tallies = || counter.windows.iter().map(|running| &running.tally).chain([&counter.level]);
        for tally in tallies().filter(|tally| tally.overage != 0) {
            put_signed(into, tally.overage);
        }
        for tally in tallies().filter(|tally| tally.samples != 0) {
            put_signed(into, tally.samples);
        }
    }
}

fn tally_at(counter: &mut Counter, place: usize) -> &mut Tally {
    match counter.windows.get_mut(place) {
        Some(running) => &mut running.tally,
        None => &mut counter.level,
    }
}

fn bits(set: impl Iterator<Item = bool>) -> u8 {
    set.enumerate().fold(0, |bits, (place, set)| bits | (u8::from(set) << place))
}

fn place<T: PartialEq>(all: &[T], one: T) -> u8 {
    let place = all.iter().position(|other| *other == one).unwrap_or_default();
    u8::try_from(place).unwrap_or_default()
}

fn at_place<T: Copy>(all: &[T], place: u8) -> Result<T, LedgerError> {
    all.get(usize::from(place)).copied().ok_or(LedgerError("an unknown kind or operation"))
}

fn put(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push((number as u8) | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn put_signed(into: &mut Vec<u8>, number: i64) {
    put(into, ((number << 1) ^ (number >> 63)) as u64);
}

/// A text: how many bytes it shares with the one before, and the rest.
fn put_tail(into: &mut Vec<u8>, text: &str, before: &str) {
    let shared = text.bytes().zip(before.bytes()).take_while(|(here, there)| here == there).count();
    let rest = text.as_bytes().get(shared..).unwrap_or_default();
    put(into, shared as u64);
    put(into, rest.len() as u64);
    into.extend_from_slice(rest);
}

/// A name, unless it is that of the entry before.
fn put_name(into: &mut Vec<u8>, name: &str, before: &str) {
    if name == before {
        into.push(0);
        return;
    }
    put(into, name.len() as u64 + 1);
    into.extend_from_slice(name.as_bytes());
}

const NO_NAME: LedgerError = LedgerError("the first entry has no name");

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], LedgerError> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(LedgerError("it ends too soon"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, LedgerError> {
        let (byte, rest) = self.0.split_first().ok_or(LedgerError("it ends too soon"))?;
        self.0 = rest;
        Ok(*byte)
    }

    fn eight(&mut self) -> Result<[u8; 8], LedgerError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(LedgerError("it ends too soon"))?;
        self.0 = rest;
        Ok(*bytes)
    }

    #[inline]
    fn number(&mut self) -> Result<u64, LedgerError> {
        // Nearly all are small.
        match self.0 {
            [byte @ ..0x80, rest @ ..] => {
                self.0 = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_number(),
        }
    }

    fn long_number(&mut self) -> Result<u64, LedgerError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(LedgerError("a number is too long"))
    }

    fn signed(&mut self) -> Result<i64, LedgerError> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn units(&mut self) -> Result<i64, LedgerError> {
        i64::try_from(self.number()?).map_err(|_large| LedgerError("a number is too large"))
    }

    /// `None`: that of the entry before.
    fn name(&mut self) -> Result<Option<&'a str>, LedgerError> {
        match self.number()?.checked_sub(1) {
            None => Ok(None),
            Some(length) => self.text_of(length).map(Some),
        }
    }

    /// A text that begins like the one before.
    fn tail(&mut self, before: Option<&CustomerId>) -> Result<String, LedgerError> {
        let shared = usize::try_from(self.number()?)
            .map_err(|_large| LedgerError("it shares too much with nothing"))?;
        let shared = before.map_or("", CustomerId::as_str).get(..shared).ok_or(NO_NAME)?;
        let length = self.number()?;
        Ok([shared, self.text_of(length)?].concat())
    }

    fn counter(&mut self, base: &Base<'_>) -> Result<Counter, LedgerError> {
        let changed_at = base.at.plus_micros(self.signed()?);
        let mut counter = Counter {
            changed_at,
            entry: base.number.wrapping_add(self.signed()? as u64),
            since: self.number()?,
            level_since: self.number()?,
            start: self.signed()?,
            ..*base.state
        };
        let (moved, overage, samples) = (self.byte()?, self.byte()?, self.byte()?);
        if moved & CUT_BIT != 0 {
            counter.cut = u64::from_le_bytes(self.eight()?);
        }
        if moved & !CUT_BIT != 0 {
            let seconds = changed_at.as_seconds();
            for (place, running) in counter.windows.iter_mut().enumerate() {
                if moved & (1 << place) != 0 {
                    running.end = Timestamp::from_seconds(seconds.saturating_add(self.signed()?));
                }
            }
        }
        for running in &mut counter.windows {
            running.tally = Tally { units: self.signed()?, ..Tally::default() };
        }
        counter.level = Tally { units: self.signed()?, ..Tally::default() };
        if overage | samples == 0 {
            return Ok(counter);
        }
        for place in (0..=WINDOWS).filter(|place| overage & (1 << place) != 0) {
            tally_at(&mut counter, place).overage = self.signed()?;
        }
        for place in (0..=WINDOWS).filter(|place| samples & (1 << place) != 0) {
            tally_at(&mut counter, place).samples = self.signed()?;
        }
        Ok(counter)
    }

    fn text_of(&mut self, length: u64) -> Result<&'a str, LedgerError> {
        let length = usize::try_from(length).map_err(|_large| LedgerError("a text is too long"))?;
        std::str::from_utf8(self.bytes(length)?).map_err(|_bad| LedgerError("a text is not UTF-8"))
    }
}
