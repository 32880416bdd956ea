//! A load's books, read from its log: what it asked for, what became of it, and whether the counters agree (INV1 to INV3
//! of docs/RELIABILITY.md).
//!
//! A line is `ask NUMBER CUSTOMER UNITS`, on the disk before the request leaves, or an outcome's word and the number. An
//! attempt without an outcome, its client killed perhaps, is unknown. A last line that was cut short is none.

use crate::http::Response;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// A: answered `allowed`, and its units are kept.
    Kept,
    /// Answered, and its units were released.
    Released,
    /// D: a limit refused.
    Denied,
    /// Refused for another reason, or never sent; nothing was counted.
    Refused,
    /// X: nobody knows, or the answer does not say.
    Unknown,
}

impl Outcome {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Kept, "kept"),
        (Self::Released, "released"),
        (Self::Denied, "denied"),
        (Self::Refused, "refused"),
        (Self::Unknown, "unknown"),
    ];

    /// What an answer says.
    #[must_use]
    pub fn of(answer: &Response) -> Self {
        if answer.is_unsent() {
            return Self::Refused;
        }
        let body = answer.json();
        if body["release_pending"] == true {
            return Self::Unknown;
        }
        match (answer.status, answer.code().as_str()) {
            (200, _) => match body["forwarded_response"]["status_code"].as_u64() {
                Some(500..) => Self::Released,
                Some(_) | None => Self::Kept,
            },
            (429, "limit_exceeded") => Self::Denied,
            (502, "upstream_unreachable" | "upstream_invalid_response") => Self::Released,
            // Of the other failures at the target some are kept; what was not heard may be either.
            (0 | 502 | 504, _) | (503, "outcome_unknown") => Self::Unknown,
            _ => Self::Refused,
        }
    }

    /// Its word in the log.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(outcome, _)| *outcome == self).map_or("", |(_, word)| word)
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(outcome, _)| *outcome)
    }
}

/// One customer's, in units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// N: demanded.
    pub asked: i64,
    /// A.
    pub kept: i64,
    /// Known not to be counted.
    pub not_counted: i64,
}

impl Account {
    /// X: may be counted, or not.
    #[must_use]
    pub const fn unknown(&self) -> i64 {
        self.asked - self.kept - self.not_counted
    }

    /// What is wrong with a counter; `limit` is the most that may pass.
    #[must_use]
    pub fn fault(&self, counted: i64, limit: i64) -> Option<&'static str> {
        if counted < self.kept {
            Some("INV1: an acknowledged unit was lost")
        } else if counted > limit {
            Some("INV2: oversold")
        } else if counted > self.kept + self.unknown() {
            Some("INV3: a phantom")
        } else {
            None
        }
    }
}

/// All of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadBooks {
    /// By customer.
    pub accounts: BTreeMap<String, Account>,
    /// Attempts by outcome; those without one are unknown.
    pub outcomes: BTreeMap<Outcome, usize>,
    /// The number after the last.
    pub next: usize,
}

impl LoadBooks {
    /// Reads a log; of one that is not there, nothing.
    ///
    /// # Errors
    /// The file's.
    pub fn read(path: &Path) -> io::Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::of(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn of(text: &str) -> Self {
        let mut books = Self::default();
        let mut open: HashMap<usize, (&str, i64)> = HashMap::new();
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let mut words = line.split(' ');
            let (word, number) = (words.next().unwrap_or_default(), words.next());
            let Some(number) = number.and_then(|number| number.parse().ok()) else { continue };
            if let (Some(customer), Some(units)) = (words.next(), words.next()) {
                let units = units.parse().unwrap_or(0);
                open.insert(number, (customer, units));
                books.accounts.entry(customer.to_owned()).or_default().asked += units;
                books.next = books.next.max(number + 1);
            } else if let (Some(outcome), Some((customer, units))) =
                (Outcome::from_word(word), open.remove(&number))
            {
                *books.outcomes.entry(outcome).or_default() += 1;
                let account = books.accounts.entry(customer.to_owned()).or_default();
                match outcome {
                    Outcome::Kept => account.kept += units,
                    Outcome::Released | Outcome::Denied | Outcome::Refused => account.not_counted += units,
                    Outcome::Unknown => {}
                }
            }
        }
        if !open.is_empty() {
            *books.outcomes.entry(Outcome::Unknown).or_default() += open.len();
        }
        books
    }

    /// How many attempts had an outcome.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        self.outcomes.get(&outcome).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_gives_bounds_for_each_counter() {
        let log = "ask 0 c1 2\nask 1 c1 2\nkept 0\nask 2 c2 1\ndenied 2\nask 7 c1 2\nreleased 7\nkept 1";
        let books = LoadBooks::of(log);
        assert_eq!(books.next, 8);
        let one = books.accounts["c1"];
        assert_eq!((one.asked, one.kept, one.unknown()), (6, 2, 2), "the last line was cut short");
        assert_eq!(books.count(Outcome::Unknown), 1);
        let faults: Vec<_> = (1..=5).map(|counted| one.fault(counted, 10).map(|fault| &fault[..4])).collect();
        assert_eq!(faults, [Some("INV1"), None, None, None, Some("INV3")]);
        assert_eq!(one.fault(4, 3).map(|fault| &fault[..4]), Some("INV2"));
        assert_eq!(books.accounts["c2"].fault(0, 10), None);
    }
}
