//! Several nodes on one PostgreSQL: exact together, whoever dies; a change holds everywhere on the next request.

use crate::server::Database;
use crate::support::{Folder, business, limit, terms};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tracktags_core::accounts::{Business, CustomerId};
use tracktags_core::audit::{AuditQuery, Author};
use tracktags_core::error::StoreError;
use tracktags_core::limits::Attachment;
use tracktags_core::traits::{CustomerFields, NewLimit, PageRequest};
use tracktags_core::{Account, Action, Demand, Operation, Operator, Period, Terms, Units};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_want_the_same_counters_never_lock_each_other_up() {
    let folder = Folder::postgres();
    let nodes = [Arc::new(folder.open()), Arc::new(folder.open())];
    let business = business(&nodes[0]).await;
    let customers: Vec<_> =
        (0..12).map(|place| monthly(&business, &format!("customer_{place}"), 1_000_000)).collect();
    let callers = (0..16_usize).map(|caller| {
        let (node, customers) = (Arc::clone(&nodes[caller % 2]), customers.clone());
        tokio::spawn(async move {
            for call in 0..10 {
                // Some begin at one end, some at the other.
                let place = |step: usize| if caller % 4 < 2 { step } else { customers.len() - 1 - step };
                let terms =
                    (0..customers.len()).map(|step| &customers[place((step + call) % customers.len())]);
                let takes = terms.map(|terms| Operation::Take(Demand::new(Arc::clone(terms), 0, Units::ONE)));
                node.store.commit(takes.collect()).await.unwrap();
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    for caller in callers {
        caller.await.unwrap();
    }
    for terms in &customers {
        let usage = nodes[0].store.usage(Arc::clone(terms), None).await.unwrap();
        assert_eq!(usage.metrics[0].state.value, 160);
    }
    for node in nodes {
        Arc::into_inner(node).unwrap().close();
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(folder.sql(deadlocks)[0][0], "0");
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
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), folded).await.expect("never folded");
    other.close();
    folder.verify();
}

/// Terms as they are read, and whether a unit is taken under them; read afresh where they are out of date.
async fn take_as_configured(node: &Node, account: &Account) -> bool {
    for _try in 0..3 {
        let known = node.store.cached_terms(account);
        let terms = match known {
            Some(terms) => terms,
            None => node.store.read_terms(account.clone()).await.unwrap().unwrap(),
        };
        let demand = Demand::new(Arc::clone(&terms), 0, Units::ONE);
        match node.admission.take(demand).await.unwrap() {
            Admitted::Admitted(..) => return true,
            Admitted::Denied(_) => return false,
            Admitted::Stale => drop(node.store.read_terms(account.clone()).await.unwrap()),
            Admitted::OutOfRange => panic!("out of range"),
        }
    }
    panic!("always out of date")
}

async fn customer_with_limit(node: &Node, value: i64) -> Account {
    let business = business(node).await.business_id;
    let customer: CustomerId = "customer_1".parse().unwrap();
    let fields = CustomerFields::default();
    node.store.create_customer(Author::server(), business.clone(), customer.clone(), fields).await.unwrap();
    let limit = NewLimit {
        business: business.clone(),
        metric_name: "api_calls".parse().unwrap(),
        value: Units::new(value).unwrap(),
        period: Period::Monthly,
        operator: Operator::Gte,
        action: Action::Deny,
        attachment: Attachment::Customer(customer.clone()),
        metric_type: None,
        alert_thresholds: Vec::new(),
        webhook_urls: None,
        overage_meter: None,
    };
    node.store.create_limit(Author::server(), limit).await.unwrap();
    Account::customer(business, customer)
}

#[tokio::test]
async fn a_limit_changed_by_sql_holds_on_the_next_request_at_every_node() {
    let folder = Folder::postgres();
    let nodes = [folder.open(), folder.open()];
    let account = customer_with_limit(&nodes[0], 0).await;
    for node in &nodes {
        assert!(!take_as_configured(node, &account).await);
    }
    for round in 0..20_i64 {
        let node = &nodes[usize::try_from(round % 2).unwrap()];
        let replica = if round % 4 < 2 { "replica" } else { "origin" };
        folder.sql(&format!(
            "SET session_replication_role = {replica}; UPDATE plan_limits SET limit_value = {}",
            round + 1
        ));
        assert!(take_as_configured(node, &account).await, "round {round}: raised by one");
        assert!(!take_as_configured(node, &account).await, "round {round}: that one is used");
    }
    folder.sql("TRUNCATE plan_limits");
    let terms = nodes[1].store.read_terms(account.clone()).await.unwrap().unwrap();
    assert_eq!(terms.limits.metrics().map(|metric| metric.limits.len()).sum::<usize>(), 0);
    drop(nodes);
    folder.verify();
}

#[tokio::test]
async fn every_change_is_in_the_trail_once_whoever_made_it() {
    let folder = Folder::postgres();
    let nodes = [folder.open(), folder.open()];
    let account = customer_with_limit(&nodes[0], 5).await;
    for (second, change) in [
        (1, "plan_limits SET limit_value = 6"),
        (2, "plan_limits SET limit_value = 7"),
        (3, "customers SET email = ''"),
    ] {
        folder.clock.set(format!("2026-01-15T12:00:0{second}Z").parse().unwrap());
        folder.sql(&format!("UPDATE {change}"));
    }
    let expected = [
        "server business.create",
        "server customer.create",
        "server limit.create",
        "sql customer.update",
        "sql limit.update",
        "sql limit.update",
    ];
    for node in &nodes {
        // What SQL changed waits for every older transaction of the server to end, whoever's it is.
        let is_told = async {
            while trail(node, &account).await.len() < expected.len() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_told).await.expect("the trail tells nothing");
        assert_eq!(trail(node, &account).await, expected);
    }
}

/// Who did what, sorted.
async fn trail(node: &Node, account: &Account) -> Vec<String> {
    let query = AuditQuery {
        business: Some(account.business.clone()),
        action: None,
        resource_type: None,
        from: None,
        to: None,
        page: PageRequest { after: None, count_max: 50 },
    };
    let page = node.store.audit_logs(query).await.unwrap();
    let mut rows: Vec<_> =
        page.items.iter().map(|row| format!("{} {}", row.actor.as_str(), row.action)).collect();
    rows.sort();
    rows
}

#[tokio::test]
async fn one_blocked_counter_costs_one_business() {
    let folder = Folder::postgres();
    let node = folder.open();
    let (held, free) = (business(&node).await, business(&node).await);
    let (held, free) = (monthly(&held, "customer_1", 1_000), monthly(&free, "customer_1", 1_000));
    assert!(take(&node, &held).await && take(&node, &free).await);
    let Account { business, .. } = &held.account;
    folder.sql(&format!("BEGIN; SELECT 1 FROM counters WHERE business_id = '{business}' FOR UPDATE"));
    let blocked = node.admission.take(Demand::new(Arc::clone(&held), 0, Units::ONE));
    let others = async {
        for _ in 0..20 {
            let call = tokio::time::timeout(Duration::from_millis(500), take(&node, &free)).await;
            assert!(call.expect("a call waits for somebody else's counter"));
        }
        folder.sql("COMMIT");
    };
    let (blocked, ()) = tokio::join!(blocked, others);
    assert!(matches!(blocked, Ok(Admitted::Admitted(..)) | Err(StoreError::Unavailable(_))), "{blocked:?}");
    assert!(take(&node, &held).await, "nobody holds it any more");
    node.close();
    folder.verify();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_cut_at_any_moment_lose_nothing_and_double_nothing() {
    let folder = Folder::postgres();
    let node = Arc::new(folder.open());
    let business = business(&node).await;
    let terms = monthly(&business, "customer_1", 1_000_000);
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let callers = (0..8).map(|_| {
        let (node, terms, stop) = (Arc::clone(&node), Arc::clone(&terms), Arc::clone(&stop));
        let answered = Arc::clone(&answered);
        tokio::spawn(async move {
            let (mut taken, mut unknown) = (0_i64, 0_i64);
            while !stop.load(Ordering::SeqCst) {
                match node.admission.take(Demand::new(Arc::clone(&terms), 0, Units::ONE)).await {
                    Ok(Admitted::Admitted(..)) => taken += 1,
                    Err(StoreError::CommitUnknown) => unknown += 1,
                    Err(StoreError::Unavailable(_)) => {}
                    other => panic!("{other:?}"),
                }
                answered.fetch_add(1, Ordering::SeqCst);
            }
            (taken, unknown)
        })
    });
    let callers: Vec<_> = callers.collect();
    for _ in 0..30 {
        let until = answered.load(Ordering::SeqCst) + 50;
        let goes_on = async {
            while answered.load(Ordering::SeqCst) < until {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), goes_on).await.expect("calls are not answered");
        folder.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND application_name = 'tracktags'",
        );
    }
    stop.store(true, Ordering::SeqCst);
    let (mut taken, mut unknown) = (0, 0);
    for caller in callers {
        let (its, not_known) = caller.await.unwrap();
        (taken, unknown) = (taken + its, unknown + not_known);
    }
    println!("{taken} taken, {unknown} unknown");
    let counted = node.store.usage(Arc::clone(&terms), None).await.unwrap().metrics[0].state.value;
    assert!(taken > 0 && taken <= counted && counted <= taken + unknown, "{taken}, {unknown}: {counted}");
    Arc::into_inner(node).unwrap().close();
    folder.verify();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_said_soon_and_holds_up_no_end() {
    let folder = Folder::postgres();
    let node = folder.open();
    let business = business(&node).await;
    let terms = monthly(&business, "customer_1", 10);
    let demand = || Demand::new(Arc::clone(&terms), 0, Units::ONE);
    let Admitted::Admitted(_, Some(open)) = node.admission.reserve(demand()).await.unwrap() else {
        panic!("denied")
    };
    folder.set_away(true);
    let admission = node.admission.clone();
    let settled = tokio::spawn(async move { admission.settle(open, Units::ZERO).await });
    for _ in 0..20 {
        let answer = tokio::time::timeout(Duration::from_secs(2), node.admission.take(demand())).await;
        let answer = answer.expect("a call waits for a database that is away");
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    }
    assert_ne!(node.health(), tracktags_store::Health::Ready);
    let closed = tokio::task::spawn_blocking(move || node.close());
    tokio::time::timeout(Duration::from_secs(20), closed).await.expect("it does not end").unwrap();
    assert!(settled.await.unwrap().is_err(), "nobody wrote it");
    folder.set_away(false);
    let node = folder.open();
    let usage = node.store.usage(Arc::clone(&terms), None).await.unwrap();
    assert_eq!(usage.metrics[0].state.value, 1, "what was not settled stays counted");
    node.close();
    folder.verify();
}

/// A way to a server that can be told to take everything and pass nothing on, as a broken network does.
struct Way {
    port: u16,
    swallows: Arc<AtomicBool>,
}

impl Way {
    fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, swallows) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
        let (server, is_swallowing) = (server.to_owned(), Arc::clone(&swallows));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, there) = (client.unwrap(), TcpStream::connect(&server).unwrap());
                pass_on(client.try_clone().unwrap(), there.try_clone().unwrap(), Arc::clone(&is_swallowing));
                pass_on(there, client, Arc::clone(&is_swallowing));
            }
        });
        Self { port, swallows }
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, swallows: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut bytes = [0; 16_384];
        while let Ok(count) = from.read(&mut bytes) {
            if count == 0 || (!swallows.load(Ordering::SeqCst) && to.write_all(&bytes[..count]).is_err()) {
                break;
            }
        }
        // Nor does it pass on that one of them is gone.
        while swallows.load(Ordering::SeqCst) {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let _gone = to.shutdown(Shutdown::Both);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_swallows_everything_is_given_up_and_serving_goes_on_after_it() {
    let folder = Folder::postgres();
    let mut options = folder.options();
    let (before, after) = options.url.split_once('@').unwrap();
    let (server, name) = after.split_once('/').unwrap();
    let way = Way::to(server);
    options.url = format!("{before}@127.0.0.1:{}/{name}", way.port);
    let node = tracktags_store::open(options).unwrap();
    let business = business(&node).await;
    let terms = monthly(&business, "customer_1", 1_000_000);
    assert!(take(&node, &terms).await);
    way.swallows.store(true, Ordering::SeqCst);
    let longest = Duration::from_secs(20);
    let demand = || Demand::new(Arc::clone(&terms), 0, Units::ONE);
    let taken = tokio::time::timeout(longest, node.admission.take(demand()));
    let read = tokio::time::timeout(longest, node.store.usage(Arc::clone(&terms), None));
    let (taken, read) = tokio::join!(taken, read);
    assert!(taken.expect("a call waits for ever").is_err());
    assert!(read.expect("a read waits for ever").is_err());
    way.swallows.store(false, Ordering::SeqCst);
    let goes_on = async {
        while node.admission.take(demand()).await.is_err()
            || node.store.usage(Arc::clone(&terms), None).await.is_err()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(longest, goes_on).await.expect("serving does not go on");
    node.close();
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

/// What is said of a database that is not opened, causes included.
fn refusal(folder: &Folder, change: impl FnOnce(String) -> String) -> String {
    let mut options = folder.options();
    options.url = change(options.url);
    let Err(error) = tracktags_store::open(options) else { panic!("opened") };
    let mut said = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        said = format!("{said}: {cause}");
        source = cause.source();
    }
    said
}

#[test]
fn what_cannot_be_served_from_is_refused_and_named() {
    let folder = Folder::postgres();
    let (server, _) = folder.url().rsplit_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    for (url, expected) in [
        (format!("{server}/none_such"), "store.url"),
        (server.replace("tracktags:", "tracktags:wrong") + "/postgres", "store.url"),
        ("postgres://u:secret-word@127.0.0.1:1/d".to_owned(), "store.url"),
        ("postgres://u:secret-word@127.0.0.1:port/d".to_owned(), "postgres://user@host"),
        (format!("{server}/postgres?sslmode=prefer"), "sslmode"),
        ("mysql://u:secret-word@h/d".to_owned(), "postgres://USER@HOST/DATABASE"),
    ] {
        let said = refusal(&folder, |_| url.clone());
        assert!(
            said.contains(expected) && !said.contains("secret-word") && !said.contains("wrong"),
            "{url}: {said}"
        );
    }
    let name = folder.sql("SELECT current_database()")[0][0].clone();
    folder.sql(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on"));
    assert!(refusal(&folder, |url| url).contains("takes no writes"));
    folder.sql(&format!(
        "SET transaction_read_only = off; ALTER DATABASE {name} RESET default_transaction_read_only"
    ));
    let mut options = folder.options();
    options.master_keys = tracktags_store::MasterKey::parse_list(&"22".repeat(32)).unwrap();
    drop(folder.open());
    let Err(error) = tracktags_store::open(options) else { panic!("opened") };
    assert!(error.to_string().contains("wrong_master_key"), "{error}");
}
