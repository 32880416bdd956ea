//! How a batch's entries and a counter's state are packed: one row a batch.
//!
//! **Format 1.** A row is the byte `1`, the number of entries, the entries, and the CRC-32 (ISO-HDLC, little endian)
//! of all before it. Numbers are LEB128 varints, signed ones zigzag; a text is its length and its bytes; a name is its
//! length plus one and its bytes, or 0 for that of the entry before. An entry:
//!
//! | field | as |
//! |---|---|
//! | business | name |
//! | customer (empty: the business's own account) | text |
//! | metric | name |
//! | kind, operation | their place in `EntryKind::ALL`, `Operation::ALL` |
//! | number, take | varint |
//! | at | microseconds after the row's time, signed |
//! | bucket | seconds after `at`, signed |
//! | units, samples | signed, varint |
//! | overage | a byte of bits, then a signed number for each that is set |
//! | state | its length and the packed counter |
//!
//! A packed counter: `changed_at` (microseconds, 8 bytes little endian), `cut` (8 bytes), `entry`, `since`,
//! `level_since`, a byte of bits saying which of the windows and (last) the level have overage, one saying which
//! have samples; then for each window its end (seconds after `changed_at`, signed) and units; the level's units; and
//! overage and samples where the bits say so.

use tracktags_core::accounts::{Account, BusinessId, CustomerId, MetricName};
use tracktags_core::metrics::Operation;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, CounterKey, Entry, EntryKind, NO_OVERAGE, RunningWindow, Tally};

/// The format written.
const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// Bytes that are no ledger row of a known format, or were damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a ledger row: {0}")]
pub struct LedgerError(pub(crate) &'static str);

/// A counter as it is kept in memory and in rows: about 60 bytes.
pub(crate) type Packed = std::sync::Arc<[u8]>;

/// Packs a batch's entries, and hands out each one's packed state.
pub(crate) fn pack_entries(
    entries: &[Entry],
    at: Timestamp,
    mut state: impl FnMut(&Entry, &[u8]),
) -> Vec<u8> {
    let mut row = Vec::with_capacity(entries.len().saturating_mul(160).saturating_add(16));
    row.push(FORMAT);
    put(&mut row, entries.len() as u64);
    let mut scratch = Vec::with_capacity(128);
    let mut before = ("", "");
    for entry in entries {
        let account = entry.counter.account();
        let names = (account.business.as_str(), entry.counter.metric().as_str());
        put_name(&mut row, names.0, before.0);
        put_text(&mut row, account.customer.as_ref().map_or("", |customer| customer.as_str()));
        put_name(&mut row, names.1, before.1);
        before = names;
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
        scratch.clear();
        pack_counter(&mut scratch, &entry.state);
        put(&mut row, scratch.len() as u64);
        row.extend_from_slice(&scratch);
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
    let mut before = None;
    for _ in 0..count {
        let entry = unpack_entry(&mut reader, at, before.as_ref())?;
        before = Some(entry.counter.clone());
        entries.push(entry);
    }
    if reader.0.is_empty() { Ok(entries) } else { Err(LedgerError("bytes are left over")) }
}

fn unpack_entry(
    reader: &mut Reader<'_>,
    at: Timestamp,
    before: Option<&CounterKey>,
) -> Result<Entry, LedgerError> {
    let business = match reader.name()? {
        None => before.ok_or(NO_NAME)?.account().business.clone(),
        Some(text) => BusinessId::parse(text).map_err(|_bad| LedgerError("a business id is wrong"))?,
    };
    let customer = match reader.text()? {
        "" => None,
        text => Some(CustomerId::parse(text).map_err(|_bad| LedgerError("a customer id is wrong"))?),
    };
    let metric = match reader.name()? {
        None => before.ok_or(NO_NAME)?.metric().clone(),
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
    let length = usize::try_from(reader.number()?).map_err(|_large| LedgerError("a state is too long"))?;
    let state = unpack_counter(reader.bytes(length)?)?;
    let counter = CounterKey::new(Account { business, customer }, metric);
    Ok(Entry { counter, operation, kind, number, at, bucket, units, samples, overage, take, state })
}

/// Packs a counter.
pub(crate) fn pack_counter(into: &mut Vec<u8>, counter: &Counter) {
    into.extend_from_slice(&counter.changed_at.as_micros().to_le_bytes());
    into.extend_from_slice(&counter.cut.to_le_bytes());
    put(into, counter.entry);
    put(into, counter.since);
    put(into, counter.level_since);
    let tallies = || counter.windows.iter().map(|running| &running.tally).chain([&counter.level]);
    into.push(bits(tallies().map(|tally| tally.overage != 0)));
    into.push(bits(tallies().map(|tally| tally.samples != 0)));
    let seconds = counter.changed_at.as_seconds();
    for running in &counter.windows {
        put_signed(into, running.end.as_seconds() - seconds);
        put_signed(into, running.tally.units);
    }
    put_signed(into, counter.level.units);
    for tally in tallies().filter(|tally| tally.overage != 0) {
        put_signed(into, tally.overage);
    }
    for tally in tallies().filter(|tally| tally.samples != 0) {
        put_signed(into, tally.samples);
    }
}

/// Reads a counter back.
///
/// # Errors
/// [`LedgerError`] for bytes that do not add up.
pub(crate) fn unpack_counter(bytes: &[u8]) -> Result<Counter, LedgerError> {
    let mut reader = Reader(bytes);
    let mut counter = Counter {
        changed_at: Timestamp::from_micros(i64::from_le_bytes(reader.eight()?)),
        cut: u64::from_le_bytes(reader.eight()?),
        entry: reader.number()?,
        since: reader.number()?,
        level_since: reader.number()?,
        ..Counter::default()
    };
    let (overage, samples) = (reader.byte()?, reader.byte()?);
    let seconds = counter.changed_at.as_seconds();
    for running in &mut counter.windows {
        let end = Timestamp::from_seconds(seconds.saturating_add(reader.signed()?));
        *running = RunningWindow { end, tally: Tally { units: reader.signed()?, ..Tally::default() } };
    }
    counter.level.units = reader.signed()?;
    let windows = counter.windows.len();
    for place in (0..=windows).filter(|place| overage & (1 << place) != 0) {
        tally_at(&mut counter, place).overage = reader.signed()?;
    }
    for place in (0..=windows).filter(|place| samples & (1 << place) != 0) {
        tally_at(&mut counter, place).samples = reader.signed()?;
    }
    if reader.0.is_empty() { Ok(counter) } else { Err(LedgerError("bytes are left over in a state")) }
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

fn put_text(into: &mut Vec<u8>, text: &str) {
    put(into, text.len() as u64);
    into.extend_from_slice(text.as_bytes());
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

    fn number(&mut self) -> Result<u64, LedgerError> {
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

    fn text(&mut self) -> Result<&'a str, LedgerError> {
        let length = self.number()?;
        self.text_of(length)
    }

    fn text_of(&mut self, length: u64) -> Result<&'a str, LedgerError> {
        let length = usize::try_from(length).map_err(|_large| LedgerError("a text is too long"))?;
        std::str::from_utf8(self.bytes(length)?).map_err(|_bad| LedgerError("a text is not UTF-8"))
    }
}
