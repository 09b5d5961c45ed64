//! The programs, packet by packet, through BPF_PROG_TEST_RUN. Needs root; without it, each test says that it is skipped.

#[path = "../common/mod.rs"]
mod common;

mod decap;
mod ecn;
mod encap;
mod events;
mod flood;
mod flood_notes;
mod flows;
mod frames;
mod geneve;
mod gre;
mod gtpu;
mod headers;
mod icmp;
mod known;
mod lab;
mod layout;
mod mss;
mod mutated;
mod neighbours;
mod node;
mod oracle;
mod patch;
mod patched;
mod random;
mod raw;
mod roundtrip;
mod samples;
mod sizes;
mod strict;
mod sums;
mod truncated;
mod ttl;
mod verifier;
mod wide;
mod world;
mod wrong;
