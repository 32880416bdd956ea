//! The books that a run keeps of its own, by plain sums over minutes and hours, and what must hold (docs/RELIABILITY.md):
//! no window is sold beyond its limits, nothing acknowledged is lost, nothing is counted that nobody could have had,
//! each unit lies in one window, each hold is closed once, and the ledger, the counters and the answers agree.

use super::calls::{Call, State};
use super::locks::Holder;
use super::store::{Caps, Deed, Row};
use super::world::World;
use std::collections::BTreeMap;
use tracktags_core::decide::Decision;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, Taken};
use tracktags_core::windows::Window;

const MINUTE: i64 = 60;
const HOUR: i64 = 3_600;

fn minute(at: Timestamp) -> i64 {
    at.as_seconds().div_euclid(MINUTE)
}

fn hour(at: Timestamp) -> i64 {
    at.as_seconds().div_euclid(HOUR)
}

/// Units by account and window.
type Sums = BTreeMap<(usize, i64), i64>;

#[derive(Default)]
pub(super) struct Books {
    /// What the ledger's entries add up to, by the minute that each entry names.
    ledger: Sums,
    /// What callers were sold and did not give back, by the window it was sold in.
    minutes: Sums,
    hours: Sums,
    /// The most that was ever sold of a window.
    minutes_peak: Sums,
    hours_peak: Sums,
}

impl Books {
    fn sell(&mut self, account: usize, at: Timestamp, units: i64) -> (i64, i64) {
        let one = |sums: &mut Sums, peaks: &mut Sums, window: i64| {
            let sum = sums.entry((account, window)).or_default();
            *sum += units;
            let peak = peaks.entry((account, window)).or_default();
            *peak = (*peak).max(*sum);
            *sum
        };
        let of_minute = one(&mut self.minutes, &mut self.minutes_peak, minute(at));
        (of_minute, one(&mut self.hours, &mut self.hours_peak, hour(at)))
    }

    /// A demand was denied: it must not have fitted, by usage that there really was.
    pub(super) fn denied(
        &self,
        account: usize,
        caps: Caps,
        units: i64,
        decision: &Decision,
    ) -> Result<(), String> {
        let mut fitted = true;
        for limit in &decision.metrics[0].limits {
            let Some(window) = limit.window else { continue };
            let is_minute = window.end.seconds_after(window.start) == MINUTE;
            let (peaks, place, cap) = if is_minute {
                (&self.minutes_peak, minute(window.start), caps.minute)
            } else {
                (&self.hours_peak, hour(window.start), caps.hour)
            };
            if limit.usage > peaks.get(&(account, place)).copied().unwrap_or(0) {
                return Err(format!("account {account} was shown usage that nobody had (INV3)"));
            }
            fitted &= limit.usage + units <= cap;
        }
        if fitted { Err(format!("account {account} was denied what fitted (INV5)")) } else { Ok(()) }
    }
}

/// A row was committed.
///
/// # Errors
/// What it breaks.
pub(super) fn committed(world: &mut World, before: &[Counter], row: &Row) -> Result<(), String> {
    world.summary.commits += 1;
    for (entry, before) in row.entries.iter().zip(before) {
        if !before.leads_to(entry) {
            return Err(format!("entry {} of {:?} does not follow (INV6)", entry.number, entry.counter));
        }
        let account = world.store.account_of(&entry.counter);
        let account = account.ok_or_else(|| format!("{:?} is nobody's counter", entry.counter))?;
        *world.books.ledger.entry((account, minute(entry.at))).or_default() += entry.units;
    }
    for deed in &row.deeds {
        match deed {
            Deed::Take { call, taken, version, terms, key_expires_at } => {
                let caps = Caps::of(terms).ok_or_else(|| "terms without limits".to_owned())?;
                took(world, *call, *taken, caps)?;
                let span = world.store.locks.span(Holder::Boot(row.boot));
                let span = span.ok_or_else(|| format!("call {call} was counted without a lock"))?;
                in_time(*call, *taken, *key_expires_at, before, span)?;
                if !world.profile.row_locks && *version != world.store.version(&terms.account.business) {
                    return Err(format!("call {call} was decided by an old version"));
                }
            }
            Deed::Settle { call, units } => settled(world, *call, *units)?,
        }
    }
    Ok(())
}

fn took(world: &mut World, place: usize, taken: Taken, caps: Caps) -> Result<(), String> {
    let call = &mut world.calls[place];
    if call.taken.replace(taken).is_some() {
        return Err(format!("call {place} was counted twice (INV3)"));
    }
    if !matches!(call.state, State::Waiting | State::Unknown | State::Lost) {
        return Err(format!("call {place} was counted after it heard that it is not (INV3)"));
    }
    if taken.units != call.units {
        return Err(format!("call {place} asked for {} and took {}", call.units, taken.units));
    }
    let account = call.account;
    let began = call.began;
    let configured = world.store.accounts[account].caps;
    // Where only rows are locked, what is configured may change between the look at it and the commit: then it held
    // after the call had begun, as is promised.
    let held = if world.profile.row_locks {
        world.store.held_since(account, began, caps)
    } else {
        caps == configured
    };
    if !held {
        return Err(format!("call {place} was decided by {caps:?} when {configured:?} held (R10)"));
    }
    let (of_minute, of_hour) = world.books.sell(account, taken.at, taken.units);
    if of_minute > caps.minute || of_hour > caps.hour {
        return Err(format!("account {account} was sold {of_minute} and {of_hour} of {caps:?} (INV2)"));
    }
    Ok(())
}

/// What a take rests on held at some time while the lock was held, and so did its window.
fn in_time(
    place: usize,
    taken: Taken,
    key_expires_at: Option<Timestamp>,
    before: &[Counter],
    (earliest, latest): (Timestamp, Timestamp),
) -> Result<(), String> {
    if key_expires_at.is_some_and(|end| end <= earliest) {
        return Err(format!("call {place} was admitted when its key had expired (R13)"));
    }
    if minute(taken.at) < minute(earliest) {
        return Err(format!("call {place} was counted in a window that had ended (R12)"));
    }
    let changed = before.iter().map(|counter| counter.changed_at).max();
    if taken.at > changed.map_or(latest, |changed| changed.max(latest)) {
        return Err(format!("call {place} was counted in a window that had not begun (R12)"));
    }
    Ok(())
}

fn settled(world: &mut World, place: usize, units: i64) -> Result<(), String> {
    let call = &mut world.calls[place];
    let Some(taken) = call.taken else {
        return Err(format!("call {place} was settled, and never counted"));
    };
    if call.settled.replace(units).is_some() {
        return Err(format!("call {place} was settled twice (R4)"));
    }
    world.summary.settled += 1;
    world.summary.settled_late += u64::from(minute(world.clock) > minute(taken.at));
    let account = world.calls[place].account;
    world.books.sell(account, taken.at, units - taken.units);
    Ok(())
}

/// Everything ended: the books must agree.
///
/// # Errors
/// Where they do not.
pub(super) fn at_rest(world: &mut World) -> Result<(), String> {
    world.summary.windows = u64::try_from(world.books.minutes.len()).unwrap_or_default();
    for node in 0..world.nodes.len() {
        if let Some((key, held)) = world.nodes[node].holds.iter().find(|(_, held)| **held != 0) {
            return Err(format!("node {node} still holds {held} of {key:?} (R4)"));
        }
    }
    counted(world)?;
    for account in 0..world.store.accounts.len() {
        counters(world, account)?;
    }
    Ok(())
}

/// Of each minute: what was acknowledged is counted, and no more than that and what nobody knows.
fn counted(world: &World) -> Result<(), String> {
    let (mut kept, mut perhaps) = (Sums::new(), Sums::new());
    for (place, call) in world.calls.iter().enumerate() {
        let Some(taken) = call.taken else { continue };
        let window = (call.account, minute(taken.at));
        if let State::Kept(units) = call.state {
            *kept.entry(window).or_default() += units;
        } else if is_in_doubt(world, call) {
            *perhaps.entry(window).or_default() += taken.units;
        } else if call.settled != Some(0) {
            return Err(format!("nobody has the units of call {place}, and they are counted (INV3)"));
        }
    }
    for (window, counted) in &world.books.ledger {
        let least = kept.get(window).copied().unwrap_or(0);
        let most = least + perhaps.get(window).copied().unwrap_or(0);
        if *counted < least {
            return Err(format!("{window:?} counts {counted}, and {least} were acknowledged (INV1)"));
        }
        if *counted > most {
            return Err(format!("{window:?} counts {counted}, and {most} at most were had (INV3)"));
        }
        let sold = world.books.minutes.get(window).copied().unwrap_or(0);
        if *counted != sold {
            return Err(format!("{window:?} counts {counted}, and {sold} were sold in it (R12)"));
        }
    }
    match kept.iter().find(|(window, units)| **units > 0 && !world.books.ledger.contains_key(window)) {
        Some((window, units)) => Err(format!("{units} of {window:?} were acknowledged and lost (INV1)")),
        None => Ok(()),
    }
}

/// Whether the caller cannot know, and no node will see to it any more.
fn is_in_doubt(world: &World, call: &Call) -> bool {
    let is_gone = world.nodes[call.node].boot != call.boot;
    matches!(call.state, State::Lost) || (matches!(call.state, State::Unknown) && is_gone)
}

/// The fold of the ledger, the counter, and its windows agree.
fn counters(world: &World, account: usize) -> Result<(), String> {
    let key = &world.store.accounts[account].key;
    let mut entries =
        world.store.rows.iter().flat_map(|row| &row.entries).filter(|entry| entry.counter == *key);
    let Some(last) = entries.next_back() else { return Ok(()) };
    let counter = world.store.counters.get(key).copied().unwrap_or_default();
    if last.state != counter {
        return Err(format!("the counter of account {account} is not what the ledger says (INV6)"));
    }
    let in_all =
        |sums: &Sums| sums.range((account, i64::MIN)..=(account, i64::MAX)).map(|(_, units)| *units).sum();
    let (level, in_minute, in_hour): (i64, i64, i64) = (
        in_all(&world.books.ledger),
        world.books.minutes.get(&(account, minute(counter.changed_at))).copied().unwrap_or(0),
        world.books.hours.get(&(account, hour(counter.changed_at))).copied().unwrap_or(0),
    );
    let found = [None, Some(Window::Minute), Some(Window::Hour)].map(|window| counter.tally(window).units);
    if found == [level, in_minute, in_hour] {
        return Ok(());
    }
    Err(format!(
        "account {account} stands at {found:?}, its ledger at {:?} (INV6)",
        [level, in_minute, in_hour]
    ))
}
