//! The closed form of every operator against a model that takes unit after unit.

use proptest::prelude::*;
use tracktags_core::Operator;

fn any_operator() -> impl Strategy<Value = Operator> {
    prop::sample::select(Operator::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn n_units_are_decided_as_if_taken_one_by_one(
        operator in any_operator(), usage in 0_i64..60, limit in 0_i64..60, units in 1_i64..40,
    ) {
        let breaching = (0..units).filter(|taken| operator.holds(usage + taken, limit)).count();
        prop_assert_eq!(operator.breaching(usage, limit, units), i64::try_from(breaching).unwrap());
        prop_assert_eq!(operator.breaches(usage, limit, units), breaching > 0);
    }

    #[test]
    fn remaining_is_what_can_still_be_taken_one_by_one(
        operator in any_operator(), usage in 0_i64..60, limit in 0_i64..60,
    ) {
        let free = (0..200).take_while(|taken| !operator.holds(usage + taken, limit)).count();
        let expected = if free == 200 { None } else { Some(i64::try_from(free).unwrap()) };
        prop_assert_eq!(operator.remaining(usage, limit), expected);
    }
}

#[test]
fn gte_admits_exactly_the_limit_and_gt_one_more() {
    assert!(!Operator::Gte.breaches(0, 1000, 1000));
    assert!(Operator::Gte.breaches(0, 1000, 1001));
    assert!(!Operator::Gt.breaches(0, 1000, 1001));
    assert!(Operator::Gt.breaches(0, 1000, 1002));
}

#[test]
fn zero_units_ask_whether_the_next_one_would_breach() {
    assert!(Operator::Gte.breaches(5, 5, 0));
    assert!(!Operator::Gte.breaches(4, 5, 0));
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let max = tracktags_core::metrics::UNITS_MAX;
    for operator in Operator::ALL {
        assert!(operator.breaching(max, max, max) >= 0);
        assert!(operator.remaining(max, max).is_none_or(|free| free >= 0));
    }
    assert!(Operator::Gte.breaches(max, max, 1));
}
