//! Killed at any moment: what was forwarding keeps forwarding, and the next apply makes all whole.
//!
//! `MPTM_KILLS` is the number of moments, 500 if unset; `MPTM_SEED` chooses others.

use std::env;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{self, Lab, Outcome, soon};
use crate::snapshot::{Machine, poke_meta};
use crate::traffic::{Pair, reaches};

/// What is cut short, by turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// From nothing.
    First,
    /// From one file to another, and back.
    Change,
    /// From one build of the programs to another.
    Programs,
    /// The same as `Change`, but it wants to be confirmed: its guard takes it back.
    Confirm,
    /// From maps of an older layout.
    Layout,
    /// To larger maps, and back to smaller ones.
    Resize,
    /// To nothing.
    Down,
}

const TURNS: [Work; 11] = [
    Work::Layout,
    Work::Change,
    Work::Resize,
    Work::Programs,
    Work::Resize,
    Work::Change,
    Work::Confirm,
    Work::Change,
    Work::Programs,
    Work::Down,
    Work::First,
];
/// How many machines work on it at once.
const LABS: u32 = 6;

/// A number from the environment.
pub fn number(name: &str, default: u32) -> u32 {
    env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// xorshift64: moments need be no better.
pub struct Random(u64);

impl Random {
    /// A seed of any size gives moments of its own.
    pub fn new(seed: u32) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ u64::from(seed))
    }

    /// From 0 on; `end` is not among them.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}

/// Files that differ in a bit of everything: tunnels, a segment, prefixes, pairs, ports, settings, interfaces.
fn files(lab: &Lab) -> [String; 2] {
    let mut other = lab.a.plain_file();
    other += "debug = true\n[interface.extra]\nrole = \"pass\"\n[interface.more]\nrole = \"workload\"\nsegment = \"red\"\n\
              addresses = [\"10.0.0.1\", \"fd00::/64\"]\nmtu = 1400\n";
    other = other.replace("mtu = 1400\n", "");
    for id in 1..8 {
        other += &format!(
            "[tunnel.t{id}]\nprotocol = \"vxlan\"\nid = {id}\nremote = \"10.30.30.2\"\nmtu = 1400\ninner = [\"10.7{id}.0.0/16\", \"10.8{id}.0.1\"]\n"
        );
    }
    other += "[tunnel.pair]\nprotocol = \"fou\"\ndst_port = 5555\nremote = \"10.30.30.2\"\nfrom = [\"10.250.1.1\"]\ninner = [\"10.71.0.9\"]\n\
              [tunnel.red]\nprotocol = \"geneve\"\nid = 9\nsegment = \"red\"\nremote = \"10.30.30.2\"\ninner = [\"10.0.0.0/8\"]\n";
    [lab.a.plain_file(), other]
}

/// Tunnels and routes enough to take larger maps.
fn many() -> String {
    let mut more = String::new();
    for id in 1000..1300 {
        let [high, low] = (id as u16).to_be_bytes();
        more +=
            &format!("[tunnel.m{id}]\nprotocol = \"vxlan\"\nid = {id}\nremote = \"10.30.30.2\"\ninner = [");
        (0..8).for_each(|net| more += &format!("\"10.9{net}.{high}.{low}\", "));
        more += "]\n";
    }
    more
}

struct Killer<'a> {
    lab: &'a Lab,
    random: Random,
    files: [String; 2],
    /// Which file is applied.
    now: usize,
    /// Whether it has many more routes and tunnels than that.
    many: bool,
    /// How long each kind of work takes when it is let be.
    takes: [Duration; 7],
    caught: &'a AtomicU32,
}

impl Killer<'_> {
    fn start(&self, work: Work) -> std::process::Child {
        let command = match work {
            Work::Down => "down",
            Work::Confirm => "apply --confirm 30",
            _ => "apply",
        };
        let mut command = self.lab.a.command(command);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn write(&self) {
        let many = if self.many { many() } else { String::new() };
        self.lab.a.write(&format!("{}{many}", self.files[self.now]));
    }

    fn prepare(&mut self, work: Work) {
        match work {
            Work::Change | Work::Confirm => {
                self.now = 1 - self.now;
                self.write();
            }
            Work::Resize => {
                self.many = !self.many;
                self.write();
            }
            Work::Programs => poke_meta(&self.lab.a.pin, 16, 0xee),
            Work::Layout => poke_meta(&self.lab.a.pin, 0, 1),
            Work::First | Work::Down => {}
        }
    }

    /// One moment.
    fn round(&mut self, work: Work, round: u32) {
        let node = &self.lab.a;
        if work == Work::First {
            node.mptm("down");
        }
        let steady = !matches!(work, Work::First | Work::Down);
        let pair = steady.then(|| {
            assert!(reaches(self.lab), "round {round}: nothing gets through to begin with");
            Pair::open(self.lab)
        });
        self.prepare(work);
        let mut child = self.start(work);
        let moment = self.random.below(self.takes[work as usize].as_micros() as u64);
        thread::sleep(Duration::from_micros(moment));
        let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
        let caught = child.wait().unwrap().code().is_none();
        self.caught.fetch_add(caught.into(), Ordering::Relaxed);
        let at = format!("round {round}, {work:?} killed after {moment} us");
        if let Some(pair) = &pair {
            for number in 0..5_u32 {
                assert!(pair.passes(number), "{at}: datagram {number} was lost");
            }
        }
        if work == Work::Confirm {
            // Its guard, or nobody, had something to undo; then the former file is what there is.
            self.now = 1 - self.now;
            self.write();
            let back = || node.mptm("apply --dry-run").stderr == "Nothing to do.\n";
            assert!(soon(back), "{at}: {:?}", node.mptm("apply --dry-run"));
            assert!(pair.is_some_and(|pair| pair.passes(9)), "{at}: lost on the way back");
        }
        // Without a word of complaint.
        let outcome: Outcome = node.mptm("apply");
        assert!(
            outcome.code == Some(0)
                && !outcome.stderr.contains("error")
                && !outcome.stderr.contains("warning"),
            "{at}: {outcome:?}"
        );
        node.mptm("apply").nothing_to_do();
    }

    /// What each kind of work takes: once, undisturbed.
    fn measure(&mut self) {
        for work in [
            Work::First,
            Work::Change,
            Work::Resize,
            Work::Resize,
            Work::Programs,
            Work::Layout,
            Work::Change,
            Work::Down,
        ] {
            self.prepare(work);
            let start = Instant::now();
            assert!(self.start(work).wait().unwrap().success(), "{work:?}");
            self.takes[work as usize] = start.elapsed();
        }
        self.takes[Work::Confirm as usize] = self.takes[Work::Change as usize];
        assert!(self.lab.a.mptm("apply").code == Some(0));
    }
}

#[test]
fn at_random_moments() {
    let (moments, seed) = (number("MPTM_KILLS", 500), number("MPTM_SEED", std::process::id()));
    let caught = AtomicU32::new(0);
    thread::scope(|scope| {
        for own in 0..LABS {
            let caught = &caught;
            let work = move || {
                lab::run("killed: at random moments", |lab| {
                    lab.b.apply(&lab.b.plain_file());
                    for device in ["extra", "more"] {
                        lab.a.ip(&format!("link add {device} type veth peer name {device}-peer"));
                        lab.a.ip(&format!("link set {device} up"));
                    }
                    let clean = Machine::look(lab);
                    let mut killer = Killer {
                        lab,
                        random: Random::new(seed * LABS + own),
                        files: files(lab),
                        now: 0,
                        many: false,
                        takes: [Duration::ZERO; 7],
                        caught,
                    };
                    lab.a.write(&killer.files[0]);
                    killer.measure();
                    for round in 0..moments.div_ceil(LABS) {
                        killer.round(TURNS[round as usize % TURNS.len()], round);
                    }
                    lab.a.mptm("down").done();
                    // Nothing is left of all of them.
                    Machine::look(lab).in_the_long_run().must_be(&clean.in_the_long_run());
                });
            };
            scope.spawn(work);
        }
    });
    let caught = caught.into_inner();
    println!("killed at {caught} of {moments} moments, seed {seed}");
    // SAFETY: it takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    assert!(!root || caught >= moments / 2, "only {caught} of {moments} were caught");
}
