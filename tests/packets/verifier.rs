//! What the verifier has to go through: a record, so that a change that makes it much more does not go unseen.
//! MPTM_BLESS=1 writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};
use mptm::kernel::{DataPlane, Program};

use crate::lab::Lab;

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verified-instructions.txt");
/// In percent: kernels and compilers differ a little.
const TOLERANCE: u32 = 20;

/// By program, from the kernel: the instructions that the verifier went through.
fn verified(lab: &Lab) -> BTreeMap<&'static str, u32> {
    let links = lab.node.plane.links().unwrap();
    let attached: BTreeMap<u32, Program> =
        links.values().filter_map(|link| Some((link.program_id, link.program?))).collect();
    let all: BTreeMap<&'static str, u32> = ProgInfoIter::with_query_opts(ProgInfoQueryOptions::default())
        .filter_map(|info| Some((attached.get(&info.id)?.name(), info.verified_insns)))
        .collect();
    assert_eq!(all.len(), Program::ALL.len(), "{all:?}: the lab attaches every program");
    all
}

fn parse(text: &str) -> BTreeMap<&str, u32> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, count) = line.split_once(' ').expect("NAME COUNT");
            (name, count.trim().parse().expect("a number"))
        })
        .collect()
}

#[test]
fn instructions() {
    let Some(lab) = Lab::new("verifier::instructions") else { return };
    let now = verified(&lab);
    if env::var_os("MPTM_BLESS").is_some() {
        let mut text = String::from(
            "# Instructions that the verifier goes through. MPTM_BLESS=1 cargo test writes this file.\n",
        );
        for (name, count) in &now {
            writeln!(text, "{name} {count}").expect("a string takes everything");
        }
        fs::write(RECORD, text).unwrap();
        return;
    }
    let text = fs::read_to_string(Path::new(RECORD)).unwrap();
    let record = parse(&text);
    assert!(record.keys().eq(now.keys()), "{RECORD} has {:?}", record.keys());
    for (name, count) in &now {
        let limit = record[name] * (100 + TOLERANCE) / 100;
        assert!(*count <= limit, "{name}: {count} instructions verified, {} on record", record[name]);
    }
}
