//! Every truncation of every valid frame.

use mptm::kernel::Program;

use crate::lab::Lab;
use crate::node::difference;
use crate::oracle::Outcome;
use crate::samples::samples;

/// XDP takes no frame that has not its Ethernet header.
const SHORTEST: usize = 14;

#[test]
fn truncations() {
    let Some(mut lab) = Lab::new("truncated::truncations") else { return };
    let samples = samples(&lab);
    // Judging alone must not count as having seen a frame.
    let mut oracle = lab.node.world.clone();
    for sample in &samples {
        let whole = oracle.judge(sample.program, sample.ifindex, &sample.frame);
        assert!(whole.is_sent(), "{sample:02x?}: {whole:?}");
    }
    let (mut frames, mut forwarded) = (0, 0);
    for sample in &samples {
        for length in SHORTEST..=sample.frame.len() {
            let frame = &sample.frame[..length];
            let outcome = lab.node.world.judge(sample.program, sample.ifindex, frame);
            let name = format!("{:?} of {length} bytes", sample.program);
            lab.node.tally(&name, sample.program, sample.ifindex, frame, &outcome);
            frames += 1;
            forwarded += u32::from(outcome.is_sent());
        }
    }
    lab.node.check_tally();
    // A frame can do without its padding and without what lies behind an ARP packet, but without little else.
    assert!(
        forwarded as usize >= samples.len() && forwarded < frames / 20,
        "{forwarded} of {frames} forwarded"
    );
}

/// Whatever is done to a frame, a program that only counts lets it pass.
#[test]
fn counted_and_passed() {
    let Some(mut lab) = Lab::new("truncated::counted_and_passed") else { return };
    let frame = samples(&lab).swap_remove(0).frame;
    let before = lab.node.counters();
    for length in SHORTEST..=frame.len() {
        lab.node.tally(&"passed", Program::Pass, lab.end, &frame[..length], &Outcome::Pass);
    }
    lab.node.check_tally();
    assert_eq!(difference(&before, &lab.node.counters()).len(), 1, "one row counts them all");
}
