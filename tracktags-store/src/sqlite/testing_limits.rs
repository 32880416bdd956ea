//! Limits whose rows make no sense, written with checks off.

use super::tables::testing::limits_tests::{held, in_force};
use super::tables::testing::*;
use crate::sqlite::tables::limits;
use tracktags_core::accounts::{Account, Enforcement, TargetChoice};
use tracktags_core::limits::{Action, Operator, Source};
use tracktags_core::metrics::Units;
use tracktags_core::traits::LimitChange;
use tracktags_core::windows::Period;

#[test]
fn t39_rows_written_with_checks_off_refuse_their_metric() {
    let odd = [
        "limit_value = -5",
        "limit_value = 9007199254740992",
        "limit_period = 'fortnightly'",
        "breach_operator = '>='",
        "breach_action = 'explode'",
        "customer_id = 'c1', plan_id = 'p1'",
        "alert_thresholds = '[80'",
    ];
    for text in odd {
        let conn = &mut two_businesses();
        sql(
            conn,
            "INSERT INTO plans (id, business_id, plan_name) VALUES ('p1', 'b1', 'Pro');
             UPDATE customers SET plan_id = 'p1' WHERE business_id = 'b1';
             INSERT INTO plan_limits (id, business_id, metric_name, limit_value) VALUES ('odd', 'b1', 'calls', 5);
             INSERT INTO plan_limits (business_id, metric_name, limit_value, limit_period, customer_id)
                VALUES ('b1', 'calls', 100, 'realtime', 'c1');",
        );
        sql(
            conn,
            &format!("PRAGMA ignore_check_constraints = ON; UPDATE plan_limits SET {text} WHERE id = 'odd'"),
        );
        let terms = held(conn, day(1), &account("c1"));
        let entry = terms.limits.get(terms.limits.find("calls").unwrap()).unwrap();
        let [limit] = entry.limits else { panic!("{text}: {:?}", entry.limits) };
        assert_eq!(
            (limit.value, limit.operator, limit.action),
            (Units::ZERO, Operator::Gte, Action::Deny),
            "{text}"
        );
        assert_eq!((&*limit.id, limit.attachment.source()), ("odd", Source::Customer), "{text}");
        let business_wide = !text.contains("plan_id");
        let own = held(conn, day(1), &Account::business(business("b1")));
        assert_eq!(in_force(&own) == ["calls realtime 0 business"], business_wide, "{text}");
        assert_eq!(limits::limit(conn, &business("b1"), "odd").unwrap().value, Units::ZERO);
        // It can be mended.
        let change = LimitChange {
            value: Some(Units::ONE),
            period: Some(Period::Daily),
            operator: Some(Operator::Gt),
            action: Some(Action::Deny),
            alert_thresholds: Some(vec![]),
            ..LimitChange::default()
        };
        let mended = limits::update_limit(conn, day(1), &business("b1"), "odd", change).unwrap();
        assert_eq!(mended.value == Units::ONE, business_wide, "{text}");
    }
}

#[test]
fn other_odd_rows_are_read_as_strictly_as_can_be() {
    let conn = &mut two_businesses();
    sql(
        conn,
        "PRAGMA ignore_check_constraints = ON;
         INSERT INTO plans (id, business_id, plan_name, is_free) VALUES ('p1', 'b1', 'Pro', 0), ('free', 'b1', 'Free', 1);
         INSERT INTO metrics (business_id, metric_name, operation) VALUES ('b1', 'odd', 'MEDIAN'), ('b1', 'a b', 'SUM');
         INSERT INTO plan_limits (business_id, metric_name, limit_value) VALUES ('b1', 'c d', 5);
         INSERT INTO plan_limits (business_id, metric_name, limit_value, plan_id) VALUES ('b1', 'calls', 5, 'p1');
         UPDATE businesses SET timezone = 'Mars/Olympus', enforcement = 'x', target_policy = 'x', default_metric = NULL;
         UPDATE customers SET plan_id = 'p1', subscription_ends_at = 'soon', billing_anchor_day = 99 WHERE business_id = 'b1';",
    );
    let terms = held(conn, day(1), &account("c1"));
    assert_eq!(in_force(&terms), ["odd realtime 0 customer"]);
    assert_eq!(terms.plan_in_force.as_deref(), Some("free"));
    assert_eq!(terms.calendar.zone_name(), "UTC");
    assert_eq!((terms.enforcement, terms.target_policy), (Enforcement::Enforce, TargetChoice::Allowlist));
    // An orphan: its plan went without its triggers.
    sql(
        conn,
        "DROP TRIGGER plans_gone_delete; UPDATE customers SET subscription_ends_at = NULL; DELETE FROM plans WHERE id = 'p1'",
    );
    assert_eq!(
        in_force(&held(conn, day(1), &account("c1"))),
        ["calls realtime 0 customer", "odd realtime 0 customer"]
    );
}
