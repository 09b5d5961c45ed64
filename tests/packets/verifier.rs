//! What the verifier has to go through: a record, so that a change that makes it much more does not go unseen.
//! MPTM_BLESS=1 writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};
use mptm::kernel::{DataPlane, Program};

use crate::common::netns::skipped;
use crate::lab::Lab;

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verified-instructions.txt");
/// In percent.
const TOLERANCE: u32 = 20;

/// By program, from the kernel: the instructions that the verifier went through.
fn verified(lab: &mut Lab) -> BTreeMap<&'static str, u32> {
    lab.node.plane.attach_flood("red", lab.red).unwrap();
    let mut links = lab.node.plane.links().unwrap();
    links.append(&mut lab.node.plane.flood_links().unwrap());
    let attached: BTreeMap<u32, Program> =
        links.values().filter_map(|link| Some((link.program_id, link.program?))).collect();
    let all: BTreeMap<&'static str, u32> = ProgInfoIter::with_query_opts(ProgInfoQueryOptions::default())
        .filter_map(|info| Some((attached.get(&info.id)?.name(), info.verified_insns)))
        .collect();
    lab.node.plane.detach_flood("red").unwrap();
    assert_eq!(all.len(), Program::ALL.len(), "{all:?}: the lab attaches every program");
    all
}

/// What the counts depend on besides the programs: the kernel's verifier, and the compiler.
fn place() -> String {
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let kernel: Vec<&str> = release.split('.').take(2).collect();
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let version = Command::new(clang).arg("--version").output().expect("what mptm was built with").stdout;
    let version = String::from_utf8_lossy(&version).into_owned();
    let clang = version.split("version ").nth(1).and_then(|rest| rest.split('.').next()).unwrap_or("unknown");
    format!("linux-{} clang-{clang}", kernel.join("."))
}

/// The record's lines: kernel, compiler, program, count.
fn parse(text: &str) -> BTreeMap<(String, String), u32> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [kernel, clang, name, count] = words[..] else { panic!("{RECORD}: {line}") };
            ((format!("{kernel} {clang}"), name.to_owned()), count.parse().expect("a number"))
        })
        .collect()
}

#[test]
fn instructions() {
    let Some(mut lab) = Lab::new("verifier::instructions") else { return };
    let now = verified(&mut lab);
    let place = place();
    let mut record = parse(&fs::read_to_string(Path::new(RECORD)).unwrap());
    if env::var_os("MPTM_BLESS").is_some() {
        record.extend(now.iter().map(|(name, count)| ((place.clone(), (*name).to_owned()), *count)));
        let mut text = String::from(
            "# Instructions that the verifier goes through. MPTM_BLESS=1 cargo test writes them.\n",
        );
        for ((place, name), count) in &record {
            writeln!(text, "{place} {name} {count}").expect("a string takes everything");
        }
        fs::write(RECORD, text).unwrap();
        return;
    }
    if !record.keys().any(|(other, _)| *other == place) {
        skipped(&format!("no record for {place}: MPTM_BLESS=1 adds one"), "verifier::instructions");
        return;
    }
    for (name, count) in &now {
        let on_record = record.get(&(place.clone(), (*name).to_owned()));
        let on_record = on_record.unwrap_or_else(|| panic!("{RECORD} has no {name} for {place}"));
        let limit = on_record * (100 + TOLERANCE) / 100;
        assert!(*count <= limit, "{name}: {count} instructions verified, {on_record} on record");
    }
}
