//! Several nodes on one PostgreSQL: exact together, whoever dies; a change holds everywhere on the next request.

use crate::server::Database;
use crate::support::{Folder, business, limit, terms};
use std::sync::Arc;
use tracktags_core::accounts::Business;
use tracktags_core::{Demand, Period, Terms, Units};
use tracktags_store::{Admitted, Node};

async fn take(node: &Node, terms: &Arc<Terms>) -> bool {
    let demand = Demand::new(Arc::clone(terms), 0, Units::ONE);
    match node.admission.reserve(demand).await.unwrap() {
        Admitted::Admitted(_, reservation) => {
            node.admission.keep(reservation.unwrap());
            true
        }
        Admitted::Denied(_) => false,
        other => panic!("{other:?}"),
    }
}

fn monthly(business: &Business, customer: &str, value: i64) -> Arc<Terms> {
    Arc::new(terms(business, customer, vec![limit("api_calls", value, Period::Monthly)]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_admit_exactly_what_one_limit_may() {
    let folder = Folder::postgres();
    let nodes: Vec<Arc<Node>> = (0..3).map(|_| Arc::new(folder.open())).collect();
    let business = business(&nodes[0]).await;
    let customers: Vec<_> =
        (0..5).map(|place| monthly(&business, &format!("customer_{place}"), 100)).collect();
    let callers = (0..48_usize).map(|caller| {
        let (node, customers) = (Arc::clone(&nodes[caller % 3]), customers.clone());
        tokio::spawn(async move {
            let mut admitted = 0;
            for call in 0..20 {
                admitted += i64::from(take(&node, &customers[(caller + call) % 5]).await);
            }
            admitted
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut admitted = 0;
    for caller in callers {
        admitted += caller.await.unwrap();
    }
    assert_eq!(admitted, 500, "5 times 100 of 960 asked for");
    for terms in &customers {
        let usage = nodes[1].store.usage(Arc::clone(terms), None).await.unwrap();
        assert_eq!(usage.metrics[0].state.value, 100);
    }
    for node in nodes {
        Arc::into_inner(node).unwrap().close();
    }
    folder.verify();
}

#[tokio::test]
async fn units_released_at_one_node_are_free_at_the_other() {
    let folder = Folder::postgres();
    let (one, other) = (folder.open(), folder.open());
    let business = business(&one).await;
    let terms = monthly(&business, "customer_1", 1);
    let demand = Demand::new(Arc::clone(&terms), 0, Units::ONE);
    let Admitted::Admitted(_, Some(taken)) = one.admission.reserve(demand).await.unwrap() else {
        panic!("denied")
    };
    assert!(!take(&other, &terms).await);
    one.admission.settle(taken, Units::ZERO).await.unwrap();
    assert!(take(&other, &terms).await);
    one.close();
    drop(other);
    folder.verify();
}

#[tokio::test]
async fn what_a_node_that_died_has_written_is_folded_by_another() {
    let mut folder = Folder::postgres();
    folder.limits.fold_every_ms = 20;
    let (one, other) = (folder.open(), folder.open());
    let business = business(&one).await;
    let terms = monthly(&business, "customer_1", 1_000);
    for _ in 0..50 {
        assert!(take(&one, &terms).await);
    }
    drop(one);
    let folded = async {
        while folder.sql("SELECT coalesce(sum(units), 0) FROM usage_history")[0][0] != "50" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), folded).await.expect("never folded");
    other.close();
    folder.verify();
}

#[test]
fn nodes_that_start_together_migrate_once() {
    let database = Database::empty();
    let starts = (0..4).map(|_| {
        let url = database.url.clone();
        std::thread::spawn(move || tracktags_store::migrate(&url).unwrap().len())
    });
    let starts: Vec<_> = starts.collect();
    let mut taken: Vec<usize> = starts.into_iter().map(|start| start.join().unwrap()).collect();
    taken.sort_unstable();
    assert_eq!((taken[0], taken[1], taken[2]), (0, 0, 0));
    assert!(taken[3] > 0);
}

#[test]
fn a_newer_schema_is_refused_and_both_are_named() {
    let folder = Folder::postgres();
    folder.sql("INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')");
    let Err(error) = tracktags_store::open(folder.options()) else { panic!("opened") };
    let said = error.to_string();
    assert!(said.contains("99990101000000") && said.contains("00000000000007"), "{said}");
}
