//! Windows partition time: every instant lies in exactly one, and each begins where the one before it ends.

use proptest::prelude::*;
use tracktags_core::metrics::{Interval, MetricType};
use tracktags_core::windows::Window;
use tracktags_core::{Calendar, Metric, Period, Scope, Timestamp};

/// Zones with daylight saving at odd hours, half hours, midnight, and dates that were skipped.
const ZONES: &[&str] = &[
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Asia/Tehran",
    "Pacific/Chatham",
    "America/Havana",
    "Africa/Monrovia",
];

const CALENDAR: &[Period] =
    &[Period::Minutely, Period::Hourly, Period::Daily, Period::Weekly, Period::Monthly, Period::Yearly];

fn partitions(calendar: &Calendar, period: Period, at: Timestamp) {
    let window = calendar.window_of(period, at).unwrap();
    assert!(window.contains(at), "{period} in {} at {at}: {window:?}", calendar.zone_name());
    let inside = calendar.window_of(period, window.start).unwrap();
    assert_eq!(inside, window, "{period} in {} at its own start {}", calendar.zone_name(), window.start);
    let last = calendar.window_of(period, window.end.plus_micros(-1)).unwrap();
    assert_eq!(last, window, "{period} in {} at its last instant", calendar.zone_name());
    let next = calendar.window_of(period, window.end).unwrap();
    assert_eq!(next.start, window.end, "{period} in {}: the next begins at the end", calendar.zone_name());
}

proptest! {
    // 6 periods × 4 look-ups × 42,000 cases: over a million instants.
    #![proptest_config(ProptestConfig { cases: 42_000, ..ProptestConfig::default() })]

    #[test]
    fn windows_partition_time(
        zone in prop::sample::select(ZONES.to_vec()),
        anchor in prop::option::of(1_u8..=31),
        seconds in 0_i64..2_208_988_800,
        micros in 0_i64..1_000_000,
    ) {
        let calendar = Calendar::in_zone(zone).unwrap().anchored(anchor).unwrap();
        let at = Timestamp::from_seconds(seconds).plus_micros(micros);
        for period in CALENDAR {
            partitions(&calendar, *period, at);
        }
    }

    #[test]
    fn so_do_a_metrics_own_intervals(
        zone in prop::sample::select(ZONES.to_vec()),
        interval in prop::sample::select(Interval::ALL.to_vec()),
        seconds in 0_i64..2_208_988_800,
    ) {
        let calendar = Calendar::in_zone(zone).unwrap();
        let metric = Metric::sum("m".parse().unwrap(), Scope::Customer, interval);
        let at = Timestamp::from_seconds(seconds);
        let window = calendar.own_window_of(&metric, at);
        prop_assert!(window.contains(at));
        prop_assert_eq!(calendar.own_window_of(&metric, window.end).start, window.end);
        prop_assert_eq!(calendar.own_window_of(&metric, window.end.plus_micros(-1)), window);
    }

    #[test]
    fn cuts_hold_for_as_long_as_they_say(
        zone in prop::sample::select(ZONES.to_vec()),
        seconds in 0_i64..2_208_988_800,
        share in 0_i64..1_000,
    ) {
        let calendar = Calendar::in_zone(zone).unwrap();
        let metric = Metric::sum("m".parse().unwrap(), Scope::Customer, Interval::Daily);
        let cuts = calendar.cuts(&metric, Timestamp::from_seconds(seconds));
        let span = cuts.good.end.as_micros() - cuts.good.start.as_micros();
        let other = cuts.good.start.plus_micros((span - 1) * share / 999);
        prop_assert_eq!(calendar.cuts(&metric, other).spans, cuts.spans);
    }
}

#[test]
fn every_change_of_clock_of_a_century_is_partitioned() {
    for zone in ZONES {
        let calendar = Calendar::in_zone(zone).unwrap();
        // Around each hour of the days on which clocks change somewhere in this list.
        for day in (0..36_500_i64).step_by(7) {
            for hour in 0..8 {
                let at = Timestamp::from_seconds(day * 86_400 + hour * 10_800);
                for period in [Period::Hourly, Period::Daily] {
                    partitions(&calendar, period, at);
                }
            }
        }
    }
}

fn window(zone: &str, anchor: Option<u8>, period: Period, at: &str) -> (String, String) {
    let calendar = Calendar::in_zone(zone).unwrap().anchored(anchor).unwrap();
    let window = calendar.window_of(period, at.parse().unwrap()).unwrap();
    (window.start.to_string(), window.end.to_string())
}

#[test]
fn an_anchor_on_day_31_is_clamped_to_the_months_end() {
    let february = window("UTC", Some(31), Period::Monthly, "2028-02-29T00:00:00Z");
    assert_eq!(february, ("2028-02-29T00:00:00Z".into(), "2028-03-31T00:00:00Z".into()));
    let january = window("UTC", Some(31), Period::Monthly, "2028-02-28T23:59:59Z");
    assert_eq!(january, ("2028-01-31T00:00:00Z".into(), "2028-02-29T00:00:00Z".into()));
}

#[test]
fn a_year_begins_on_the_anchor_day_of_january() {
    let year = window("UTC", Some(15), Period::Yearly, "2026-01-14T23:59:59Z");
    assert_eq!(year, ("2025-01-15T00:00:00Z".into(), "2026-01-15T00:00:00Z".into()));
}

#[test]
fn weeks_begin_on_monday() {
    let week = window("Asia/Tokyo", None, Period::Weekly, "2026-01-04T14:59:59Z");
    assert_eq!(week, ("2025-12-28T15:00:00Z".into(), "2026-01-04T15:00:00Z".into()));
}

#[test]
fn the_day_the_clock_goes_forward_has_23_hours() {
    let day = window("Europe/Berlin", None, Period::Daily, "2026-03-29T10:00:00Z");
    assert_eq!(day, ("2026-03-28T23:00:00Z".into(), "2026-03-29T22:00:00Z".into()));
}

#[test]
fn a_checkpoint_metric_has_all_of_time() {
    let mut metric = Metric::sum("m".parse().unwrap(), Scope::Customer, Interval::Monthly);
    metric.metric_type = MetricType::Checkpoint;
    let cuts = Calendar::utc().cuts(&metric, Timestamp::from_seconds(0));
    assert_eq!(cuts.span(Window::Own).start, Timestamp::MIN);
}
