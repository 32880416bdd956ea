//! The bare peer of `track`: the same JSON in, the same JSON out, on the same HTTP server, and nothing between: no key,
//! no limit, no count.

use actix_web::{App, HttpResponse, HttpServer, web};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::{Ipv4Addr, TcpListener};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Deserialize)]
struct Demand<'a> {
    #[serde(borrow)]
    customer_id: Cow<'a, str>,
    #[serde(borrow)]
    metric_name: Cow<'a, str>,
    units: i64,
}

#[derive(Serialize)]
struct Answer<'a> {
    status: &'static str,
    metric_name: &'a str,
    customer_id: &'a str,
    units: i64,
    breach_status: Standing<'a>,
    limits: [Standing<'a>; 1],
}

/// Where an account stands with a limit, with fixed figures, so that as many bytes go out.
#[derive(Clone, Copy, Serialize)]
struct Standing<'a> {
    is_breached: bool,
    current_usage: i64,
    limit_value: i64,
    remaining: i64,
    limit_operator: &'static str,
    breach_action: &'static str,
    metric_name: &'a str,
    limit_id: &'static str,
    source: &'static str,
    limit_period: &'static str,
    overage: i64,
    granted: i64,
    window_start: &'static str,
    window_end: &'static str,
}

async fn track(body: web::Bytes) -> HttpResponse {
    let Ok(demand) = serde_json::from_slice::<Demand>(&body) else {
        return HttpResponse::BadRequest().finish();
    };
    let standing = Standing {
        is_breached: false,
        current_usage: 1_234,
        limit_value: 9_000_000_000_000_000,
        remaining: 8_999_999_999_998_766,
        limit_operator: "gte",
        breach_action: "deny",
        metric_name: &demand.metric_name,
        limit_id: "0d0c6f0e6a1b4c0d8e9f0a1b2c3d4e5f",
        source: "business",
        limit_period: "monthly",
        overage: 0,
        granted: 0,
        window_start: "2026-01-01T00:00:00Z",
        window_end: "2026-02-01T00:00:00Z",
    };
    HttpResponse::Ok().json(Answer {
        status: "allowed",
        metric_name: &demand.metric_name,
        customer_id: &demand.customer_id,
        units: demand.units,
        breach_status: standing,
        limits: [standing],
    })
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let workers = std::thread::available_parallelism()?.get();
    println!("listening on http://{}", listener.local_addr()?);
    HttpServer::new(|| App::new().route("/api/v1/track", web::post().to(track)))
        .workers(workers)
        .tcp_nodelay(true)
        .listen(listener)?
        .run()
        .await
}
