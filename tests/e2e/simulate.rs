//! The admission stage under faults, in a model world (RELIABILITY R3, R12, R13): the simulator finds nothing in the
//! order of the batch as it is, and every fault that is planted.

use tracktags_tests::sim::{self, Plant, Summary};

/// Runs without a planted fault.
const RUNS: u64 = 10_000;
/// Within so many runs each planted fault is found.
const RUNS_TO_FIND: u64 = 50;

#[test]
fn ten_thousand_runs_break_no_invariant() {
    let mut summary = Summary::default();
    for number in 1..=RUNS {
        summary += sim::run(number, None, None).unwrap_or_else(|violation| panic!("{violation}"));
    }
    println!("{summary:?}");
    // The runs were about something.
    let Summary { admitted, denied, stale, refused, unknown, settled_late, unheard, .. } = summary;
    let Summary { decided_again, set_aside, changes, kills, steps_back, .. } = summary;
    for seen in [admitted, denied, stale, refused, unknown, settled_late, unheard] {
        assert!(seen >= RUNS / 10, "{summary:?}");
    }
    for seen in [decided_again, set_aside, changes, kills, steps_back] {
        assert!(seen >= RUNS / 10, "{summary:?}");
    }
}

fn finds(plant: Plant) {
    let found = (1..=RUNS_TO_FIND).find_map(|number| sim::run(number, Some(plant), None).err());
    let violation = found.unwrap_or_else(|| panic!("{plant:?} was not found in {RUNS_TO_FIND} runs"));
    println!("{violation}");
    // A number repeats its run.
    let again = sim::run(violation.number, Some(plant), None).err().map(|again| again.what);
    assert_eq!(again.as_ref(), Some(&violation.what));
}

#[test]
fn an_ignored_marker_is_found() {
    finds(Plant::MarkerIgnored);
}

#[test]
fn a_marker_looked_up_while_its_commit_may_still_come_is_found() {
    finds(Plant::MarkerLookedUpEarly);
}

#[test]
fn a_batch_that_is_run_again_blindly_is_found() {
    finds(Plant::RunAgain);
}

#[test]
fn a_time_not_read_again_after_the_lock_is_found() {
    finds(Plant::TimeNotReadAgain);
}

#[test]
fn a_version_forgotten_for_other_businesses_is_found() {
    finds(Plant::OtherBusinessesForgotten);
}

#[test]
fn a_row_that_is_not_locked_is_found() {
    finds(Plant::RowNotLocked);
}

#[test]
fn counters_not_read_again_under_their_locks_are_found() {
    finds(Plant::CountersNotReadAgain);
}

#[test]
fn a_release_booked_into_the_new_window_is_found() {
    finds(Plant::ReleaseIntoNewWindow);
}
