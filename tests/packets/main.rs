//! The programs, packet by packet, through BPF_PROG_TEST_RUN. Needs root; without it, each test says that it is skipped.

#[path = "../common/mod.rs"]
mod common;

mod decap;
mod encap;
mod events;
mod lab;
mod layout;
mod mutated;
mod node;
mod oracle;
mod patch;
mod random;
mod raw;
mod roundtrip;
mod samples;
mod truncated;
mod verifier;
mod wide;
mod world;
