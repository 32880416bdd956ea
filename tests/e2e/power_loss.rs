//! Power loss: with the default durability nobody hears of anything that a dead disk could have lost (R6 of
//! docs/RELIABILITY.md), shown on recordings of real runs; with the other durability the same harness finds losses.

#![cfg(test)]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use tracktags_tests::images::calls::{Seen, Step};
use tracktags_tests::images::trace::{Trace, What};
use tracktags_tests::images::{Recording, order, record};
use tracktags_tests::seed;

const IMAGES: usize = 300;
const ACKNOWLEDGED: usize = 10_000;

/// A run under a durability, and its trace's file.
fn recorded(durability: &str, calls: usize) -> Recording {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace");
    let (node, tally) = record(durability, calls, &file);
    println!("{durability}: {tally:?}, {} MB of trace", std::fs::metadata(&file).unwrap().len() / 1_000_000);
    let recording = Recording::read(&file).unwrap();
    assert_files_are_as_recorded(&recording, node.folder().path());
    node.verify();
    recording
}

/// The recording is whole: played back, it gives the very files that lay there. Of each call that the kill cut off
/// nothing, all, or a part was done: the kernel writes page by page.
fn assert_files_are_as_recorded(recording: &Recording, folder: &Path) {
    let [without, with] = [false, true].map(|acted| BTreeMap::from_iter(recording.after_kill(acted)));
    for (name, without) in &without {
        let (found, with) = (std::fs::read(folder.join(name)).unwrap(), &with[name]);
        let length = found.len();
        assert!(
            length >= without.len().min(with.len()) && length <= without.len().max(with.len()),
            "{name}: {length} bytes, {} recorded, or {}",
            without.len(),
            with.len()
        );
        let is_other = |place: &usize| {
            let byte = found.get(*place);
            byte != without.get(*place) && byte != with.get(*place)
        };
        let others: Vec<_> = (0..length).filter(is_other).take(8).collect();
        assert!(others.is_empty(), "{name}: the recording gives other bytes at {others:?} of {length}");
    }
}

/// The same recording, had its server never synced.
fn unsynced(trace: &Trace) -> Trace {
    let mut calls = trace.calls.clone();
    // As a call that failed: every event keeps its place.
    calls.iter_mut().filter(|call| call.what == What::Sync).for_each(|call| call.done = false);
    Trace { calls, events: trace.events.clone() }
}

/// The same steps, had each call of a customer been forwarded as soon as it was asked; how many that are.
fn hurried(steps: &[Step], customer: &str) -> (Vec<Step>, usize) {
    let (mut hurried, mut asked, mut moved) = (steps.to_vec(), VecDeque::new(), 0);
    for step in hurried.iter_mut().filter(|step| step.customer == customer) {
        match step.seen {
            Seen::Asked => asked.push_back(step.event),
            Seen::Forwarded { .. } => {
                step.event = asked.pop_front().unwrap();
                moved += 1;
            }
            Seen::Answered { .. } => {}
        }
    }
    hurried.sort_by_key(|step| step.event);
    (hurried, moved)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures the replay")]
fn the_default_durability_loses_nothing_and_nobody_hears_before_the_sync() {
    let recording = recorded("power_loss", 16_000);
    let order = recording.order();
    println!("{order:?}");
    assert!(order.acknowledged >= ACKNOWLEDGED, "{order:?}");
    assert_eq!(order.batches, recording.rows.len(), "each batch is found in the log");
    assert_eq!(order.early, 0, "{order:?}");
    // The check can fail: without syncs everything is too early, and so is a forward that waits for nothing.
    let Recording { trace, steps, rows, .. } = &recording;
    let without = order::check(&unsynced(trace), steps, rows);
    assert_eq!(without.early, order.acknowledged + order.forwarded);
    let (hurried, moved) = hurried(steps, "c100");
    assert!(moved > 10, "{moved}");
    assert_eq!(order::check(trace, &hurried, rows).early, moved);
    let began = std::time::Instant::now();
    let findings = recording.images(IMAGES, seed()).unwrap();
    println!("{findings:?} in {:?}", began.elapsed());
    assert_eq!((findings.images, findings.violations()), (IMAGES, 0), "{findings:?}");
}

#[test]
fn the_durability_of_a_process_loses_what_was_acknowledged_and_both_checks_see_it() {
    let recording = recorded("process", 4_000);
    let order = recording.order();
    println!("{order:?}");
    assert!(order.early > order.acknowledged / 2, "{order:?}");
    let findings = recording.images(IMAGES / 3, seed()).unwrap();
    println!("{findings:?}");
    assert!(findings.lost > findings.images / 4, "{findings:?}");
    assert_eq!((findings.refused, findings.oversold), (0, 0), "the file stays sound: {findings:?}");
}
