//! `mptm watch` is killed at any moment: what was forwarding keeps forwarding, and the next one, or an apply, goes on.

use std::thread;
use std::time::Instant;

use super::{Watch, tunnel};
use crate::lab;
use crate::traffic::loss_while;

/// Moments within the time that a change takes, from the rename of the file on.
const ROUNDS: u32 = 60;

#[test]
fn at_any_moment() {
    lab::run("watch: killed at any moment", |lab| {
        lab.b.apply(&lab.b.plain_file());
        let node = &lab.a;
        let files = [
            node.plain_file(),
            (1..40).fold(node.plain_file(), |file, id| file + &tunnel(&format!("t{id}"), id)),
        ];
        node.write(&files[0]);
        // How long a change takes when it is let be.
        let watch = Watch::start(lab, "--interval 3600");
        let start = Instant::now();
        node.write(&files[1]);
        watch.says("file: + endpoint geneve 39 ");
        let takes = start.elapsed();
        drop(watch);
        let (sent, lost) = loss_while(lab, || {
            for round in 0..ROUNDS {
                let watch = Watch::spawn(lab, "--interval 3600", |_| {});
                watch.says("start: watching");
                node.write(&files[round as usize % 2]);
                thread::sleep(takes * round / ROUNDS);
                drop(watch);
                let outcome = node.mptm("apply");
                let is_silent = !outcome.stderr.contains("error") && !outcome.stderr.contains("warning");
                assert!(outcome.code == Some(0) && is_silent, "round {round}: {outcome:?}");
                node.mptm("apply").nothing_to_do();
            }
        });
        assert_eq!(lost, 0, "of {sent}");
        println!("{ROUNDS} kills within {takes:?}: {sent} datagrams, none lost");
    });
}
