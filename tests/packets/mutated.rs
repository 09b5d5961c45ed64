//! Valid frames with something changed: whatever is sent on must be what the oracle makes of it, and nothing else.
//! MPTM_MUTATIONS says how many frames for each program, MPTM_SEED where to start.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use mptm::kernel::Program;

use crate::lab::Lab;
use crate::patched::mend;
use crate::random::Random;
use crate::samples::{Sample, groups, samples_after};
use crate::wide::randomize;

const MUTATIONS: u64 = 1_000_000;
/// After how many frames all tunnels get other options.
const WORLD: u64 = 50_000;
/// Larger than one buffer.
const LONGEST: usize = 6000;

/// The number in an environment variable.
pub fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Values that headers don't like.
const EXTREMES: [u16; 12] = [0, 1, 19, 20, 27, 28, 0x0fff, 0x1fff, 0x2000, 0x7fff, 0x8000, 0xffff];

fn mutate(random: &mut Random, frame: &mut Vec<u8>) {
    // The headers are where decisions are made.
    let reach = if random.below(4) == 0 { frame.len() } else { frame.len().min(110) };
    let at = random.below(reach);
    match random.below(10) {
        0..=2 => frame[at] ^= 1 << random.below(8),
        3 => frame[at] = random.next() as u8,
        4 => frame[at] = *random.choose(&[0, 1, 0x3f, 0x40, 0x45, 0x4f, 0x7f, 0x80, 0xff]),
        5 if at + 1 < frame.len() => {
            let value = random.choose(&EXTREMES).to_be_bytes();
            frame[at..at + 2].copy_from_slice(&value);
        }
        6 if at + 1 < frame.len() => {
            // A length that is off by a little.
            let old = u16::from_be_bytes([frame[at], frame[at + 1]]);
            let new = old.wrapping_add(random.below(9) as u16).wrapping_sub(4);
            frame[at..at + 2].copy_from_slice(&new.to_be_bytes());
        }
        7 => frame.truncate(at.max(14)),
        8 => {
            let longer = if random.below(50) == 0 { random.below(LONGEST) } else { random.below(80) };
            frame.resize(frame.len() + longer, 0xee);
        }
        _ => {
            let other = random.below(reach);
            let length = random.below(8).min(frame.len() - at.max(other));
            frame.copy_within(at..at + length, other);
        }
    }
}

/// Runs that many frames through one program.
fn mutations(test: &str, program: Program) {
    let Some(mut lab) = Lab::new(test) else { return };
    let count = number("MPTM_MUTATIONS").unwrap_or(MUTATIONS);
    let seed = number("MPTM_SEED").unwrap_or_else(|| {
        // A longer run than usual looks for something new.
        if count == MUTATIONS {
            return 1;
        }
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs())
    });
    println!("MPTM_SEED={seed} MPTM_MUTATIONS={count}");
    let mut random = Random(seed);
    let mut samples = Vec::new();
    let mut sent = 0;
    for step in 0..count {
        if step % WORLD == 0 {
            if step > 0 {
                lab.change_tunnels(|tunnel| randomize(&mut random, tunnel));
            }
            samples = samples_after(&lab, step as u32);
            samples.extend(groups(&lab));
            samples.retain(|sample| sample.program == program);
        }
        let sample: &Sample = random.choose(&samples);
        let mut frame = sample.frame.clone();
        for _ in 0..=random.below(3) {
            mutate(&mut random, &mut frame);
        }
        if random.below(2) == 0 {
            // Half of all mutations would get no further than the outer checksums.
            mend(&mut frame);
        }
        let outcome = lab.node.world.judge(program, sample.ifindex, &frame);
        let name = format_args!("mutation {step} of seed {seed}");
        lab.node.tally(&name, program, sample.ifindex, &frame, &outcome);
        sent += u64::from(outcome.is_sent());
        if step % 10_000 == 0 {
            lab.node.check_tally();
        }
    }
    lab.node.check_tally();
    println!("{sent} of {count} sent on");
    assert!(sent > count / 8 && sent < count * 4 / 5, "{sent} of {count} sent on: too one-sided");
}

#[test]
fn leaving() {
    mutations("mutated::leaving", Program::Encap);
}

#[test]
fn arriving() {
    mutations("mutated::arriving", Program::Decap);
}
