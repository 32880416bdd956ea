//! The engines and `MemoryLedger` agree on every history: an engine only loads, calls and saves.

use crate::support::{Folder, business, limit, seed, terms};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use tracktags_core::accounts::Business;
use tracktags_core::audit::Author;
use tracktags_core::batch::{CutCache, read_state};
use tracktags_core::limits::{LimitSet, resolve};
use tracktags_core::traits::{Change, CustomerFields};
use tracktags_core::usage::Taken;
use tracktags_core::{
    Account, Action, Ask, Calendar, Demand, Limit, MemoryLedger, Operation, Operator, Outcome, Period, Terms,
    Timestamp, Units,
};
use tracktags_store::Node;

/// Random operations in all.
const OPERATIONS: usize = 100_000;
const CUSTOMERS: usize = 8;

struct World {
    rng: StdRng,
    folder: Folder,
    node: Node,
    business: Business,
    memory: MemoryLedger,
    now: Timestamp,
    version: i64,
    taken: Vec<(Arc<Terms>, usize, Taken)>,
    cuts: CutCache,
}

impl World {
    /// Terms as they might be configured at the moment: zones and anchors move now and then.
    fn terms(&mut self) -> Arc<Terms> {
        let customer = self.rng.random_range(0..CUSTOMERS);
        let zones = ["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"];
        let moved = self.rng.random_range(0..40) == 0;
        let zone = zones[if moved { self.rng.random_range(0..zones.len()) } else { customer % zones.len() }];
        let anchor = [None, Some(1), Some(15), Some(31)]
            [if moved { self.rng.random_range(0..4) } else { customer % 4 }];
        let calendar = Calendar::in_zone(zone).unwrap().anchored(anchor).unwrap();
        let account = Account::customer(
            self.business.business_id.clone(),
            format!("customer_{customer}").parse().unwrap(),
        );
        let limits = self.limits();
        Arc::new(Terms {
            limits: LimitSet::new(&account, resolve(&account, &calendar, None, [], limits)),
            account,
            version: self.version - i64::from(self.rng.random_range(0..30) == 0),
            plan_id: None,
            plan_in_force: None,
            good_until: (self.rng.random_range(0..50) == 0)
                .then(|| self.now.plus_seconds(self.rng.random_range(-5..5))),
            calendar,
            enforcement: tracktags_core::accounts::Enforcement::Enforce,
            default_metric: None,
            target_policy: tracktags_core::accounts::TargetChoice::Auto,
        })
    }

    fn limits(&mut self) -> Vec<Limit> {
        let mut limits = Vec::new();
        for (metric, periods) in [
            ("api_calls", &[Period::Minutely, Period::Daily, Period::Monthly][..]),
            ("storage_mb", &[Period::Realtime][..]),
            ("rows", &[Period::Hourly, Period::Yearly][..]),
        ] {
            for period in periods {
                let mut one = limit(metric, self.rng.random_range(0..400), *period);
                one.operator = Operator::ALL
                    [if self.rng.random_range(0..6) == 0 { self.rng.random_range(0..5) } else { 0 }];
                one.action = [Action::Deny, Action::Deny, Action::AllowOverage, Action::Webhook]
                    [self.rng.random_range(0..4)];
                limits.push(one);
            }
        }
        limits
    }

    fn operation(&mut self) -> Operation {
        let terms = self.terms();
        let place = self.rng.random_range(0..terms.limits.metrics().len());
        let units = Units::new(self.rng.random_range(0..12)).unwrap();
        match self.rng.random_range(0..20) {
            0..=9 => {
                let mut demand = Demand::new(terms, place, units);
                if self.rng.random_range(0..10) == 0 {
                    demand.ask = Ask::All { count: Some((place, units)) };
                }
                Operation::Take(demand)
            }
            10..=14 if !self.taken.is_empty() => {
                let at = self.rng.random_range(0..self.taken.len());
                let (terms, place, taken) = self.taken.swap_remove(at);
                let units = if self.rng.random_range(0..3) == 0 { units } else { Units::ZERO };
                Operation::Settle { terms, place, taken, units }
            }
            15 | 16 => {
                let when = (self.rng.random_range(0..3) == 0)
                    .then(|| self.now.plus_seconds(-self.rng.random_range(0..90_000)));
                Operation::Record { terms, place, units, when }
            }
            17 => Operation::Correct { terms, place, units },
            18 => Operation::SetTo { terms, place, units },
            19 if self.rng.random_range(0..2) == 0 => Operation::Start { terms, place, units },
            19 => Operation::Reset { terms, place, level_too: self.rng.random_range(0..2) == 0 },
            _ => Operation::Take(Demand::new(terms, place, units)),
        }
    }

    fn tick(&mut self) {
        let seconds = match self.rng.random_range(0..100) {
            0 => -self.rng.random_range(1..30),
            1 => self.rng.random_range(0..4_000_000),
            2..=20 => self.rng.random_range(0..90),
            _ => 0,
        };
        self.now = self.now.plus_seconds(seconds).plus_micros(self.rng.random_range(0..2_000));
        self.folder.clock.set(self.now);
    }

    async fn change_configuration(&mut self) {
        let customer = format!("customer_{}", self.rng.random_range(0..CUSTOMERS)).parse().unwrap();
        let business = self.business.business_id.clone();
        let name = format!("name {}", self.rng.random_range(0..1_000_000));
        let fields = CustomerFields { customer_name: Change::Set(name), ..CustomerFields::default() };
        let account = Account::customer(business.clone(), customer);
        let customer = account.customer.clone().unwrap();
        self.node.store.update_customer(Author::server(), business, customer, fields).await.unwrap();
        self.version = self.node.store.read_terms(account.clone()).await.unwrap().unwrap().version;
        self.memory.configuration_changed(account, self.version);
    }

    async fn step(&mut self) -> usize {
        self.tick();
        let group = if self.rng.random_range(0..4) == 0 { self.rng.random_range(1..60) } else { 1 };
        let operations: Vec<Operation> = (0..group).map(|_| self.operation()).collect();
        let expected = self.memory.commit(self.now, &operations);
        let found = self.node.store.commit(operations.clone()).await.unwrap();
        for ((operation, expected), found) in operations.iter().zip(&expected).zip(&found) {
            assert_eq!(expected, found, "of {operation:?}");
            if let (Operation::Take(demand), Outcome::Decided(decision)) = (operation, found)
                && let Some((place, taken)) = decision.taken
            {
                self.taken.push((Arc::clone(&demand.terms), place, taken));
            }
        }
        operations.len()
    }

    /// The writer meets the business at this version: what is older is stale for all once. Asks, and takes nothing.
    async fn meet(&mut self) {
        let whole = Account::business(self.business.business_id.clone());
        self.memory.configuration_changed(whole, self.version);
        let mut terms = Arc::unwrap_or_clone(self.terms());
        terms.version = self.version;
        let ask = Operation::Take(Demand::new(Arc::new(terms), 0, Units::ZERO));
        self.node.store.commit(vec![ask]).await.unwrap();
    }

    async fn compare(&mut self) {
        for _ in 0..CUSTOMERS {
            let terms = self.terms();
            let usage = self.node.store.usage(Arc::clone(&terms), None).await.unwrap();
            for metric in usage.metrics {
                let place = metric.state.place;
                let counter = self.memory.counter(terms.limits.get(place).unwrap().counter);
                let expected = read_state(&terms, place, &counter, self.now, &mut self.cuts).unwrap();
                assert_eq!(metric.state, expected);
            }
        }
    }

    /// Ends the store in order, or as a kill does, and opens it again.
    fn restart(self) -> Self {
        let Self { mut rng, folder, node, business, memory, now, version, taken, cuts } = self;
        if rng.random_range(0..2) == 0 {
            node.close();
        } else {
            drop(node);
        }
        folder.verify();
        let node = folder.open();
        Self { rng, folder, node, business, memory, now, version, taken, cuts }
    }
}

#[tokio::test]
async fn sqlite_and_the_model_agree_on_every_history() {
    agree_on_every_history(Folder::new(), OPERATIONS).await;
}

#[tokio::test]
async fn postgres_and_the_model_agree_on_every_history() {
    let mut folder = Folder::postgres();
    // One lane, so that all operations are done in the order in which they were given.
    folder.limits.lanes = 1;
    agree_on_every_history(folder, OPERATIONS / 20).await;
}

async fn agree_on_every_history(mut folder: Folder, operations: usize) {
    // Folds and pruning run all the time, and few counters stay in memory.
    folder.limits.fold_every_ms = 20;
    folder.limits.ledger_retention_seconds = 60;
    folder.limits.counters_live_max = 4;
    let node = folder.open();
    let business = business(&node).await;
    for customer in 0..CUSTOMERS {
        let id = format!("customer_{customer}").parse().unwrap();
        let business = business.business_id.clone();
        node.store.create_customer(Author::server(), business, id, CustomerFields::default()).await.unwrap();
    }
    let account = Account::customer(business.business_id.clone(), "customer_0".parse().unwrap());
    let version = node.store.read_terms(account).await.unwrap().unwrap().version;
    let mut memory = MemoryLedger::new();
    memory.configuration_changed(Account::business(business.business_id.clone()), version);
    let now = "2026-01-15T12:00:00Z".parse().unwrap();
    let rng = StdRng::seed_from_u64(seed());
    let cuts = CutCache::default();
    let mut world = World { rng, folder, node, business, memory, now, version, taken: Vec::new(), cuts };
    world.meet().await;
    let mut done = 0;
    let mut restarts = 0;
    while done < operations {
        done += world.step().await;
        if world.rng.random_range(0..200) == 0 {
            world.change_configuration().await;
        }
        if world.rng.random_range(0..500) == 0 {
            world.compare().await;
        }
        if done * 40 / operations > restarts {
            restarts += 1;
            world = world.restart();
            world.meet().await;
        }
    }
    world.compare().await;
    world.node.close();
    world.folder.verify();
}

#[tokio::test]
async fn a_denied_demand_writes_nothing() {
    writes_nothing(Folder::new()).await;
}

#[tokio::test]
async fn a_denied_demand_writes_nothing_on_postgres() {
    writes_nothing(Folder::postgres()).await;
}

async fn writes_nothing(folder: Folder) {
    let node = folder.open();
    let business = business(&node).await;
    let terms = Arc::new(terms(&business, "customer_1", vec![limit("api_calls", 0, Period::Monthly)]));
    for _ in 0..10 {
        let demand = Demand::new(Arc::clone(&terms), 0, Units::ONE);
        let denied = node.admission.reserve(demand).await.unwrap();
        assert!(matches!(denied, tracktags_store::Admitted::Denied(_)));
    }
    node.close();
    let report = tracktags_store::verify(&folder.url()).unwrap();
    assert_eq!((report.batches, report.entries), (0, 0));
}
