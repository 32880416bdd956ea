//! Counters in memory, as small as they come: one allocation for each, beside its place in a hash table.
//!
//! A million of them are kept where a thousand are used, so what a map of names and values would cost for each (four
//! allocations, twice the bytes) is what a server with many customers would mostly be made of. What counters have in
//! common, the business and the metric, is kept once. An entry is: its hash (8 bytes), its group (4), how long the
//! customer's id is (1), the id, the packed state.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;
use std::collections::HashMap;
use std::hash::BuildHasher;
use tracktags_core::accounts::{BusinessId, MetricName};
use tracktags_core::usage::CounterKey;

/// Packed counters by their keys.
#[derive(Default)]
pub(crate) struct CounterTable {
    entries: HashTable<Box<[u8]>>,
    groups: Groups,
    hasher: RandomState,
}

impl CounterTable {
    /// The packed state of a counter.
    pub(crate) fn get(&self, key: &CounterKey) -> Option<&[u8]> {
        let hash = self.hasher.hash_one(key);
        self.entries.find(hash, |entry| self.groups.is_of(entry, hash, key)).map(|entry| split(entry).state)
    }

    /// Keeps a counter's packed state, in place where it is as long as before.
    pub(crate) fn put(&mut self, key: &CounterKey, state: &[u8]) {
        let Self { entries, groups, hasher } = self;
        let hash = hasher.hash_one(key);
        match entries.entry(hash, |entry| groups.is_of(entry, hash, key), |entry| split(entry).hash) {
            Place::Occupied(mut place) => {
                let entry = place.get_mut();
                let Parts { group, state: before, .. } = split(entry);
                let names = entry.len() - before.len();
                match entry.get_mut(names..) {
                    Some(before) if before.len() == state.len() => before.copy_from_slice(state),
                    _ => *entry = joined(hash, group, key, state),
                }
            }
            Place::Vacant(place) => {
                place.insert(joined(hash, groups.enter(key), key, state));
            }
        }
    }

    /// Forgets a counter.
    pub(crate) fn remove(&mut self, key: &CounterKey) {
        let Self { entries, groups, hasher } = self;
        let hash = hasher.hash_one(key);
        if let Ok(place) = entries.find_entry(hash, |entry| groups.is_of(entry, hash, key)) {
            let (entry, _) = place.remove();
            groups.leave(split(&entry).group);
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The customers with a counter of this metric; the business's own account is the empty one.
    pub(crate) fn customers_with(&self, business: &BusinessId, metric: &MetricName) -> Vec<String> {
        let Some(group) = self.groups.number(business, metric) else { return Vec::new() };
        let entries = self.entries.iter().map(|entry| split(entry)).filter(|entry| entry.group == group);
        entries.map(|entry| String::from_utf8_lossy(entry.customer).into_owned()).collect()
    }
}

/// An entry's parts.
#[derive(Default)]
struct Parts<'a> {
    hash: u64,
    group: u32,
    customer: &'a [u8],
    state: &'a [u8],
}

fn split(entry: &[u8]) -> Parts<'_> {
    // Whatever `joined` made has all of these.
    let parts = || {
        let (hash, rest) = entry.split_first_chunk()?;
        let (group, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first()?;
        let (customer, state) = rest.split_at_checked(usize::from(*length))?;
        Some(Parts { hash: u64::from_le_bytes(*hash), group: u32::from_le_bytes(*group), customer, state })
    };
    parts().unwrap_or_default()
}

fn joined(hash: u64, group: u32, key: &CounterKey, state: &[u8]) -> Box<[u8]> {
    let customer = customer_of(key);
    // The grammar of ids ends far below.
    let length = u8::try_from(customer.len()).unwrap_or(u8::MAX);
    [&hash.to_le_bytes()[..], &group.to_le_bytes(), &[length], customer, state].concat().into()
}

fn customer_of(key: &CounterKey) -> &[u8] {
    key.account().customer.as_ref().map_or(&[], |customer| customer.as_str().as_bytes())
}

/// What counters have in common, numbered, for as long as one of them is here.
#[derive(Default)]
struct Groups {
    numbers: HashMap<(BusinessId, MetricName), u32, RandomState>,
    all: Vec<Group>,
    /// Numbers that nobody has.
    free: Vec<u32>,
}

struct Group {
    business: BusinessId,
    metric: MetricName,
    counters: usize,
}

impl Groups {
    fn is_of(&self, entry: &[u8], hash: u64, key: &CounterKey) -> bool {
        let parts = split(entry);
        parts.hash == hash
            && parts.customer == customer_of(key)
            && self.at(parts.group).is_some_and(|group| {
                group.metric == *key.metric() && group.business == key.account().business
            })
    }

    fn at(&self, number: u32) -> Option<&Group> {
        self.all.get(usize::try_from(number).ok()?)
    }

    fn number(&self, business: &BusinessId, metric: &MetricName) -> Option<u32> {
        self.numbers.get(&(business.clone(), metric.clone())).copied()
    }

    /// The number of a key's group, which has one counter more.
    fn enter(&mut self, key: &CounterKey) -> u32 {
        let (business, metric) = (&key.account().business, key.metric());
        let number = self.number(business, metric).unwrap_or_else(|| self.make(business, metric));
        if let Some(group) = self.all.get_mut(place(number)) {
            group.counters += 1;
        }
        number
    }

    fn make(&mut self, business: &BusinessId, metric: &MetricName) -> u32 {
        let group = Group { business: business.clone(), metric: metric.clone(), counters: 0 };
        let number = self.free.pop().unwrap_or_else(|| u32::try_from(self.all.len()).unwrap_or(u32::MAX));
        match self.all.get_mut(place(number)) {
            Some(free) => *free = group,
            None => self.all.push(group),
        }
        self.numbers.insert((business.clone(), metric.clone()), number);
        number
    }

    fn leave(&mut self, number: u32) {
        let Some(group) = self.all.get_mut(place(number)) else { return };
        group.counters = group.counters.saturating_sub(1);
        if group.counters == 0 {
            self.numbers.remove(&(group.business.clone(), group.metric.clone()));
            self.free.push(number);
        }
    }
}

fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracktags_core::accounts::{Account, CustomerId};

    fn key(business: &str, customer: Option<usize>, metric: &str) -> CounterKey {
        let customer = customer.map(|number| CustomerId::parse(&format!("c{number}")).unwrap());
        let business = BusinessId::parse(business).unwrap();
        CounterKey::new(Account { business, customer }, MetricName::parse(metric).unwrap())
    }

    #[test]
    fn a_table_keeps_what_a_map_keeps() {
        let (mut table, mut map) = (CounterTable::default(), HashMap::new());
        let mut seed = 7_u64;
        for _step in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = |shift: u32, of: u64| (seed >> shift) % of;
            let customer = pick(8, 20).checked_sub(1).map(|number| usize::try_from(number).unwrap());
            let business = ["b1", "b2", "b3"][usize::try_from(pick(20, 3)).unwrap()];
            let metric = ["calls", "seats"][usize::try_from(pick(24, 2)).unwrap()];
            let key = key(business, customer, metric);
            if pick(32, 3) == 0 {
                table.remove(&key);
                map.remove(&key);
            } else {
                let state = vec![seed as u8; usize::try_from(pick(40, 5)).unwrap() + 1];
                table.put(&key, &state);
                map.insert(key, state);
            }
            assert_eq!(table.len(), map.len());
        }
        for business in ["b1", "b2", "b3"] {
            for customer in (0..19).map(Some).chain([None]) {
                for metric in ["calls", "seats"] {
                    let key = key(business, customer, metric);
                    assert_eq!(table.get(&key), map.get(&key).map(Vec::as_slice), "{key:?}");
                }
            }
        }
        let of_b1 = map.keys().filter(|key| key.account().business.as_str() == "b1");
        let of_b1 = of_b1.filter(|key| key.metric().as_str() == "calls");
        let mut expected: Vec<_> =
            of_b1.map(|key| String::from_utf8(customer_of(key).to_vec()).unwrap()).collect();
        let key = key("b1", None, "calls");
        let mut found = table.customers_with(&key.account().business, key.metric());
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_group_that_nobody_is_in_is_forgotten() {
        let mut table = CounterTable::default();
        for number in 0..100 {
            let key = key(&format!("b{number}"), Some(1), "calls");
            table.put(&key, b"state");
            table.remove(&key);
        }
        assert_eq!((table.groups.all.len(), table.groups.numbers.len()), (1, 0));
    }
}
