//! What several tables need: rows → pages of records, texts as patterns, times that move on.

use super::dialect::Time;
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{Page, PageRequest};

/// How many rows to read for a page: one more tells whether another follows.
pub(crate) fn page_rows(page: PageRequest) -> i64 {
    i64::from(page.count_max) + 1
}

/// The page of rows read with [`page_rows`]; `seq` is a row's place, `read` leaves out what is not to be shown.
pub(crate) fn page_of<R, T>(
    mut rows: Vec<R>,
    page: PageRequest,
    seq: impl Fn(&R) -> i64,
    read: impl FnMut(R) -> Option<T>,
) -> Page<T> {
    let count_max = usize::try_from(page.count_max).unwrap_or(usize::MAX);
    let more = rows.len() > count_max;
    rows.truncate(count_max);
    let next = rows.last().map(seq).filter(|_| more);
    Page { items: rows.into_iter().filter_map(read).collect(), next }
}

/// `LIKE` pattern of "holds this text".
pub(crate) fn holds(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{escaped}%")
}

/// The later of `now` and just after `before`, so that a change always shows.
pub(crate) fn after(now: Timestamp, before: &Time) -> Timestamp {
    now.max(before.read_or_start().plus_micros(1))
}
