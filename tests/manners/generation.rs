//! Whoever is killed during a change leaves `generation` odd: the next pass of anybody's makes it even again.

use std::path::Path;

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::lab::{self, Lab, soon};
use crate::traffic::{Pair, reaches};
use crate::watch::Watch;

/// Of container b, as tests/manners/lab.rs makes it.
const MAC: [u8; 6] = [2, 0, 0, 0, 3, 2];
/// Nobody's.
const OTHER: [u8; 6] = [2, 0, 0, 0, 9, 9];

fn open(pin: &Path, map: &str) -> MapHandle {
    MapHandle::from_pinned_path(pin.join("maps").join(map)).unwrap()
}

fn generation(pin: &Path) -> u32 {
    let value = open(pin, "generation").lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
    u32::from_ne_bytes(value.try_into().unwrap())
}

/// As a change begins. The answer is what it was.
fn begin(pin: &Path) -> u32 {
    let before = generation(pin);
    assert_eq!(before % 2, 0, "a change is over");
    open(pin, "generation").update(&0_u32.to_ne_bytes(), &(before | 1).to_ne_bytes(), MapFlags::ANY).unwrap();
    before
}

/// Puts another MAC address into all that is kept of flows to container b: whatever is sent by that does not arrive. The
/// answer is how many entries had its own.
fn spoil(pin: &Path) -> usize {
    let flows = open(pin, "flows_in");
    let mut spoilt = 0;
    for slot in flows.keys() {
        let mut by_cpu = flows.lookup_percpu(&slot, MapFlags::ANY).unwrap().unwrap();
        let mut found = 0;
        for entry in &mut by_cpu {
            while let Some(at) = entry.windows(MAC.len()).position(|bytes| bytes == MAC) {
                entry[at..at + MAC.len()].copy_from_slice(&OTHER);
                found += 1;
            }
        }
        if found > 0 {
            flows.update_percpu(&slot, &by_cpu, MapFlags::ANY).unwrap();
        }
        spoilt += found;
    }
    spoilt
}

/// What is kept of flows is each CPU's own: packets are to stay on one.
fn stay_on_this_cpu() {
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
}

fn both_applied(lab: &Lab) {
    for node in [&lab.a, &lab.b] {
        node.apply(&node.plain_file());
    }
    assert!(reaches(lab));
}

#[test]
fn apply_ends_what_was_interrupted() {
    lab::run("generation: apply", |lab| {
        stay_on_this_cpu();
        both_applied(lab);
        let node = &lab.b;
        let pair = Pair::open(lab);
        assert!(pair.passes(1));
        assert!(spoil(&node.pin) > 0, "the flow was kept");
        assert!(!pair.passes(2), "what is kept counts");

        let before = begin(&node.pin);
        assert!(pair.passes(3), "during a change nothing that is kept counts");
        assert_eq!(spoil(&node.pin), 0, "and nothing is kept");
        // Looking changes nothing.
        node.mptm("apply --dry-run --detailed-exitcode").nothing_to_do();
        assert_eq!(generation(&node.pin), before + 1);

        node.mptm("apply --detailed-exitcode").nothing_to_do();
        let after = generation(&node.pin);
        assert!(after.is_multiple_of(2) && after > before, "{before} -> {after}");
        assert!(pair.passes(4), "what was kept before does not count any more");
        assert!(pair.passes(5), "by what is known of the far end, its flow is kept again");
        assert!(spoil(&node.pin) > 0, "it is");
        assert!(!pair.passes(6), "and counts");

        node.mptm("apply").nothing_to_do();
        assert_eq!(generation(&node.pin), after, "where nobody was interrupted, nothing happens");
        begin(&node.pin);
        assert!(pair.passes(7));
    });
}

#[test]
fn watch_ends_what_was_interrupted() {
    lab::run("generation: watch", |lab| {
        both_applied(lab);
        let node = &lab.a;
        let before = begin(&node.pin);
        let watch = Watch::spawn(lab, "--interval 3600", |_| {});
        let now = || generation(&node.pin);
        assert!(soon(|| now().is_multiple_of(2) && now() > before), "{before} -> {}\n{}", now(), watch.log());
        assert!(reaches(lab));
        let said = watch.stop();
        assert!(!said.contains(": + ") && !said.contains(": ~ "), "it is no part of a plan: {said}");
    });
}
