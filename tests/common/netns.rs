//! A network namespace for one test.

use std::fs::File;
use std::io::{self, Write};
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::Uid;

use super::interrupted;

/// The calling thread is in a new network namespace for as long as this lives; its mounts stay what they were, so that
/// /sys/fs/bpf is at hand. The namespace and its devices go when the thread has left it.
pub struct Namespace {
    home: File,
}

impl Namespace {
    /// None, and a line on standard error: the test can't run without root.
    pub fn enter(test: &str) -> Option<Self> {
        if !Uid::effective().is_root() {
            skipped("needs root", test);
            return None;
        }
        interrupted::clean_up();
        let home = File::open("/proc/thread-self/ns/net").expect("/proc is mounted");
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
        Some(Self { home })
    }

    /// Makes a veth pair NAME and NAME-peer, and returns NAME's index. Only NAME is up: there is no carrier, and so no
    /// packet but the test's own.
    pub fn veth(&self, name: &str) -> u32 {
        let peer = format!("{name}-peer");
        ip(&["link", "add", name, "type", "veth", "peer", "name", &peer]);
        ip(&["link", "set", name, "up"]);
        nix::net::if_::if_nametoindex(name).expect("the device that was just made")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = setns(&self.home, CloneFlags::CLONE_NEWNET) {
            eprintln!("cannot go back to the network namespace of before: {error}");
        }
    }
}

/// Says so past libtest, which would swallow what `eprintln!` writes: a test that was skipped has not passed.
pub fn skipped(why: &str, what: &str) {
    // There is nobody left to tell of a standard error that takes nothing.
    let _ = writeln!(io::stderr(), "SKIPPED ({why}): {what}");
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
