//! The target of every call: a small JSON answer to whatever comes.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ANSWER: &[u8] = br#"{"message":"hello","items":[1,2,3]}"#;

fn main() -> std::io::Result<()> {
    tracktags_bench::serve(|| {
        |_request| async {
            let mut answer = Response::new(Full::new(Bytes::from_static(ANSWER)));
            *answer.status_mut() = StatusCode::OK;
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer
        }
    })
}
