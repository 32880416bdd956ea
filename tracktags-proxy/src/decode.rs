//! Encoded bodies, decoded as they flow, in bounded memory: `identity` was asked for, some targets encode all the
//! same. What comes out is capped, so a compression bomb ends as an answer that is too large.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use std::io::{self, Write};
use tracktags_core::error::UpstreamError;

/// Encodings on top of each other at most.
const LAYERS_MAX: usize = 2;
/// Brotli's working buffer in bytes.
const BROTLI_BUFFER_BYTES: usize = 4_096;

/// Collects what a decoder puts out, up to a cap.
struct Sink {
    out: Vec<u8>,
    left: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        self.left = self.left.checked_sub(length).ok_or_else(|| io::Error::other(PastCap))?;
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the decoded body passes the cap")]
struct PastCap;

enum Layer {
    Gzip(flate2::write::MultiGzDecoder<Sink>),
    Deflate(flate2::write::ZlibDecoder<Sink>),
    Brotli(Box<brotli::DecompressorWriter<Sink>>),
}

impl Layer {
    fn named(name: &str, cap: u64) -> Option<Self> {
        let sink = Sink { out: Vec::new(), left: cap };
        Some(match name {
            "gzip" | "x-gzip" => Self::Gzip(flate2::write::MultiGzDecoder::new(sink)),
            "deflate" => Self::Deflate(flate2::write::ZlibDecoder::new(sink)),
            "br" => Self::Brotli(Box::new(brotli::DecompressorWriter::new(sink, BROTLI_BUFFER_BYTES))),
            _ => return None,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(decoder) => {
                decoder.write_all(bytes)?;
                decoder.flush()?;
                Ok(std::mem::take(&mut decoder.get_mut().out))
            }
            Self::Deflate(decoder) => {
                decoder.write_all(bytes)?;
                decoder.flush()?;
                Ok(std::mem::take(&mut decoder.get_mut().out))
            }
            Self::Brotli(decoder) => {
                decoder.write_all(bytes)?;
                Ok(std::mem::take(&mut decoder.get_mut().out))
            }
        }
    }

    /// Ends it: a body cut short is an error here.
    fn finish(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(decoder) => {
                decoder.try_finish()?;
                Ok(std::mem::take(&mut decoder.get_mut().out))
            }
            Self::Deflate(decoder) => {
                decoder.try_finish()?;
                Ok(std::mem::take(&mut decoder.get_mut().out))
            }
            Self::Brotli(decoder) => {
                decoder.close()?;
                Ok(std::mem::take(&mut decoder.get_mut().out))
            }
        }
    }
}

/// The decoders of a body, the outermost encoding first.
pub(crate) struct Decoder {
    layers: Vec<Layer>,
    cap: u64,
    any: bool,
}

impl Decoder {
    /// Reads `Content-Encoding` and drops it where the body will be decoded. `None`: there is nothing to decode, or
    /// an encoding nobody here knows, which is handed on as it is.
    ///
    /// # Errors
    /// `Protocol` for more than two encodings on top of each other.
    pub(crate) fn for_headers(headers: &mut HeaderMap, cap: u64) -> Result<Option<Self>, UpstreamError> {
        let names: Vec<String> = headers
            .get_all(CONTENT_ENCODING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|name| name.trim().to_ascii_lowercase())
            .filter(|name| !name.is_empty() && name != "identity")
            .collect();
        if names.is_empty() {
            return Ok(None);
        }
        if names.len() > LAYERS_MAX {
            return Err(UpstreamError::Protocol("more than two encodings on top of each other".into()));
        }
        // Listed in the order in which they were applied (RFC 9110, 8.4), so undone from the last.
        let layers: Option<Vec<Layer>> = names.iter().rev().map(|name| Layer::named(name, cap)).collect();
        Ok(layers.map(|layers| {
            headers.remove(CONTENT_ENCODING);
            Self { layers, cap, any: false }
        }))
    }

    /// Decodes a chunk.
    pub(crate) fn push(&mut self, chunk: &Bytes) -> Result<Bytes, UpstreamError> {
        self.any |= !chunk.is_empty();
        let mut bytes = chunk.to_vec();
        for layer in &mut self.layers {
            bytes = layer.write(&bytes).map_err(|error| fault(error, self.cap))?;
        }
        Ok(bytes.into())
    }

    /// Ends the body. One without a byte (HEAD, 204, 304) is empty, not cut short.
    pub(crate) fn finish(&mut self) -> Result<Bytes, UpstreamError> {
        let mut bytes = Vec::new();
        if self.any {
            for layer in &mut self.layers {
                let mut out = layer.write(&bytes).map_err(|error| fault(error, self.cap))?;
                out.extend(layer.finish().map_err(|error| fault(error, self.cap))?);
                bytes = out;
            }
        }
        Ok(bytes.into())
    }
}

fn fault(error: io::Error, cap: u64) -> UpstreamError {
    if error.get_ref().is_some_and(|cause| cause.is::<PastCap>()) {
        UpstreamError::TooLarge { bytes_max: cap }
    } else {
        UpstreamError::Truncated(Box::new(error))
    }
}
