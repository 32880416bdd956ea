//! Plans and limits, and what holds for an account.

use super::super::{changes, customers, limits, plans, terms};
use super::*;
use tracktags_core::accounts::{Account, Enforcement, TargetChoice};
use tracktags_core::error::{Conflict, Entity, StoreError};
use tracktags_core::limits::{Action, Attachment, Operator, Terms};
use tracktags_core::metrics::{MetricType, Units};
use tracktags_core::traits::{Change, LimitChange, LimitQuery, NewLimit, PageRequest, PlanFields};
use tracktags_core::windows::Period;

const ALL: PageRequest = PageRequest { after: None, count_max: 500 };

fn conflict<T: std::fmt::Debug>(result: Result<T, StoreError>) -> (Conflict, String) {
    match result {
        Err(StoreError::Conflict { conflict, id, .. }) => (conflict, id),
        other => panic!("no conflict: {other:?}"),
    }
}

fn missing<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Entity {
    match result {
        Err(StoreError::NotFound { entity, .. }) => entity,
        other => panic!("found: {other:?}"),
    }
}

fn named(name: &str) -> PlanFields {
    PlanFields { plan_name: Some(name.into()), ..PlanFields::default() }
}

fn priced(name: &str, price: &str) -> PlanFields {
    PlanFields { stripe_price_id: Change::Set(price.into()), ..named(name) }
}

fn new(name: &str, value: i64, period: Period, attachment: Attachment) -> NewLimit {
    NewLimit {
        business: business("b1"),
        metric_name: metric(name),
        value: Units::new(value).unwrap(),
        period,
        operator: Operator::Gte,
        action: Action::Deny,
        attachment,
        metric_type: None,
        alert_thresholds: vec![80, 100],
        webhook_urls: None,
        overage_meter: None,
    }
}

pub(crate) fn held(conn: &mut Conn, now: Timestamp, account: &Account) -> Terms {
    terms::terms(conn, now, account).unwrap().unwrap()
}

/// `metric period value source` of each limit in force.
pub(crate) fn in_force(terms: &Terms) -> Vec<String> {
    let metrics = terms.limits.metrics();
    metrics
        .flat_map(|entry| entry.limits.iter())
        .map(|limit| {
            format!("{} {} {} {}", limit.metric_name, limit.period, limit.value, limit.attachment.source())
        })
        .collect()
}

#[test]
fn plans_have_one_name_one_price_and_one_of_them_is_free() {
    let conn = &mut two_businesses();
    let b1 = business("b1");
    let pro = plans::create_plan(conn, day(1), &b1, priced("Pro", "price_1")).unwrap();
    let free = plans::create_plan(conn, day(1), &b1, named("Free")).unwrap();
    let other = plans::create_plan(conn, day(1), &b1, named("Other")).unwrap();
    assert_eq!((pro.is_free, free.is_free, other.is_free), (false, true, false));
    let forced = PlanFields { is_free: Some(true), ..named("Free too") };
    for (fields, what, id) in [
        (named("Pro"), Conflict::PlanExists, &pro.id),
        (priced("Pro 2", "price_1"), Conflict::PriceTaken, &pro.id),
        (forced, Conflict::FreePlanExists, &free.id),
    ] {
        assert_eq!(conflict(plans::create_plan(conn, day(1), &b1, fields.clone())), (what, id.clone()));
        let update = plans::update_plan(conn, day(1), &b1, &other.id, fields);
        assert_eq!(conflict(update), (what, id.clone()));
    }
    let changed = plans::update_plan(conn, day(1), &b1, &pro.id, named("Pro")).unwrap();
    assert_eq!(changed, pro);
    let cleared = PlanFields { stripe_price_id: Change::Clear, ..PlanFields::default() };
    assert_eq!(plans::update_plan(conn, day(1), &b1, &pro.id, cleared).unwrap().stripe_price_id, None);
    assert_eq!(plans::plans(conn, &b1, ALL).unwrap().items.len(), 3);
    assert_eq!(missing(plans::plan(conn, &business("b2"), &pro.id)), Entity::Plan);
}

#[test]
fn a_plan_in_use_goes_only_by_force() {
    let conn = &mut two_businesses();
    let b1 = business("b1");
    let plan = plans::create_plan(conn, day(1), &b1, named("Pro")).unwrap();
    limits::create_limit(conn, day(1), new("calls", 5, Period::Daily, Attachment::Plan((&*plan.id).into())))
        .unwrap();
    sql(conn, &format!("UPDATE customers SET plan_id = '{}' WHERE business_id = 'b1'", plan.id));
    let refused = plans::delete_plan(conn, day(1), &b1, &plan.id, false);
    assert_eq!(conflict(refused).0, Conflict::PlanInUse);
    plans::delete_plan(conn, day(1), &b1, &plan.id, true).unwrap();
    assert_eq!(count(conn, "plan_limits"), 0);
    assert_eq!(count(conn, "customers WHERE plan_id IS NOT NULL"), 0);
    assert_eq!(missing(plans::delete_plan(conn, day(1), &b1, &plan.id, true)), Entity::Plan);
}

#[test]
fn a_limit_is_made_changed_and_deleted() {
    let conn = &mut two_businesses();
    let b1 = business("b1");
    let made = limits::create_limit(conn, day(1), new("calls", 1_000, Period::Monthly, Attachment::Business))
        .unwrap();
    assert_eq!((made.metric_type, made.alert_thresholds.clone()), (MetricType::Reset, vec![80, 100]));
    assert_eq!((made.created_at, made.updated_at), (day(1), day(1)));
    assert_eq!(count(conn, "metrics WHERE metric_name = 'calls' AND flush_interval = 'monthly'"), 2);
    let twin = limits::create_limit(conn, day(1), new("calls", 9, Period::Monthly, Attachment::Business));
    assert_eq!(conflict(twin), (Conflict::LimitExists, made.id.to_string()));
    let daily =
        limits::create_limit(conn, day(1), new("calls", 9, Period::Daily, Attachment::Business)).unwrap();
    let change = LimitChange { period: Some(Period::Monthly), ..LimitChange::default() };
    let twin = limits::update_limit(conn, day(1), &b1, &daily.id, change);
    assert_eq!(conflict(twin), (Conflict::LimitExists, made.id.to_string()));
    let change = LimitChange {
        value: Some(Units::new(10_000).unwrap()),
        action: Some(Action::AllowOverage),
        alert_thresholds: Some(vec![]),
        overage_meter: Change::Set("meter".into()),
        ..LimitChange::default()
    };
    let changed = limits::update_limit(conn, day(1), &b1, &made.id, change).unwrap();
    assert_eq!(
        (changed.value.get(), changed.action, changed.operator),
        (10_000, Action::AllowOverage, Operator::Gte)
    );
    assert_eq!((changed.alert_thresholds.len(), changed.overage_meter.as_deref()), (0, Some("meter")));
    assert!(changed.updated_at > made.updated_at);
    let realtime = LimitChange {
        metric_name: Some(metric("seats")),
        period: Some(Period::Realtime),
        ..LimitChange::default()
    };
    let changed = limits::update_limit(conn, day(1), &b1, &daily.id, realtime).unwrap();
    assert_eq!(changed.metric_type, MetricType::Checkpoint);
    limits::delete_limit(conn, day(1), &b1, &made.id).unwrap();
    for gone in [&*made.id, "unknown"] {
        assert_eq!(missing(limits::limit(conn, &b1, gone)), Entity::Limit);
        assert_eq!(missing(limits::delete_limit(conn, day(1), &b1, gone)), Entity::Limit);
    }
    assert_eq!(missing(limits::limit(conn, &business("b2"), &daily.id)), Entity::Limit);
}

#[test]
fn a_limit_names_what_there_is() {
    let conn = &mut two_businesses();
    let of = |attachment| new("calls", 1, Period::Daily, attachment);
    let cases = [
        (of(Attachment::Plan("p9".into())), Entity::Plan),
        (of(Attachment::Customer(customer("c9"))), Entity::Customer),
        (NewLimit { business: business("b9"), ..of(Attachment::Business) }, Entity::Business),
    ];
    for (limit, entity) in cases {
        assert_eq!(missing(limits::create_limit(conn, day(1), limit)), entity);
    }
    let mut checkpoint = new("seats", 1, Period::Realtime, Attachment::Customer(customer("c1")));
    limits::create_limit(conn, day(1), checkpoint.clone()).unwrap();
    (checkpoint.period, checkpoint.metric_type) = (Period::Daily, Some(MetricType::Reset));
    assert_eq!(conflict(limits::create_limit(conn, day(1), checkpoint.clone())).0, Conflict::MetricConflict);
    checkpoint.metric_type = Some(MetricType::Checkpoint);
    assert_eq!(limits::create_limit(conn, day(1), checkpoint).unwrap().metric_type, MetricType::Checkpoint);
    sql(
        conn,
        "INSERT INTO metrics (business_id, metric_name, operation) VALUES ('b1', 'peak', 'MAX'), ('b1', 'last', 'LAST')",
    );
    let of = |name, period| new(name, 1, period, Attachment::Customer(customer("c1")));
    assert_eq!(
        conflict(limits::create_limit(conn, day(1), of("peak", Period::Realtime))).0,
        Conflict::MetricConflict
    );
    assert_eq!(
        conflict(limits::create_limit(conn, day(1), of("last", Period::Daily))).0,
        Conflict::MetricConflict
    );
    assert!(limits::create_limit(conn, day(1), of("last", Period::Realtime)).is_ok());
}

#[test]
fn limits_are_listed_by_what_they_hold_for() {
    let conn = &mut two_businesses();
    let plan = plans::create_plan(conn, day(1), &business("b1"), named("Pro")).unwrap();
    for attachment in
        [Attachment::Business, Attachment::Plan((&*plan.id).into()), Attachment::Customer(customer("c1"))]
    {
        limits::create_limit(conn, day(1), new("calls", 5, Period::Daily, attachment.clone())).unwrap();
        limits::create_limit(conn, day(1), new("seats", 5, Period::Realtime, attachment)).unwrap();
    }
    let mut query = LimitQuery {
        business: business("b1"),
        plan_id: None,
        customer_id: None,
        metric_name: None,
        page: ALL,
    };
    assert_eq!(limits::limits(conn, &query).unwrap().items.len(), 6);
    query.metric_name = Some(metric("calls"));
    assert_eq!(limits::limits(conn, &query).unwrap().items.len(), 3);
    query.plan_id = Some(plan.id);
    assert_eq!(limits::limits(conn, &query).unwrap().items.len(), 1);
    (query.plan_id, query.customer_id) = (None, Some(customer("c1")));
    assert_eq!(limits::limits(conn, &query).unwrap().items.len(), 1);
    query.customer_id = Some(customer("c9"));
    assert_eq!(missing(limits::limits(conn, &query)), Entity::Customer);
    (query.customer_id, query.metric_name) = (None, None);
    query.page = PageRequest { after: None, count_max: 4 };
    let page = limits::limits(conn, &query).unwrap();
    query.page.after = page.next;
    assert_eq!((page.items.len(), limits::limits(conn, &query).unwrap().items.len()), (4, 2));
}

#[test]
fn the_most_specific_limit_wins_for_each_period() {
    let conn = &mut two_businesses();
    let pro = plans::create_plan(conn, day(1), &business("b1"), named("Pro")).unwrap();
    let other = plans::create_plan(conn, day(1), &business("b1"), named("Other")).unwrap();
    for (value, period, attachment) in [
        (1, Period::Daily, Attachment::Business),
        (2, Period::Monthly, Attachment::Business),
        (3, Period::Yearly, Attachment::Business),
        (4, Period::Monthly, Attachment::Plan((&*pro.id).into())),
        (5, Period::Yearly, Attachment::Plan((&*pro.id).into())),
        (6, Period::Hourly, Attachment::Plan((&*other.id).into())),
        (7, Period::Yearly, Attachment::Customer(customer("c1"))),
        (8, Period::Weekly, Attachment::Customer(customer("c2"))),
    ] {
        limits::create_limit(conn, day(1), new("calls", value, period, attachment)).unwrap();
    }
    sql(
        conn,
        &format!(
            "UPDATE customers SET plan_id = '{}' WHERE business_id = 'b1' AND customer_id = 'c1'",
            pro.id
        ),
    );
    let terms = held(conn, day(1), &account("c1"));
    let expected = ["calls daily 1 business", "calls monthly 4 plan", "calls yearly 7 customer"];
    assert_eq!(in_force(&terms), expected);
    assert_eq!(terms.plan_in_force.as_deref(), Some(&*pro.id));
    assert_eq!(terms.version, changes::version(conn, &business("b1")).unwrap());
    let terms = held(conn, day(1), &Account::business(business("b1")));
    let expected = ["calls daily 1 business", "calls monthly 2 business", "calls yearly 3 business"];
    assert_eq!(in_force(&terms), expected);
    assert!(in_force(&held(conn, day(1), &Account::customer(business("b2"), customer("c1")))).is_empty());
    for nobody in [account("c9"), Account::business(business("b9"))] {
        assert!(terms::terms(conn, day(1), &nobody).unwrap().is_none());
    }
    customers::delete_customer(conn, day(1), &business("b1"), &customer("c1")).unwrap();
    assert!(terms::terms(conn, day(1), &account("c1")).unwrap().is_none());
}

#[test]
fn the_free_plan_holds_once_the_subscription_ended() {
    let conn = &mut two_businesses();
    let b1 = business("b1");
    let pro = plans::create_plan(conn, day(1), &b1, priced("Pro", "price_1")).unwrap();
    limits::create_limit(
        conn,
        day(1),
        new("calls", 1_000, Period::Daily, Attachment::Plan((&*pro.id).into())),
    )
    .unwrap();
    let set = format!("plan_id = '{}', subscription_ends_at = '2026-01-10 12:00:00'", pro.id);
    sql(conn, &format!("UPDATE customers SET {set} WHERE business_id = 'b1' AND customer_id = 'c1'"));
    // No free plan: the old plan's limits go on holding.
    let terms = held(conn, day(20), &account("c1"));
    assert_eq!((in_force(&terms), terms.good_until), (vec!["calls daily 1000 plan".to_owned()], None));
    let free = plans::create_plan(conn, day(1), &b1, named("Free")).unwrap();
    limits::create_limit(conn, day(1), new("calls", 10, Period::Daily, Attachment::Plan((&*free.id).into())))
        .unwrap();
    let before = held(conn, day(9), &account("c1"));
    assert_eq!(
        (in_force(&before), before.good_until),
        (vec!["calls daily 1000 plan".to_owned()], Some(day(10)))
    );
    for now in [day(10), day(11)] {
        let after = held(conn, now, &account("c1"));
        assert_eq!((in_force(&after), after.good_until), (vec!["calls daily 10 plan".to_owned()], None));
        assert_eq!(
            (after.plan_id.as_deref(), after.plan_in_force.as_deref()),
            (Some(&*pro.id), Some(&*free.id))
        );
        let shown = customers::customer(conn, now, &b1, &customer("c1")).unwrap();
        assert_eq!((shown.plan_id, shown.plan_in_force), (Some(pro.id.clone()), Some(free.id.clone())));
    }
    // A later date restores the plan; one on the free plan has nothing to wait for.
    sql(conn, "UPDATE customers SET subscription_ends_at = '2026-01-30T12:00:00Z' WHERE plan_id IS NOT NULL");
    assert_eq!(held(conn, day(11), &account("c1")).good_until, Some(day(30)));
    sql(conn, &format!("UPDATE customers SET plan_id = '{}' WHERE plan_id IS NOT NULL", free.id));
    assert_eq!(held(conn, day(11), &account("c1")).good_until, None);
}

#[test]
fn settings_and_anchor_are_part_of_the_terms() {
    let conn = &mut two_businesses();
    sql(
        conn,
        "INSERT INTO metrics (business_id, metric_name) VALUES ('b1', 'calls');
         UPDATE businesses SET timezone = 'Europe/Berlin', default_metric = 'calls', enforcement = 'observe',
            target_policy = 'allowlist' WHERE business_id = 'b1';
         UPDATE customers SET billing_anchor_day = 31 WHERE business_id = 'b1' AND customer_id = 'c1';",
    );
    let terms = held(conn, day(1), &account("c1"));
    assert_eq!(terms.calendar.zone_name(), "Europe/Berlin");
    assert_eq!((terms.enforcement, terms.target_policy), (Enforcement::Observe, TargetChoice::Allowlist));
    assert_eq!(terms.default_metric, Some(metric("calls")));
    let month = terms.calendar.window_of(Period::Monthly, day(1)).unwrap();
    assert_eq!(month.end.to_string(), "2026-01-30T23:00:00Z");
    assert!(terms.limits.find("calls").is_some(), "a metric without limits is there");
}

#[test]
fn quotas_refuse_one_row_too_many() {
    let conn = &mut two_businesses();
    let b1 = business("b1");
    let numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999)";
    sql(
        conn,
        &format!("INSERT INTO plans (business_id, plan_name) {numbers} SELECT 'b1', 'Plan ' || i FROM n"),
    );
    plans::create_plan(conn, day(1), &b1, named("Last")).unwrap();
    assert_eq!(conflict(plans::create_plan(conn, day(1), &b1, named("One more"))).0, Conflict::Quota);
    assert!(plans::create_plan(conn, day(1), &business("b2"), named("Mine")).is_ok());
    // Far apart in `seq`, yet few: counted, and taken.
    sql(conn, "INSERT INTO customers (seq, business_id, customer_id) VALUES (20000000, 'b1', 'far')");
    let none = tracktags_core::traits::CustomerFields::default();
    assert!(customers::create_customer(conn, day(1), &b1, &customer("next"), none).is_ok());
}
