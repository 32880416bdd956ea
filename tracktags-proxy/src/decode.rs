//! Encoded bodies, decoded as they flow, in bounded memory: `identity` was asked for, some targets encode all the
//! same.
//!
//! Every step takes a small slice of input and stops at about a megabyte of output, and every layer has a cap on all it
//! puts out, so a compression bomb ends as an answer that is too large, with at most a step's worth of it in memory. A
//! stream that ends before its encoding says so was cut short. Encodings nobody here knows are refused, not guessed.

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use std::io::{self, Write};
use tracktags_core::error::UpstreamError;

/// Encodings on top of each other at most.
const LAYERS_MAX: usize = 2;
/// Input decoded in one step. Deflate makes at most 1,032 times as much of it.
const STEP_BYTES: usize = 1_024;
/// Output after which brotli, which has no such bound, is stopped for a while.
const PIECE_BYTES: usize = 256 * 1_024;
/// A decoder's working buffer.
const BUFFER_BYTES: usize = 16 * 1_024;
/// What an encoded stream may hold beyond what it decodes to: headers, and the cost of what cannot be compressed.
const ENCODED_EXTRA_BYTES: u64 = 64 * 1_024;

/// Collects what a layer puts out, up to a cap over its whole life.
struct Sink {
    out: Vec<u8>,
    left: u64,
}

impl Sink {
    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(length).ok_or_else(|| io::Error::other(PastCap))?;
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the body passes its cap")]
struct PastCap;

type Brotli = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

enum Codec {
    /// One gzip member after the other (RFC 1952, 2.2).
    Gzip(Box<MultiGzDecoder<Sink>>),
    /// `deflate` is zlib (RFC 9110, 8.4.1.2); some send it bare. The first two bytes tell.
    Deflate { inflate: Option<Box<Decompress>>, start: Vec<u8>, ended: bool, sink: Sink },
    /// Without the "large window" extension, which is not part of `br` (RFC 7932) and takes a gigabyte.
    Brotli { state: Box<Brotli>, pending: bool, ended: bool, sink: Sink },
}

impl Codec {
    fn named(name: &str, cap: u64) -> Option<Self> {
        let sink = Sink { out: Vec::new(), left: cap };
        Some(match name {
            "gzip" | "x-gzip" => Self::Gzip(Box::new(MultiGzDecoder::new(sink))),
            "deflate" => Self::Deflate { inflate: None, start: Vec::new(), ended: false, sink },
            "br" => {
                let alloc = StandardAlloc::default;
                let state = Box::new(BrotliState::new_strict(alloc(), alloc(), alloc()));
                Self::Brotli { state, pending: false, ended: false, sink }
            }
            _ => return None,
        })
    }

    /// Whether output is still to come of input already taken.
    const fn is_pending(&self) -> bool {
        matches!(self, Self::Brotli { pending: true, .. })
    }

    /// Decodes some of the input, and takes that off it.
    fn write(&mut self, input: &mut Bytes) -> io::Result<Bytes> {
        let length = STEP_BYTES.min(input.len());
        let slice = input.slice(..length);
        let (bytes, mut taken) = (&slice[..], length);
        let sink = match self {
            Self::Gzip(decoder) => {
                decoder.write_all(bytes)?;
                decoder.flush()?;
                decoder.get_mut()
            }
            Self::Deflate { inflate, start, ended, sink } => {
                match inflate {
                    Some(inflate) => run_inflate(inflate, bytes, ended, sink)?,
                    None => {
                        start.extend_from_slice(bytes);
                        if let [first, second, ..] = **start {
                            let inflate = inflate.insert(Box::new(Decompress::new(is_zlib(first, second))));
                            run_inflate(inflate, &std::mem::take(start), ended, sink)?;
                        }
                    }
                }
                sink
            }
            Self::Brotli { state, pending, ended, sink } => {
                taken = run_brotli(state, bytes, ended, sink)?;
                *pending = !*ended && sink.out.len() >= PIECE_BYTES;
                sink
            }
        };
        input.advance(taken);
        Ok(std::mem::take(&mut sink.out).into())
    }

    /// Ends it: a stream cut short is an error here.
    fn finish(&mut self) -> io::Result<Bytes> {
        match self {
            Self::Gzip(decoder) => {
                decoder.try_finish()?;
                Ok(std::mem::take(&mut decoder.get_mut().out).into())
            }
            Self::Deflate { ended: true, .. } | Self::Brotli { ended: true, .. } => Ok(Bytes::new()),
            Self::Deflate { .. } | Self::Brotli { .. } => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// RFC 1950, 2.2: the method is 8, and the two bytes as a number divide by 31.
const fn is_zlib(first: u8, second: u8) -> bool {
    first & 0x0f == 8 && u16::from_be_bytes([first, second]).is_multiple_of(31)
}

fn surplus() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "bytes after the end of the encoded body")
}

fn run_inflate(
    inflate: &mut Decompress,
    mut input: &[u8],
    ended: &mut bool,
    sink: &mut Sink,
) -> io::Result<()> {
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        if *ended {
            return if input.is_empty() { Ok(()) } else { Err(surplus()) };
        }
        let (read, written) = (inflate.total_in(), inflate.total_out());
        let status = inflate.decompress(input, &mut buffer, FlushDecompress::None)?;
        let consumed = usize::try_from(inflate.total_in() - read).unwrap_or(usize::MAX);
        let made = usize::try_from(inflate.total_out() - written).unwrap_or(usize::MAX);
        input = input.get(consumed..).unwrap_or_default();
        sink.push(buffer.get(..made).unwrap_or_default())?;
        *ended = status == Status::StreamEnd;
        // A full buffer may hide more output of what was consumed, so it is asked again.
        if !*ended && input.is_empty() && made < BUFFER_BYTES {
            return Ok(());
        }
        if !*ended && consumed == 0 && made == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// Decodes until input or patience ends; how much of the input was taken.
fn run_brotli(state: &mut Brotli, input: &[u8], ended: &mut bool, sink: &mut Sink) -> io::Result<usize> {
    let mut buffer = [0; BUFFER_BYTES];
    let (mut left, mut taken, mut total) = (input.len(), 0, 0);
    loop {
        if *ended {
            return if left == 0 { Ok(taken) } else { Err(surplus()) };
        }
        let (mut room, mut made) = (BUFFER_BYTES, 0);
        let found = BrotliDecompressStream(
            &mut left,
            &mut taken,
            input,
            &mut room,
            &mut made,
            &mut buffer,
            &mut total,
            state,
        );
        sink.push(buffer.get(..made).unwrap_or_default())?;
        match found {
            BrotliResult::ResultSuccess => *ended = true,
            BrotliResult::NeedsMoreOutput if sink.out.len() < PIECE_BYTES => {}
            BrotliResult::NeedsMoreOutput | BrotliResult::NeedsMoreInput => return Ok(taken),
            BrotliResult::ResultFailure => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

struct Layer {
    codec: Codec,
    waiting: Bytes,
}

impl Layer {
    fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || self.codec.is_pending()
    }
}

/// The decoders of a body, the outermost encoding first.
pub(crate) struct Decoder {
    layers: Vec<Layer>,
    bytes_max: u64,
    encoded_left: u64,
    input: Input,
    /// Layers that were told of the end of their input.
    finished: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    /// Not a byte of it came yet. An encoded body without a byte is empty, not cut short.
    None,
    Flowing,
    Ended,
}

/// What `Content-Encoding` says of a body.
pub(crate) enum Encoding {
    /// It is not encoded.
    Plain,
    /// It will be decoded.
    Known(Box<Decoder>),
    /// Nobody here can.
    Unknown,
}

/// What a step of decoding came to.
pub(crate) enum Step {
    /// A piece of the body.
    Piece(Bytes),
    /// Everything that came was decoded.
    Hungry,
    /// The body is whole.
    Whole,
}

impl Decoder {
    /// Reads `Content-Encoding`, and drops it where the body will be decoded.
    pub(crate) fn of(headers: &mut HeaderMap, bytes_max: u64) -> Encoding {
        let mut names: Vec<String> = Vec::new();
        for value in headers.get_all(CONTENT_ENCODING) {
            let Ok(value) = value.to_str() else { return Encoding::Unknown };
            let listed = value.split(',').map(|name| name.trim().to_ascii_lowercase());
            names.extend(listed.filter(|name| !name.is_empty() && name != "identity"));
        }
        if names.is_empty() {
            return Encoding::Plain;
        }
        if names.len() > LAYERS_MAX {
            return Encoding::Unknown;
        }
        // What stands between two layers is itself encoded, so it may be a little larger than the body.
        let encoded_max = bytes_max.saturating_add(bytes_max / 8).saturating_add(ENCODED_EXTRA_BYTES);
        // Listed in the order in which they were applied (RFC 9110, 8.4), so undone from the last.
        let layer = |(place, name): (usize, &String)| {
            let cap = if place == 0 { bytes_max } else { encoded_max };
            Codec::named(name, cap).map(|codec| Layer { codec, waiting: Bytes::new() })
        };
        let Some(layers) = names.iter().enumerate().rev().map(layer).collect::<Option<Vec<_>>>() else {
            return Encoding::Unknown;
        };
        headers.remove(CONTENT_ENCODING);
        Encoding::Known(Box::new(Self {
            layers,
            bytes_max,
            encoded_left: encoded_max,
            input: Input::None,
            finished: 0,
        }))
    }

    /// Takes a chunk in. Only after [`Step::Hungry`].
    pub(crate) fn feed(&mut self, chunk: Bytes) -> Result<(), UpstreamError> {
        let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        // Input that decodes to nothing has a limit too.
        let too_large = UpstreamError::TooLarge { bytes_max: self.bytes_max };
        self.encoded_left = self.encoded_left.checked_sub(length).ok_or(too_large)?;
        self.input = Input::Flowing;
        if let Some(first) = self.layers.first_mut() {
            first.waiting = chunk;
        }
        Ok(())
    }

    /// Says that nothing more will be fed.
    pub(crate) fn end(&mut self) {
        if self.input == Input::None {
            self.layers.clear();
        }
        self.input = Input::Ended;
    }

    /// Decodes until a piece is there, or nothing is left to decode.
    pub(crate) fn step(&mut self) -> Result<Step, UpstreamError> {
        let bytes_max = self.bytes_max;
        let fault = |error: io::Error| {
            if error.get_ref().is_some_and(|cause| cause.is::<PastCap>()) {
                UpstreamError::TooLarge { bytes_max }
            } else {
                UpstreamError::Truncated(Box::new(error))
            }
        };
        loop {
            // The innermost layer first, so nothing piles up between two.
            let fed = self.layers.iter_mut().enumerate().rev().find(|(_, layer)| layer.is_busy());
            let (place, out) = if let Some((place, layer)) = fed {
                (place, layer.codec.write(&mut layer.waiting).map_err(fault)?)
            } else if self.input != Input::Ended {
                return Ok(Step::Hungry);
            } else if let Some(layer) = self.layers.get_mut(self.finished) {
                self.finished += 1;
                (self.finished - 1, layer.codec.finish().map_err(fault)?)
            } else {
                return Ok(Step::Whole);
            };
            match self.layers.get_mut(place + 1) {
                // It had nothing left to do, or it would have come first.
                Some(inner) => inner.waiting = out,
                None if out.is_empty() => {}
                None => return Ok(Step::Piece(out)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    #[test]
    fn output_that_just_fills_the_buffer_is_not_taken_for_a_fault() {
        for length in [BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 4 * BUFFER_BYTES] {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&vec![0; length]).unwrap();
            // All of the input is there, but not the end of the stream.
            encoder.flush().unwrap();
            let so_far = encoder.get_ref().len();
            let whole = encoder.finish().unwrap();
            let mut codec = Codec::named("deflate", u64::MAX).unwrap();
            let (start, end) = whole.split_at(so_far);
            assert_eq!(codec.write(&mut Bytes::copy_from_slice(start)).unwrap().len(), length);
            assert!(codec.finish().is_err(), "cut short");
            assert!(codec.write(&mut Bytes::copy_from_slice(end)).unwrap().is_empty());
            assert!(codec.finish().unwrap().is_empty());
        }
    }
}
