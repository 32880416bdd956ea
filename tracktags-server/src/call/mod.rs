//! One call: ① key → ② identity → ③ limits → ④ demand → ⑤ batch → ⑥ decision → ⑦ forward → ⑧ settle.
//!
//! `envelope` reads what is wished and `answer` writes what came of it; the steps between are here. They outlive the
//! request, so a caller who goes away changes nothing. Keeps
//! `counted-before-forwarded`: nothing is sent before the batch has committed.

pub(crate) mod answer;
pub(crate) mod envelope;
mod forward;
mod known;
pub(crate) mod query;
pub(crate) mod standing;
mod subject;
#[cfg(test)]
mod testing_envelope;
pub(crate) mod writer;

use crate::app::{App, CallPlace};
use crate::error::{ApiError, Code, overloaded};
use crate::identity::Caller;
use answer::Answered;
use bytes::Bytes;
use http::{HeaderMap, Method};
use known::Known;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use subject::{Subject, ask};
use tokio::time::timeout;
use tracktags_core::accounts::TargetChoice;
use tracktags_core::audit::{Author, Event};
use tracktags_core::decide::Decision;
use tracktags_core::demand::Ask;
use tracktags_core::error::UpstreamError;
use tracktags_core::limits::Terms;
use tracktags_core::metrics::Units;
use tracktags_core::settle::{CallOutcome, ChargeOn};
use tracktags_core::traits::Upstream;
use tracktags_core::upstreams::{Target, TargetClass};
use tracktags_proxy::Proxy;
use tracktags_store::{Admitted, Reservation};

/// Seconds after which a place in flight is worth another try.
const PLACE_RETRY_SECONDS: u64 = 1;

/// What a caller wishes, whatever form it came in.
pub(crate) struct Wish {
    pub(crate) target_url: String,
    subject: Subject,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    /// The request came through this deployment already.
    pub(crate) is_looping: bool,
    /// The request came through some proxy.
    pub(crate) is_forwarded: bool,
    pub(crate) request_id: http::HeaderValue,
}

/// Makes the call. It goes on without a caller who leaves.
pub(crate) fn call(app: Arc<App>, caller: Caller, wish: Box<Wish>) -> Finishing {
    Finishing(Some(Box::pin(run(app, caller, wish))))
}

type Running = Pin<Box<dyn Future<Output = Result<Answered, ApiError>>>>;

/// A call on its way. The request's handler polls it, which costs no task and no wake-up; when the handler is
/// dropped before the call is done, the rest of it becomes a task of its own.
#[must_use]
pub(crate) struct Finishing(Option<Running>);

impl Future for Finishing {
    type Output = Result<Answered, ApiError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(running) = &mut self.0 else { return Poll::Pending };
        let polled = catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(cx)));
        let done = match polled {
            Ok(polled) => ready!(polled),
            // What a panic says may hold a piece of the request; the hook has logged where it was.
            Err(_panic) => Err(ApiError::internal("a call panicked")),
        };
        self.0 = None;
        Poll::Ready(done)
    }
}

impl Drop for Finishing {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            drop(actix_web::rt::spawn(async move { drop(running.await) }));
        }
    }
}

async fn run(app: Arc<App>, caller: Caller, wish: Box<Wish>) -> Result<Answered, ApiError> {
    let known = Known::of(&app, caller, &wish.subject).await?; //          ① key, ② identity
    let (call, admitted) = admit(&app, known, &wish).await?; //            ③ limits, ④ demand, ⑤ batch
    let (decision, reservation) = match admitted {
        //                                                                 ⑥ decision
        Admitted::Denied(decision) => return Ok(Answered::denied(&call.terms, &decision)),
        Admitted::Admitted(decision, reservation) => (decision, reservation),
        Admitted::Stale => return Err(overloaded()),
        Admitted::OutOfRange => return Err(out_of_range()),
    };
    let forwarded = forward::forward(&app, &call, &decision, wish).await; // ⑦ forward
    app.meters.note_target(forwarded.error());
    if forwarded.is_blocked() {
        note_refusal(&app, &call).await;
    }
    let settled = settle(&app, reservation, forwarded.outcome()).await; //   ⑧ settle
    let decision = settled.applied(&call.terms, decision);
    Answered::forwarded(&call.terms, &decision, forwarded, settled == Settled::Pending)
}

/// A name that turned out to lead where nobody may go is noted. The verdict is kept, so this is rare.
async fn note_refusal(app: &App, call: &Call) {
    let account = &call.terms.account;
    let event = Event {
        business: Some(account.business.clone()),
        action: "target.refuse",
        resource_id: call.target.authority.to_string(),
        after: account.customer.as_ref().map(|id| serde_json::json!({"customer_id": id}).to_string()),
    };
    if let Err(error) = app.store.note(Author::server(), event).await {
        tracing::warn!(error = %crate::frame::chain(&error), "a refused target was not noted");
    }
}

/// A call that may be asked for, with its places in flight. They are given back when it ends.
struct Call {
    terms: Arc<Terms>,
    target: Target,
    _customer: Option<CallPlace>,
    _target: <Proxy as Upstream>::Place,
}

/// Takes the call into a batch.
async fn admit(app: &App, known: Known, wish: &Wish) -> Result<(Call, Admitted), ApiError> {
    let prepare = |terms: Arc<Terms>| {
        let target = checked_target(app, &terms, wish)?;
        let ask = ask(&terms, &wish.subject)?;
        Ok((terms, target, ask))
    };
    let submit = async |known: &Known, (terms, target, ask): (Arc<Terms>, Target, Ask)| {
        let call = take_places(app, terms, target)?;
        let demand = known.demand(&call.terms, ask, true);
        match app.admission.reserve(demand).await? {
            Admitted::Stale => Ok(None),
            admitted => Ok(Some((call, admitted))),
        }
    };
    known.decide(app, prepare, submit).await
}

/// Places in flight, at the customer and at the target.
fn take_places(app: &App, terms: Arc<Terms>, target: Target) -> Result<Call, ApiError> {
    let customer = match terms.account.customer {
        Some(_) => Some(app.calls.place(&terms).ok_or_else(too_many_calls)?),
        None => None,
    };
    let place = app.upstream.place(&target, &terms.account.business).ok_or_else(upstream_busy)?;
    Ok(Call { terms, target, _customer: customer, _target: place })
}

/// Which targets a call may reach: the server's policy, narrowed by the business.
fn target_class(server: TargetClass, business: TargetChoice) -> TargetClass {
    match (server, business) {
        (TargetClass::Allowlist, _) | (_, TargetChoice::Allowlist) => TargetClass::Allowlist,
        (_, TargetChoice::Public) => TargetClass::Public,
        (server, TargetChoice::Auto) => server,
    }
}

/// The target, if its URL is acceptable, the call is not going round in circles, and policy allows it: in this order.
fn checked_target(app: &App, terms: &Terms, wish: &Wish) -> Result<Target, ApiError> {
    let server = app.config.proxy.target_policy;
    let checked = app.upstream.check(&wish.target_url, target_class(server, terms.target_policy));
    if let Err(UpstreamError::InvalidTarget(reason)) = &checked {
        return Err(invalid_target(reason));
    }
    if wish.is_looping {
        let message = "This call has already come through this deployment; point the target elsewhere.";
        return Err(ApiError::new(Code::LoopDetected, message));
    }
    if server == TargetClass::Open && wish.is_forwarded {
        // Something publishes a port that is meant for this machine only.
        return Err(upstream_blocked());
    }
    checked.map_err(|_blocked| upstream_blocked())
}

pub(crate) fn invalid_target(reason: &str) -> ApiError {
    ApiError::new(Code::InvalidTarget, format!("target_url is not acceptable: {reason}."))
}

pub(crate) fn upstream_blocked() -> ApiError {
    ApiError::new(Code::UpstreamBlocked, "This target is not allowed.")
}

fn too_many_calls() -> ApiError {
    ApiError::new(Code::Concurrency, "Too many calls of this customer are in flight; wait for some to end.")
        .retry_after(PLACE_RETRY_SECONDS)
}

fn upstream_busy() -> ApiError {
    ApiError::new(Code::UpstreamBusy, "Too many calls to this target are in flight; nothing was counted.")
        .retry_after(PLACE_RETRY_SECONDS)
}

fn out_of_range() -> ApiError {
    ApiError::field("units", "with these the metric would pass 9007199254740991")
}

/// What became of the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// They stay counted.
    Kept,
    /// They were given back, durably.
    Released,
    /// They will be given back when the store returns; until then they stay counted.
    Pending,
}

/// ⑧ Keeps or releases the units, durably before the caller is told.
async fn settle(app: &App, reservation: Option<Reservation>, outcome: CallOutcome) -> Settled {
    let Some(reservation) = reservation else { return Settled::Kept };
    if ChargeOn::Success.keeps(outcome) {
        app.admission.keep(reservation);
        return Settled::Kept;
    }
    released_within(app, reservation, app.config.proxy.settle_wait).await
}

async fn released_within(app: &App, reservation: Reservation, wait: Duration) -> Settled {
    match timeout(wait, app.admission.settle(reservation, Units::ZERO)).await {
        Ok(Ok(())) => Settled::Released,
        Ok(Err(error)) => {
            tracing::warn!(error = %crate::frame::chain(&error), "a release waits for the store");
            Settled::Pending
        }
        Err(_elapsed) => Settled::Pending,
    }
}

impl Settled {
    /// The decision less what was released.
    fn applied(self, terms: &Terms, mut decision: Decision) -> Decision {
        if self != Self::Released {
            return decision;
        }
        let Some((place, taken)) = decision.taken else { return decision };
        let Some(entry) = terms.limits.get(place) else { return decision };
        let units = tracktags_core::decide::weight(entry.metric.operation, taken.units);
        for metric in decision.metrics.iter_mut().filter(|metric| metric.place == place) {
            metric.value = metric.value.saturating_sub(units).max(0);
            for (limit, state) in entry.limits.iter().zip(&mut metric.limits) {
                let [windows @ .., level] = &taken.overage;
                let window = limit.period.window().and_then(|window| windows.get(window.index()));
                *state = state.less(limit, units, *window.unwrap_or(level));
            }
        }
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_business_narrows_the_servers_policy_and_never_widens_it() {
        use {TargetChoice as Choice, TargetClass as Class};
        for (server, business, expected) in [
            (Class::Public, Choice::Auto, Class::Public),
            (Class::Public, Choice::Public, Class::Public),
            (Class::Public, Choice::Allowlist, Class::Allowlist),
            (Class::Allowlist, Choice::Auto, Class::Allowlist),
            (Class::Allowlist, Choice::Public, Class::Allowlist),
            (Class::Open, Choice::Auto, Class::Open),
            (Class::Open, Choice::Public, Class::Public),
            (Class::Open, Choice::Allowlist, Class::Allowlist),
        ] {
            assert_eq!(target_class(server, business), expected, "{server:?} {business:?}");
        }
    }
}
