//! Businesses, settings and customers.

use super::super::{accounts, customers, plans};
use super::*;
use tracktags_core::accounts::{Enforcement, TargetChoice};
use tracktags_core::error::{Conflict, Entity, StoreError};
use tracktags_core::traits::{
    BusinessQuery, Change, CustomerFields, CustomerQuery, NewBusiness, PageRequest, PlanFields,
    SettingsChange,
};

fn page(after: Option<i64>, count_max: u32) -> PageRequest {
    PageRequest { after, count_max }
}

fn missing<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Entity {
    match result {
        Err(StoreError::NotFound { entity, .. }) => entity,
        other => panic!("found: {other:?}"),
    }
}

fn plan(conn: &mut Conn, name: &str, price: Option<&str>) -> String {
    let stripe_price_id = price.map_or(Change::Keep, |price| Change::Set(price.to_owned()));
    let fields = PlanFields { plan_name: Some(name.into()), stripe_price_id, is_free: None };
    plans::create_plan(conn, day(1), &business("b1"), fields).unwrap().id
}

#[test]
fn a_business_is_made_found_and_changed() {
    let conn = &mut database();
    let new =
        NewBusiness { business_name: "50 % off_".into(), email: "a@b.c".into(), user_id: Some("u1".into()) };
    let made = accounts::create_business(conn, day(1), new).unwrap();
    assert!(made.business_id.as_str().starts_with("biz_"));
    assert_eq!(made.created_at, day(1));
    assert_eq!(accounts::business(conn, &made.business_id).unwrap(), made);
    for (text, found) in
        [(None, 1), (Some("% off_"), 1), (Some("A@B"), 1), (Some("_%"), 0), (Some("biz_"), 1)]
    {
        let query = BusinessQuery { text: text.map(Into::into), deleted: false, page: page(None, 10) };
        assert_eq!(accounts::businesses(conn, &query).unwrap().items.len(), found, "{query:?}");
    }
    let changed =
        accounts::update_business(conn, day(2), &made.business_id, None, Some("n@b.c".into())).unwrap();
    assert_eq!((changed.business_name, changed.email), (made.business_name, "n@b.c".to_owned()));
    assert!(accounts::update_business(conn, day(2), &made.business_id, None, None).is_ok());
    sql(conn, "UPDATE businesses SET deleted_at = '2026-01-01'");
    assert_eq!(missing(accounts::business(conn, &made.business_id)), Entity::Business);
    for (deleted, found) in [(false, 0), (true, 1)] {
        let query = BusinessQuery { text: None, deleted, page: page(None, 10) };
        assert_eq!(accounts::businesses(conn, &query).unwrap().items.len(), found);
    }
}

#[test]
fn settings_change_one_by_one() {
    let conn = &mut two_businesses();
    let b1 = business("b1");
    let change = SettingsChange { default_metric: Change::Set(metric("calls")), ..SettingsChange::default() };
    assert_eq!(missing(accounts::update_settings(conn, day(1), &b1, change.clone())), Entity::Metric);
    sql(conn, "INSERT INTO metrics (business_id, metric_name) VALUES ('b1', 'calls')");
    let settings = accounts::update_settings(conn, day(1), &b1, change).unwrap();
    assert_eq!(settings.default_metric, Some(metric("calls")));
    let change = SettingsChange {
        timezone: Some("Europe/Berlin".into()),
        enforcement: Some(Enforcement::Observe),
        target_policy: Some(TargetChoice::Public),
        max_customer_keys: Some(7),
        default_metric: Change::Keep,
    };
    accounts::update_settings(conn, day(1), &b1, change).unwrap();
    let settings = accounts::settings(conn, &b1).unwrap();
    assert_eq!(settings.timezone, "Europe/Berlin");
    assert_eq!(settings.default_metric, Some(metric("calls")));
    assert_eq!((settings.enforcement, settings.target_policy), (Enforcement::Observe, TargetChoice::Public));
    assert_eq!(settings.max_customer_keys, 7);
    assert_eq!(missing(accounts::settings(conn, &business("b9"))), Entity::Business);
}

#[test]
fn a_customer_keeps_what_it_is_given() {
    let conn = &mut two_businesses();
    let (b1, id) = (business("b1"), customer("new"));
    let pro = plan(conn, "Pro", Some("price_pro"));
    let fields = CustomerFields {
        customer_name: Change::Set("Ada".into()),
        stripe_price_id: Change::Set("price_pro".into()),
        subscription_ends_at: Change::Set(day(5)),
        billing_anchor_day: Change::Set(31),
        ..CustomerFields::default()
    };
    let made = customers::create_customer(conn, day(1), &b1, &id, fields.clone()).unwrap();
    assert_eq!(made.plan_id.as_deref(), Some(&*pro), "a price sets its plan");
    assert_eq!((made.subscription_ends_at, made.billing_anchor_day), (Some(day(5)), Some(31)));
    assert_eq!((made.metadata.as_str(), made.created_at, made.updated_at), ("{}", day(1), day(1)));
    let again = customers::create_customer(conn, day(1), &b1, &id, fields);
    assert!(matches!(again, Err(StoreError::Conflict { conflict: Conflict::CustomerExists, .. })));
    let change = CustomerFields {
        plan_id: Change::Set(String::new()),
        metadata: Change::Set("{\"a\":1}".into()),
        subscription_ends_at: Change::Clear,
        stripe_price_id: Change::Set("price_unknown".into()),
        ..CustomerFields::default()
    };
    let changed = customers::update_customer(conn, day(1), &b1, &id, change).unwrap();
    assert_eq!((changed.plan_id, changed.subscription_ends_at), (None, None));
    assert_eq!((changed.customer_name.as_deref(), &*changed.metadata), (Some("Ada"), "{\"a\":1}"));
    assert!(changed.updated_at > day(1));
    let change = CustomerFields { plan_id: Change::Set("no_such".into()), ..CustomerFields::default() };
    assert_eq!(missing(customers::update_customer(conn, day(1), &b1, &id, change)), Entity::Plan);
    let none = CustomerFields::default();
    assert_eq!(
        missing(customers::update_customer(conn, day(1), &b1, &customer("c9"), none.clone())),
        Entity::Customer
    );
    assert_eq!(
        missing(customers::update_customer(conn, day(1), &business("b2"), &id, none)),
        Entity::Customer
    );
}

#[test]
fn a_deleted_customer_is_gone_and_comes_back_empty() {
    let conn = &mut two_businesses();
    let (b1, c1) = (business("b1"), customer("c1"));
    let named = CustomerFields { customer_name: Change::Set("Ada".into()), ..CustomerFields::default() };
    customers::update_customer(conn, day(1), &b1, &c1, named).unwrap();
    customers::delete_customer(conn, day(2), &b1, &c1).unwrap();
    assert_eq!(missing(customers::customer(conn, day(2), &b1, &c1)), Entity::Customer);
    assert_eq!(missing(customers::delete_customer(conn, day(2), &b1, &c1)), Entity::Customer);
    let revived = customers::create_customer(conn, day(3), &b1, &c1, CustomerFields::default()).unwrap();
    assert_eq!((revived.customer_name, revived.updated_at), (None, day(3)));
    assert_eq!(count(conn, "customers WHERE business_id = 'b1'"), 2);
}

#[test]
fn customers_are_listed_by_page_plan_and_text() {
    let conn = &mut two_businesses();
    let b1 = business("b1");
    let pro = plan(conn, "Pro", None);
    sql(
        conn,
        &format!(
            "UPDATE customers SET plan_id = '{pro}', email = 'Ada@x.y' WHERE business_id = 'b1' AND customer_id = 'c2'"
        ),
    );
    let mut query = CustomerQuery { business: b1, plan_id: None, text: None, page: page(None, 1) };
    let first = customers::customers(conn, day(1), &query).unwrap();
    query.page = page(first.next, 1);
    let second = customers::customers(conn, day(1), &query).unwrap();
    let ids = |page: &[tracktags_core::accounts::Customer]| {
        page.iter().map(|c| c.customer_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        (ids(&first.items), ids(&second.items), second.next),
        (vec!["c1".into()], vec!["c2".into()], None)
    );
    query.page = page(None, 10);
    for (plan_id, text, found) in
        [(Some(pro), None, vec!["c2"]), (None, Some("ada@"), vec!["c2"]), (None, Some("C1"), vec!["c1"])]
    {
        (query.plan_id, query.text) = (plan_id, text.map(str::to_owned));
        assert_eq!(ids(&customers::customers(conn, day(1), &query).unwrap().items), found);
    }
    query.plan_id = Some("no_such".into());
    assert_eq!(missing(customers::customers(conn, day(1), &query)), Entity::Plan);
    query.business = business("b9");
    assert_eq!(missing(customers::customers(conn, day(1), &query)), Entity::Business);
}
