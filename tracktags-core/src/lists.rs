//! Shapes that many records share: a stretch of a list, a change of a field.

/// Which stretch of a list is wanted: by key, never by offset, oldest first.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    /// After this position ([`Page::next`] of the page before).
    pub after: Option<i64>,
    /// At most so many items.
    pub count_max: u32,
}

/// A stretch of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<i64>,
}

/// A change of an optional field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// As it was.
    #[default]
    Keep,
    /// To nothing.
    Clear,
    /// To this.
    Set(T),
}
