//! `mptm watch` is killed at any moment: what was forwarding keeps forwarding, and the next one, or an apply, goes on.
//!
//! `MPTM_KILLS` is the number of moments, 500 if unset; `MPTM_SEED` chooses others.

use std::thread;
use std::time::{Duration, Instant};

use super::{Watch, tunnel};
use crate::killed::{Random, number};
use crate::lab::{self, Lab};
use crate::traffic::loss_while;

/// How many machines work on it at once.
const LABS: u32 = 2;

/// Two files, and how long it takes from a start with one of them until the other is in force.
fn measure(lab: &Lab) -> ([String; 2], Duration) {
    lab.b.apply(&lab.b.plain_file());
    let node = &lab.a;
    let files = [
        node.plain_file(),
        (1..40).fold(node.plain_file(), |file, id| file + &tunnel(&format!("t{id}"), id)),
    ];
    node.write(&files[0]);
    drop(Watch::start(lab, "--interval 3600"));
    let start = Instant::now();
    let watch = Watch::spawn(lab, "--interval 3600", |_| {});
    watch.says("start: watching");
    node.write(&files[1]);
    watch.says("file: + endpoint geneve 39 ");
    (files, start.elapsed())
}

/// So many moments; the answer is how many datagrams were sent meanwhile.
fn kill_at_moments(lab: &Lab, moments: u32, mut random: Random) -> u32 {
    let (files, takes) = measure(lab);
    let node = &lab.a;
    let (sent, lost) = loss_while(lab, || {
        for round in 0..moments {
            let moment = Duration::from_micros(random.below(takes.as_micros() as u64));
            let file = &files[round as usize % 2];
            // By turns, it finds the change when it starts, and is told of it.
            if round % 4 < 2 {
                node.write(file);
            }
            let start = Instant::now();
            let watch = Watch::spawn(lab, "--interval 3600", |_| {});
            if round % 4 >= 2 {
                watch.says("start: watching");
                node.write(file);
            }
            thread::sleep(moment.saturating_sub(start.elapsed()));
            drop(watch);
            let outcome = node.mptm("apply");
            let is_silent = !outcome.stderr.contains("error") && !outcome.stderr.contains("warning");
            assert!(outcome.code == Some(0) && is_silent, "round {round}, after {moment:?}: {outcome:?}");
            node.mptm("apply").nothing_to_do();
        }
    });
    assert_eq!(lost, 0, "of {sent}");
    sent
}

#[test]
fn at_any_moment() {
    let (moments, seed) = (number("MPTM_KILLS", 500), number("MPTM_SEED", std::process::id()));
    thread::scope(|scope| {
        for own in 0..LABS {
            scope.spawn(move || {
                lab::run("watch: killed at any moment", |lab| {
                    let moments = moments.div_ceil(LABS);
                    let sent = kill_at_moments(lab, moments, Random::new(seed * LABS + own));
                    println!("{moments} kills: {sent} datagrams, none lost; seed {seed}");
                });
            });
        }
    });
}
