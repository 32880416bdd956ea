//! A body collected up to a cap. One that comes in one piece is not copied.

use bytes::{Bytes, BytesMut};

/// The pieces so far.
#[derive(Default)]
pub(crate) struct Gather {
    first: Bytes,
    all: BytesMut,
    expected: usize,
}

/// The body is larger than the cap.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

impl Gather {
    /// For a body that says it will have so many bytes: room for them is made once, and not by doubling.
    pub(crate) fn expecting(bytes: usize) -> Self {
        Self { expected: bytes, ..Self::default() }
    }

    fn len(&self) -> usize {
        self.first.len().max(self.all.len())
    }

    /// Takes a piece.
    pub(crate) fn push(&mut self, piece: Bytes, bytes_max: usize) -> Result<(), TooLarge> {
        if self.len().saturating_add(piece.len()) > bytes_max {
            return Err(TooLarge);
        }
        if self.len() == 0 {
            self.first = piece;
            return Ok(());
        }
        if self.all.is_empty() {
            let so_far = self.first.len().saturating_add(piece.len());
            self.all.reserve(so_far.max(self.expected.min(bytes_max)));
            self.all.extend_from_slice(&self.first);
        }
        self.all.extend_from_slice(&piece);
        Ok(())
    }

    /// The whole body.
    pub(crate) fn finish(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_whole_up_to_the_cap() {
        for pieces in [&["abc"][..], &["a", "", "bc"], &["", "abc"], &["a", "b", "c"], &[]] {
            let mut gather = Gather::expecting(pieces.len());
            for piece in pieces {
                assert_eq!(gather.push(Bytes::from_static(piece.as_bytes()), 3), Ok(()));
            }
            assert_eq!(gather.push(Bytes::from_static(b"wxyz"), 3), Err(TooLarge));
            assert_eq!(gather.finish(), pieces.concat());
        }
    }
}
