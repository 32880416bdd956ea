//! Callers: each asks for units; one that holds them open keeps them, gives them back, or settles for less.

use super::node::Op;
use super::store::Caps;
use super::world::World;
use rand::RngExt;
use std::sync::Arc;
use tracktags_core::Outcome;
use tracktags_core::demand::{Demand, Operation};
use tracktags_core::error::StoreError;
use tracktags_core::group_commit::Answer;
use tracktags_core::limits::Terms;
use tracktags_core::metrics::Units;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::Taken;

/// Calls of a run at most.
const CALLS_MAX: usize = 80;

/// What a caller knows of its call.
pub(super) enum State {
    /// It waits for a decision.
    Waiting,
    /// It was admitted, and works.
    Open { terms: Arc<Terms>, place: usize, taken: Taken },
    /// It settled for so many units, and waits.
    Settling(i64),
    /// It ended with so many units kept.
    Kept(i64),
    /// A limit refused it, its key had expired, or nothing was counted.
    Refused,
    /// Nobody knows, says the node, which sees to the rest.
    Unknown,
    /// The node died meanwhile.
    Lost,
}

pub(super) struct Call {
    pub(super) node: usize,
    pub(super) boot: u64,
    pub(super) account: usize,
    pub(super) units: i64,
    pub(super) key_expires_at: Option<Timestamp>,
    /// Whether what it takes stays open.
    opens: bool,
    /// How often configuration had changed when it began, or last read afresh.
    pub(super) began: u64,
    pub(super) state: State,
    /// What the store has of it: what was taken, and what was settled.
    pub(super) taken: Option<Taken>,
    pub(super) settled: Option<i64>,
}

impl Call {
    /// The node died: whoever was not answered does not know.
    pub(super) fn lose(&mut self) {
        if !matches!(self.state, State::Kept(_) | State::Refused) {
            self.state = State::Lost;
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        !matches!(self.state, State::Waiting | State::Open { .. } | State::Settling(_))
    }
}

/// A call begins at some node, with terms that are perhaps old.
pub(super) fn begin(world: &mut World) {
    if world.calls.len() == CALLS_MAX {
        return;
    }
    let node = world.rng.random_range(0..world.nodes.len());
    let account = world.rng.random_range(0..world.store.accounts.len());
    let expires = world.rng.random_range(0..6) == 0;
    let key_expires_at = expires.then(|| world.clock.plus_seconds(world.rng.random_range(1..40)));
    let units = world.rng.random_range(1..4);
    let opens = world.rng.random_range(0..6) != 0;
    let (boot, began) = (world.nodes[node].boot, world.store.changes);
    let state = State::Waiting;
    world.calls.push(Call {
        node,
        boot,
        account,
        units,
        key_expires_at,
        opens,
        began,
        state,
        taken: None,
        settled: None,
    });
    world.summary.calls += 1;
    let call = world.calls.len() - 1;
    world.say(|| format!("call {call}: node {node}, account {account}, {units} units"));
    let old = world.nodes[node].known[account].clone();
    let terms = old.unwrap_or_else(|| read_afresh(world, node, account));
    demand(world, call, terms);
}

fn read_afresh(world: &mut World, node: usize, account: usize) -> Arc<Terms> {
    let terms = world.store.terms(account);
    world.nodes[node].known[account] = Some(Arc::clone(&terms));
    terms
}

fn demand(world: &mut World, call: usize, terms: Arc<Terms>) {
    let Call { node, units, key_expires_at, opens, .. } = world.calls[call];
    let mut demand = Demand::new(terms, 0, units_of(units));
    demand.key_expires_at = key_expires_at;
    let op = Op { operation: Operation::Take(demand), opens, call, is_owed: false };
    world.nodes[node].queue.push_back(op);
}

pub(super) fn units_of(units: i64) -> Units {
    Units::new(units).unwrap_or(Units::ZERO)
}

/// One of the calls that are open ends: its units stay, all or some of them are given back.
pub(super) fn end_one(world: &mut World) {
    let open = |call: &Call| matches!(call.state, State::Open { .. });
    let count = world.calls.iter().filter(|call| open(call)).count();
    if count == 0 {
        return;
    }
    let chosen = world.rng.random_range(0..count);
    let Some((place, _)) = world.calls.iter().enumerate().filter(|(_, call)| open(call)).nth(chosen) else {
        return;
    };
    let kept = match world.rng.random_range(0..6) {
        0 | 1 => None,
        2 => Some(world.rng.random_range(0..=world.calls[place].units)),
        _ => Some(0),
    };
    let call = &mut world.calls[place];
    let node = call.node;
    let next = kept.map_or(State::Kept(call.units), State::Settling);
    let State::Open { terms, place: metric, taken } = std::mem::replace(&mut call.state, next) else {
        return;
    };
    // As a reservation does: its hold ends when its settlement is on its way.
    if let Some(held) =
        terms.limits.get(metric).and_then(|entry| world.nodes[node].holds.get_mut(entry.counter))
    {
        *held -= taken.units;
    }
    world.say(|| format!("call {place}: keeps {kept:?}"));
    if let Some(units) = kept {
        let operation = Operation::Settle { terms, place: metric, taken, units: units_of(units) };
        world.nodes[node].queue.push_back(Op { operation, opens: false, call: place, is_owed: false });
    }
}

/// A caller hears.
///
/// # Errors
/// What the answer breaks.
pub(super) fn answered(world: &mut World, op: &Op, answer: Answer) -> Result<(), String> {
    let call = op.call;
    world.say(|| match &answer {
        Ok(Outcome::Decided(decision)) if decision.admitted => format!("call {call}: admitted"),
        Ok(Outcome::Decided(_)) => format!("call {call}: denied"),
        other => format!("call {call}: {other:?}"),
    });
    match &op.operation {
        Operation::Take(demand) => decided(world, call, &demand.terms, answer),
        _settled => settled(world, call, answer),
    }
}

fn settled(world: &mut World, place: usize, answer: Answer) -> Result<(), String> {
    let call = &mut world.calls[place];
    let State::Settling(units) = call.state else {
        return Err(format!("call {place} heard of a settlement twice, or of one that it never made"));
    };
    if answer.is_err() {
        return Err(format!("the settlement of call {place} was given up"));
    }
    if call.settled != Some(units) {
        return Err(format!("call {place} heard that it is settled, and the store does not know"));
    }
    call.state = State::Kept(units);
    Ok(())
}

fn decided(world: &mut World, place: usize, terms: &Arc<Terms>, answer: Answer) -> Result<(), String> {
    let call = &world.calls[place];
    if !matches!(call.state, State::Waiting) {
        return Err(format!("call {place} was answered twice"));
    }
    let (account, known) = (call.account, call.taken);
    if known.is_some() && !matches!(answer, Ok(Outcome::Decided(_)) | Err(StoreError::CommitUnknown)) {
        return Err(format!("call {place} heard that nothing was counted, and its units are (INV3)"));
    }
    match answer {
        Ok(Outcome::Decided(decision)) if decision.admitted => {
            // INV4: what is seen is counted.
            let Some((metric, taken)) = decision.taken.filter(|(_, taken)| known == Some(*taken)) else {
                return Err(format!("call {place} was admitted, and its units are not committed (INV4)"));
            };
            let named = decision.metrics[0].limits.iter().filter_map(|limit| limit.window);
            if !named.into_iter().all(|window| window.contains(taken.at)) {
                return Err(format!("call {place} was told another window than its units are in"));
            }
            world.summary.admitted += 1;
            let open = State::Open { terms: Arc::clone(terms), place: metric, taken };
            world.calls[place].state = if call.opens { open } else { State::Kept(taken.units) };
        }
        Ok(Outcome::Decided(decision)) => {
            if known.is_some() {
                return Err(format!("call {place} was denied, and its units are counted (INV3)"));
            }
            let caps = Caps::of(terms).filter(|caps| world.store.held_since(account, call.began, *caps));
            let Some(caps) = caps else {
                return Err(format!("call {place} was denied by limits that did not hold any more"));
            };
            world.books.denied(account, caps, call.units, &decision)?;
            world.summary.denied += 1;
            world.calls[place].state = State::Refused;
        }
        Ok(_stale) => {
            world.summary.stale += 1;
            let Call { node, account, key_expires_at, .. } = world.calls[place];
            if key_expires_at.is_some_and(|end| end <= world.clock) {
                world.calls[place].state = State::Refused;
                return Ok(());
            }
            world.calls[place].began = world.store.changes;
            let terms = read_afresh(world, node, account);
            demand(world, place, terms);
        }
        Err(StoreError::CommitUnknown) => {
            world.summary.unknown += 1;
            world.calls[place].state = State::Unknown;
        }
        Err(_not_counted) => {
            world.summary.refused += 1;
            world.calls[place].state = State::Refused;
        }
    }
    Ok(())
}
