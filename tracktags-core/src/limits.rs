//! ③ Plans and limits, and which of them hold for an account.

use crate::accounts::{Account, CustomerId, Enforcement, MetricName, Scope, TargetChoice};
use crate::metrics::{Metric, MetricType, Units, words};
use crate::time::Timestamp;
use crate::usage::CounterKey;
use crate::windows::{Calendar, Period};
use std::collections::BTreeMap;
use std::sync::Arc;

words! {
    /// When a limit is in breach: while `usage OP limit` holds, each further unit breaches.
    Operator {
        /// Usage ≥ limit: admits exactly the limit.
        Gte = "gte",
        /// Usage > limit: admits one unit more.
        Gt = "gt",
        /// Usage ≤ limit.
        Lte = "lte",
        /// Usage < limit.
        Lt = "lt",
        /// Usage = limit.
        Eq = "eq",
    }
}

words! {
    /// What a breach does.
    Action {
        /// The demand is refused.
        Deny = "deny",
        /// It passes, and what lies beyond the limit is kept apart for billing.
        AllowOverage = "allow_overage",
        /// It passes, and an event tells.
        Webhook = "webhook",
        /// It passes; only watched.
        Allow = "allow",
        /// As `webhook`.
        Scale = "scale",
        /// Shown, never enforced, and no events.
        Disabled = "disabled",
    }
}

impl Action {
    /// What a plan limit may do; a limit made along with its metric may also be [`Disabled`](Self::Disabled).
    pub const OF_PLAN_LIMITS: [Self; 5] =
        [Self::Deny, Self::AllowOverage, Self::Webhook, Self::Allow, Self::Scale];
}

words! {
    /// What a limit is attached to, from the general to the specific.
    Source {
        /// The whole business.
        Business = "business",
        /// A plan.
        Plan = "plan",
        /// One customer.
        Customer = "customer",
    }
}

/// What a limit is attached to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attachment {
    /// The whole business: each of its customers, and its own account.
    Business,
    /// Every customer on the plan.
    Plan(Arc<str>),
    /// One customer.
    Customer(CustomerId),
}

impl Attachment {
    /// The word for it.
    #[must_use]
    pub const fn source(&self) -> Source {
        match self {
            Self::Business => Source::Business,
            Self::Plan(_) => Source::Plan,
            Self::Customer(_) => Source::Customer,
        }
    }
}

/// A limit as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its id.
    pub id: Arc<str>,
    /// What it measures.
    pub metric_name: MetricName,
    /// The threshold.
    pub value: Units,
    /// The window.
    pub period: Period,
    /// When it is in breach.
    pub operator: Operator,
    /// What a breach does.
    pub action: Action,
    /// Whom it holds for.
    pub attachment: Attachment,
    /// The type of its metric.
    pub metric_type: MetricType,
    /// Per cent of the limit at which events are raised.
    pub alert_thresholds: Vec<u16>,
    /// Endpoints for this limit's events only, separated by commas.
    pub webhook_urls: Option<String>,
    /// Stripe meter that overage is reported to.
    pub overage_meter: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Limit {
    /// A business-wide limit that denies from `value` on (`gte`), for embedding and tests; change the fields as
    /// needed.
    #[must_use]
    pub fn new(metric_name: MetricName, value: Units, period: Period) -> Self {
        let id = format!("{metric_name}-{period}").into();
        let metric_type = if period == Period::Realtime { MetricType::Checkpoint } else { MetricType::Reset };
        let start = Timestamp::from_micros(0);
        Self {
            id,
            metric_name,
            value,
            period,
            operator: Operator::Gte,
            action: Action::Deny,
            attachment: Attachment::Business,
            metric_type,
            alert_thresholds: Vec::new(),
            webhook_urls: None,
            overage_meter: None,
            created_at: start,
            updated_at: start,
        }
    }

    /// The metric that this limit creates where nobody defined it.
    #[must_use]
    pub fn metric(&self, scope: Scope) -> Metric {
        let mut metric = Metric::sum(self.metric_name.clone(), scope, self.period.interval());
        metric.metric_type = self.metric_type;
        metric
    }
}

/// A plan as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its id.
    pub id: String,
    /// Its name, unique within the business.
    pub plan_name: String,
    /// The Stripe price that stands for it.
    pub stripe_price_id: Option<String>,
    /// Whether it replaces the plan of a customer whose subscription ended.
    pub is_free: bool,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A metric with the limits that hold on it, whoever's: the most specific for each period, from the shortest period to
/// the longest, `realtime` last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricRules {
    /// The metric.
    pub metric: Metric,
    /// How its windows are cut ([`Calendar::cut_id`]).
    pub cut: u64,
    /// The limits in force.
    pub limits: Vec<Arc<Limit>>,
}

/// Every metric with its limits, by name. Accounts for whom the same holds share them: a million customers on one plan
/// keep them once.
pub type Rules = Arc<[MetricRules]>;

/// A metric of an account with the limits that hold on it.
#[derive(Clone, Copy, Debug)]
pub struct MetricLimits<'a> {
    /// The metric.
    pub metric: &'a Metric,
    /// Where its usage is counted.
    pub counter: &'a CounterKey,
    /// How its windows are cut ([`Calendar::cut_id`]).
    pub cut: u64,
    /// The limits in force, as in [`MetricRules`].
    pub limits: &'a [Arc<Limit>],
}

/// Every metric of an account, by name, with its limits.
#[derive(Clone, Debug)]
pub struct LimitSet {
    rules: Rules,
    /// One for each of the rules.
    counters: Box<[CounterKey]>,
}

/// Resolves which limits win for `account`: of those given, for each metric and period the one attached to the
/// customer, else to the plan in force, else to the business. `metrics` are the business's; those of another scope are
/// left out. A limit whose metric is not among them brings it along.
#[must_use]
pub fn resolve(
    account: &Account,
    calendar: &Calendar,
    plan_in_force: Option<&str>,
    metrics: impl IntoIterator<Item = Metric>,
    limits: impl IntoIterator<Item = Limit>,
) -> Rules {
    let scope = account.scope();
    let mut by_name: BTreeMap<MetricName, (Metric, BTreeMap<Period, Arc<Limit>>)> = metrics
        .into_iter()
        .filter(|metric| metric.scope == scope)
        .map(|metric| (metric.name.clone(), (metric, BTreeMap::new())))
        .collect();
    for limit in limits.into_iter().filter(|limit| applies(limit, account, plan_in_force)) {
        let known = by_name
            .entry(limit.metric_name.clone())
            .or_insert_with(|| (limit.metric(scope), BTreeMap::new()));
        let better = known
            .1
            .get(&limit.period)
            .is_none_or(|other| limit.attachment.source() > other.attachment.source());
        if better {
            known.1.insert(limit.period, Arc::new(limit));
        }
    }
    let rules = by_name.into_values().map(|(metric, limits)| MetricRules {
        cut: calendar.cut_id(&metric),
        metric,
        limits: limits.into_values().collect(),
    });
    rules.collect()
}

impl LimitSet {
    /// The metrics of an account for which these rules hold ([`resolve`]).
    #[must_use]
    pub fn new(account: &Account, rules: Rules) -> Self {
        let counter = |rules: &MetricRules| CounterKey::new(account.clone(), rules.metric.name.clone());
        Self { counters: rules.iter().map(counter).collect(), rules }
    }

    /// Every metric, by name.
    pub fn metrics(&self) -> impl ExactSizeIterator<Item = MetricLimits<'_>> {
        self.rules.iter().zip(self.counters.iter()).map(|(rules, counter)| of_account(rules, counter))
    }

    /// The metric at this place.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<MetricLimits<'_>> {
        Some(of_account(self.rules.get(place)?, self.counters.get(place)?))
    }

    /// The place of the metric with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.rules.binary_search_by(|rules| rules.metric.name.as_str().cmp(name)).ok()
    }
}

fn of_account<'a>(rules: &'a MetricRules, counter: &'a CounterKey) -> MetricLimits<'a> {
    MetricLimits { metric: &rules.metric, counter, cut: rules.cut, limits: &rules.limits }
}

fn share<T: Clone + PartialEq>(mine: &mut T, theirs: &T) {
    if mine == theirs {
        mine.clone_from(theirs);
    }
}

fn applies(limit: &Limit, account: &Account, plan_in_force: Option<&str>) -> bool {
    match (&limit.attachment, &account.customer) {
        (Attachment::Business, _) => true,
        (Attachment::Plan(plan), Some(_)) => plan_in_force == Some(&**plan),
        (Attachment::Customer(of), Some(customer)) => of == customer,
        (Attachment::Plan(_) | Attachment::Customer(_), None) => false,
    }
}

/// What holds for an account, as read from the store in one snapshot at one configuration version.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Whose terms.
    pub account: Account,
    /// The business's configuration version at which this was read.
    pub version: i64,
    /// The plan the customer was put on.
    pub plan_id: Option<Arc<str>>,
    /// The plan whose limits hold: the free plan once the subscription ended.
    pub plan_in_force: Option<Arc<str>>,
    /// From this instant on these terms no longer hold: the subscription ends, another plan comes into force.
    pub good_until: Option<Timestamp>,
    /// How windows are cut.
    pub calendar: Calendar,
    /// Whether limits refuse.
    pub enforcement: Enforcement,
    /// What a call counts whose `metric_name` is empty.
    pub default_metric: Option<MetricName>,
    /// The business's choice of targets.
    pub target_policy: TargetChoice,
    /// Its metrics with their limits.
    pub limits: LimitSet,
}

impl Terms {
    /// The same terms, with whatever others have alike taken from them, so that it is kept once.
    #[must_use]
    pub fn sharing(mut self, others: &Self) -> Self {
        share(&mut self.account.business, &others.account.business);
        share(&mut self.plan_in_force, &others.plan_in_force);
        share(&mut self.plan_id, &others.plan_in_force);
        share(&mut self.default_metric, &others.default_metric);
        share(&mut self.calendar, &others.calendar);
        if self.limits.rules == others.limits.rules {
            self.limits = LimitSet::new(&self.account, Arc::clone(&others.limits.rules));
        }
        self
    }

    /// Terms for embedding: these limits, in UTC, enforced, good for ever.
    #[must_use]
    pub fn new(account: Account, limits: impl IntoIterator<Item = Limit>) -> Self {
        let calendar = Calendar::utc();
        Self {
            limits: LimitSet::new(&account, resolve(&account, &calendar, None, [], limits)),
            account,
            version: 0,
            plan_id: None,
            plan_in_force: None,
            good_until: None,
            calendar,
            enforcement: Enforcement::Enforce,
            default_metric: None,
            target_policy: TargetChoice::Auto,
        }
    }
}
