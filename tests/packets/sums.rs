//! csum_range of bpf/csum.h, of every length: what packets have is only some of them.

use std::ops::RangeInclusive;
use std::path::Path;

use libbpf_cargo::SkeletonBuilder;
use libbpf_rs::{Object, ObjectBuilder, ProgramInput};

use crate::common::netns::Namespace;

/// The shortest frame that a test run takes, behind what says what is to be summed up.
const LEAST: usize = 14;

fn load() -> Object {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sum.bpf.o");
    let mut arguments: Vec<String> = ["-O2", "-Wall", "-Werror", "-mcpu=v3"].map(String::from).into();
    let include = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    if Path::new(&include).exists() {
        arguments.extend(["-idirafter".into(), include]);
    }
    let mut builder = SkeletonBuilder::new();
    builder
        .source(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packets/bpf/sum.bpf.c"))
        .obj(&file)
        .clang_args(arguments);
    if let Some(clang) = std::env::var_os("CLANG") {
        builder.clang(clang);
    }
    builder.build().unwrap();
    ObjectBuilder::default().open_file(&file).unwrap().load().unwrap()
}

/// Ones' complement: all ones is nothing, too, but a sum is zero only where all words are.
fn fold(mut sum: u64) -> u64 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// As RFC 1071 has it, word by word.
fn expected(bytes: &[u8], first: u32) -> u64 {
    let words =
        bytes.chunks(2).map(|word| u16::from_ne_bytes([word[0], word.get(1).copied().unwrap_or_default()]));
    fold(u64::from(first) + words.map(u64::from).sum::<u64>())
}

/// What the program says of a part of the frame.
fn summed(object: &mut Object, frame: &mut [u8], from: usize, length: usize, first: u32) -> u64 {
    for (word, asked) in [from as u32, length as u32, first].into_iter().enumerate() {
        frame[word * 4..][..4].copy_from_slice(&asked.to_ne_bytes());
    }
    let program = object.progs_mut().next().expect("a program in sum.bpf.c");
    let output = program.test_run(ProgramInput { data_in: Some(frame), ..Default::default() }).unwrap();
    fold(u64::from(output.return_value))
}

fn check(object: &mut Object, frame: &mut [u8], from: usize, length: usize, first: u32) {
    let all = frame.len();
    let expected = expected(&frame[from..from + length], first);
    let summed = summed(object, frame, from, length, first);
    assert_eq!(summed, expected, "{length} bytes from {from} on, of a frame of {all}, added to {first:#x}");
}

/// Bytes at random (Marsaglia's xorshift, 2003), or the same ones over and over, which carry most.
fn filled(size: usize, with: Option<u8>) -> Vec<u8> {
    let mut random = 1_u32;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        (random >> 8) as u8
    };
    (0..size).map(|_| with.unwrap_or_else(&mut next)).collect()
}

/// All short lengths, and those around what differs in the program and what frames usually have: to the frame's end,
/// and with more behind it. From 3400 bytes on frames are in several buffers.
#[test]
fn lengths() {
    let Some(_namespace) = Namespace::enter("sums::lengths") else { return };
    let mut object = load();
    let ranges: [RangeInclusive<usize>; 8] =
        [0..=250, 440..=520, 1440..=1560, 2030..=2060, 3380..=3480, 3570..=3600, 4090..=4100, 8990..=9000];
    for from in [LEAST, 54, 55] {
        for length in ranges.iter().cloned().flatten() {
            for (with, first, more) in [
                (None, 0, 0),
                (None, 0xffff_ffff, 900),
                (Some(0xff), 0x1234, 1),
                (Some(0), 0, 7),
                (Some(0x80), 1, 0),
            ] {
                check(&mut object, &mut filled(from + length + more, with), from, length, first);
            }
        }
    }
}

/// Each byte counts, and where it is does.
#[test]
fn positions() {
    let Some(_namespace) = Namespace::enter("sums::positions") else { return };
    let mut object = load();
    for length in [79, 337, 1530] {
        for at in 0..length {
            let mut frame = filled(54 + length + 1, Some(0));
            frame[54 + at] = 0xa5;
            check(&mut object, &mut frame, 54, length, 0);
        }
    }
}

/// What is not all there has no sum.
#[test]
fn ends() {
    let Some(_namespace) = Namespace::enter("sums::ends") else { return };
    let mut object = load();
    for size in [100, 1500, 5000] {
        for beyond in [1, 2, 8, 60_000, u32::MAX as usize - size] {
            let mut frame = filled(size, None);
            assert_eq!(
                summed(&mut object, &mut frame, 54, size - 54 + beyond, 0),
                0,
                "{size}, and {beyond} more"
            );
        }
    }
}
