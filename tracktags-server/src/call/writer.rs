//! JSON written field by field into one buffer: answers of the data plane build no trees.

use serde::Serialize;

/// One JSON object, written field by field into one buffer.
pub(super) struct Json(pub(super) Vec<u8>);

impl Json {
    pub(super) fn new(room: usize) -> Self {
        let mut bytes = Vec::with_capacity(room);
        bytes.push(b'{');
        Self(bytes)
    }

    pub(super) fn key(&mut self, name: &str) {
        if self.0.len() > 1 && self.0.last() != Some(&b'{') {
            self.0.push(b',');
        }
        self.value(name);
        self.0.push(b':');
    }

    pub(super) fn value<T: Serialize + ?Sized>(&mut self, value: &T) {
        // Fails for maps with keys that are no strings only, of which there are none here.
        let _ = serde_json::to_writer(&mut self.0, value);
    }

    pub(super) fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.key(name);
        self.value(value);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}
