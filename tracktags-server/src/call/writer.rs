//! JSON written field by field into one buffer: answers of the data plane build no trees.

use serde::Serialize;
use std::ops::Range;
use tracktags_core::time::Timestamp;

/// One JSON object or array, written member by member into one buffer.
pub(crate) struct Json {
    bytes: Vec<u8>,
    end: u8,
}

impl Json {
    /// An object.
    pub(crate) fn new(room: usize) -> Self {
        Self::begun(Vec::with_capacity(room), b'{', b'}')
    }

    /// An array, after what stands in the buffer.
    pub(crate) fn array_after(bytes: Vec<u8>) -> Self {
        Self::begun(bytes, b'[', b']')
    }

    fn begun(mut bytes: Vec<u8>, begin: u8, end: u8) -> Self {
        bytes.push(begin);
        Self { bytes, end }
    }

    /// A field's name: one of ours or of HTTP, neither of which holds anything that JSON escapes.
    pub(crate) fn key(&mut self, name: &str) {
        self.comma();
        self.word(name);
        self.bytes.push(b':');
    }

    /// Between two members; nothing before the first.
    fn comma(&mut self) {
        if !matches!(self.bytes.last(), None | Some(b'{' | b'[')) {
            self.bytes.push(b',');
        }
    }

    /// A string without anything that JSON escapes.
    fn word(&mut self, word: &str) {
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(word.as_bytes());
        self.bytes.push(b'"');
    }

    fn number(&mut self, number: i64) {
        self.bytes.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    pub(crate) fn value<T: Serialize + ?Sized>(&mut self, value: &T) {
        // Fails for maps with keys that are no strings only, of which there are none here.
        let _ = serde_json::to_writer(&mut self.bytes, value);
    }

    pub(crate) fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.key(name);
        self.value(value);
    }

    /// A field whose value is one of our own words.
    pub(crate) fn field_word(&mut self, name: &str, word: &'static str) {
        self.key(name);
        self.word(word);
    }

    pub(crate) fn field_number(&mut self, name: &str, number: i64) {
        self.key(name);
        self.number(number);
    }

    pub(crate) fn field_maybe(&mut self, name: &str, number: Option<i64>) {
        match number {
            Some(number) => self.field_number(name, number),
            None => self.field_raw(name, "null"),
        }
    }

    pub(crate) fn field_flag(&mut self, name: &str, flag: bool) {
        self.field_raw(name, if flag { "true" } else { "false" });
    }

    pub(crate) fn field_time(&mut self, name: &str, time: Option<Timestamp>) {
        let Some(time) = time else { return self.field_raw(name, "null") };
        self.key(name);
        self.bytes.push(b'"');
        time.write(&mut self.bytes);
        self.bytes.push(b'"');
    }

    fn field_raw(&mut self, name: &str, json: &'static str) {
        self.key(name);
        self.bytes.extend_from_slice(json.as_bytes());
    }

    /// A field that is an object.
    pub(crate) fn object(&mut self, name: &str, members: impl FnOnce(&mut Self)) {
        self.key(name);
        self.bytes.push(b'{');
        members(self);
        self.bytes.push(b'}');
    }

    /// A field that is an array of objects.
    pub(crate) fn objects<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut members: impl FnMut(&mut Self, T),
    ) {
        self.key(name);
        self.bytes.push(b'[');
        for item in items {
            self.item(|json| members(json, item));
        }
        self.bytes.push(b']');
    }

    /// What has been written so far ends here.
    pub(crate) const fn mark(&self) -> usize {
        self.bytes.len()
    }

    /// Writes once more what was written between two marks.
    pub(crate) fn again(&mut self, marks: Range<usize>) {
        if marks.end <= self.bytes.len() {
            self.bytes.extend_from_within(marks);
        }
    }

    /// An object in an array.
    pub(crate) fn item(&mut self, members: impl FnOnce(&mut Self)) {
        self.comma();
        self.bytes.push(b'{');
        members(self);
        self.bytes.push(b'}');
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(self.end);
        self.bytes
    }
}
