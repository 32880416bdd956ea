//! A deleted business: it can be restored for 30 days; then everything of it is gone, and nothing of another's.

use crate::support::{Folder, business, limit, terms};
use std::process::Command;
use std::sync::Arc;
use tracktags_core::accounts::Business;
use tracktags_core::audit::Author;
use tracktags_core::keys::Scopes;
use tracktags_core::limits::Attachment;
use tracktags_core::traits::{CustomerFields, KeyOwner, NewKey, NewLimit, PlanFields};
use tracktags_core::{Action, BusinessId, CustomerId, Demand, Operator, Period, Units};
use tracktags_store::{Admitted, Node};

/// Looks at the database until it says so, within reason: each look takes a process of its own.
const LOOKS_MAX: usize = 4_000;
const DAY_SECONDS: i64 = 86_400;
const TABLES: [&str; 9] = [
    "businesses",
    "business_keys",
    "customers",
    "customer_keys",
    "plans",
    "plan_limits",
    "metrics",
    "counters",
    "usage_history",
];

fn rows(folder: &Folder, table: &str, business: &BusinessId) -> usize {
    let sql = format!("SELECT count(*) FROM {table} WHERE business_id = '{}'", business.as_str());
    let told = Command::new("sqlite3").arg("-readonly").arg(folder.path()).arg(sql).output().unwrap();
    String::from_utf8(told.stdout).unwrap().trim().parse().unwrap_or(usize::MAX)
}

fn wait_for(folder: &Folder, table: &str, business: &BusinessId, is_there: bool) {
    let settled = (0..LOOKS_MAX).any(|_| (rows(folder, table, business) > 0) == is_there);
    assert!(settled, "{table}: there should {}be something", if is_there { "" } else { "not " });
}

/// A row in each table, and usage.
async fn fill(node: &Node, business: &Business) {
    let (id, customer) = (business.business_id.clone(), CustomerId::parse("customer_1").unwrap());
    let store = &node.store;
    let fields = PlanFields { plan_name: Some("Pro".into()), ..PlanFields::default() };
    let _plan = store.create_plan(Author::server(), id.clone(), fields).await.unwrap();
    let _customer = store
        .create_customer(Author::server(), id.clone(), customer.clone(), CustomerFields::default())
        .await
        .unwrap();
    for owner in [KeyOwner::Business(id.clone()), KeyOwner::Customer(id.clone(), customer)] {
        let key = NewKey { owner, key_name: None, description: None, expires_at: None, scopes: Scopes::ALL };
        let _key = store.create_key(Author::server(), key).await.unwrap();
    }
    let wanted = limit("api_calls", 1_000, Period::Monthly);
    let new = NewLimit {
        business: id,
        metric_name: wanted.metric_name.clone(),
        value: wanted.value,
        period: Period::Monthly,
        operator: Operator::Gte,
        action: Action::Deny,
        attachment: Attachment::Business,
        metric_type: None,
        alert_thresholds: Vec::new(),
        webhook_urls: None,
        overage_meter: None,
    };
    let _limit = store.create_limit(Author::server(), new).await.unwrap();
    let terms = Arc::new(terms(business, "customer_1", vec![wanted]));
    match node.admission.reserve(Demand::new(terms, 0, Units::ONE)).await.unwrap() {
        Admitted::Admitted(_, reservation) => node.admission.keep(reservation.unwrap()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn thirty_days_after_its_deletion_everything_of_a_business_is_gone() {
    let mut folder = Folder::new();
    folder.limits.fold_every_ms = 20;
    let start = "2026-01-15T12:00:00Z".parse::<tracktags_core::Timestamp>().unwrap();
    let node = folder.open();
    let (gone, stays) = (business(&node).await, business(&node).await);
    fill(&node, &gone).await;
    fill(&node, &stays).await;
    for business in [&gone, &stays] {
        for table in TABLES {
            wait_for(&folder, table, &business.business_id, true);
        }
    }
    let id = gone.business_id.clone();
    let deleted = node.store.delete_business(Author::server(), id.clone()).await.unwrap();
    assert_eq!(deleted.deleted_at, Some(start));
    assert!(
        node.store.delete_business(Author::server(), id.clone()).await.is_err(),
        "it is no more to be deleted"
    );
    folder.clock.set(start.plus_seconds(29 * DAY_SECONDS));
    let restored = node.store.restore_business(Author::server(), id.clone()).await.unwrap();
    assert_eq!((restored.deleted_at, &restored.business_id), (None, &id));
    let _deleted = node.store.delete_business(Author::server(), id.clone()).await.unwrap();
    folder.clock.set(start.plus_seconds(60 * DAY_SECONDS));
    wait_for(&folder, "businesses", &id, false);
    for table in TABLES {
        assert_eq!(rows(&folder, table, &id), 0, "{table}");
        assert!(rows(&folder, table, &stays.business_id) > 0, "{table}");
    }
    assert!(node.store.restore_business(Author::server(), id).await.is_err(), "it is gone");
    node.close();
    folder.verify();
}
