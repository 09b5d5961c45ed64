//! Programs and maps of one test, pinned in a directory of their own, and devices in a namespace of their own.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use mptm::config::model::Mode;
use mptm::kernel::abi::{self, ACTIONS, PROGRAM_COUNT, role};
use mptm::kernel::linux::{BpfDataPlane, TestRun};
use mptm::kernel::{DataPlane, Map, Program, Sizes, Via};
use mptm::reason::Reason;
use zerocopy::{FromBytes, IntoBytes};

use crate::common::frame::Mac;
use crate::common::netns::Namespace;
use crate::oracle::Outcome;
use crate::oracle::inner::{Flow, Inner};
use crate::world::{Interface, Own, Tunnel, World};

pub const DROP: u32 = 1;
pub const PASS: u32 = 2;
pub const REDIRECT: u32 = 4;

/// Bytes of metadata that mptm_flood is left: a note, and as much before it as an Ethernet header and a bit.
const NOTE: usize = 48;

/// A counter that can move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    Action(Program, u32),
    Drop(Reason),
    Encap(u32),
    Decap(u32),
}

/// Packets and bytes.
pub type Counters = BTreeMap<Row, (u64, u64)>;

pub struct Node {
    pub plane: BpfDataPlane,
    pub world: World,
    links: Vec<String>,
    /// What is each flow's own, in each tunnel.
    flows: BTreeMap<(u32, Flow), (u16, u32)>,
    /// The last GRE sequence number that was sent, by tunnel.
    sent: BTreeMap<u32, u32>,
    tally: Counters,
    namespace: Namespace,
}

/// Frames that a case is about: what the program leaves of a frame, and which counters move by it.
struct Expected {
    action: u32,
    frame: Option<Vec<u8>>,
    moved: Counters,
}

impl Node {
    /// Empty maps, and no devices. None: not root.
    pub fn new(test: &str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let namespace = Namespace::enter(test)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let pins = PathBuf::from(format!("/sys/fs/bpf/mptmt-{}-{number}", std::process::id()));
        let mut node = Self {
            plane: BpfDataPlane::new(&pins),
            world: World::default(),
            links: Vec::new(),
            flows: BTreeMap::new(),
            sent: BTreeMap::new(),
            tally: Counters::new(),
            namespace,
        };
        let meta = abi::Meta { layout: abi::LAYOUT, ..Default::default() };
        let sizes = Sizes::each(|_| 16_384);
        node.plane
            .create(meta.as_bytes(), &sizes)
            .and_then(|()| node.plane.settle())
            .unwrap_or_else(|error| panic!("{error}: {:?}", error.hint));
        Some(node)
    }

    /// Makes a device with the program of its role attached, and gives it a slot.
    pub fn device(&mut self, name: &str, slot: u32, role: u32, table: u32, mac: Mac) -> u32 {
        let ifindex = self.namespace.veth(name);
        let program = match role {
            role::UNDERLAY => Program::Decap,
            role::WORKLOAD => Program::Encap,
            role::REDIRECT => Program::Redirect,
            _ => Program::Pass,
        };
        self.plane.attach(name, program, ifindex, Mode::Native, Via::Link).unwrap();
        self.links.push(name.into());
        self.world.devices.push((slot, ifindex));
        self.world.interfaces.push(Interface { ifindex, slot, role, table, to: 0, mac });
        ifindex
    }

    /// Writes the world into the maps.
    pub fn install(&mut self) {
        self.world.install(&mut self.plane);
    }

    /// Other tunnels, of the same ids.
    pub fn replace_tunnels(&mut self, tunnels: Vec<Tunnel>) {
        for endpoint in self.world.tunnels.iter().flat_map(Tunnel::endpoints) {
            self.plane.delete(Map::Endpoints, endpoint.as_bytes()).unwrap();
        }
        for tunnel in &self.world.tunnels {
            self.plane.delete(Map::Floods, tunnel.table.as_bytes()).unwrap();
        }
        self.world.tunnels = tunnels;
        self.world.install_tunnels(&mut self.plane);
        self.flows.clear();
    }

    pub fn run(&self, program: Program, ifindex: u32, frame: &[u8]) -> TestRun {
        self.plane.test_run(program, frame, ifindex).unwrap()
    }

    /// All counters that are not zero.
    pub fn counters(&self) -> Counters {
        let mut all = Counters::new();
        let mut add = |row, counter: abi::Counter| {
            if counter != abi::Counter::default() {
                all.insert(row, (counter.packets, counter.bytes));
            }
        };
        for program in Program::ALL {
            for action in 0..ACTIONS {
                add(
                    Row::Action(program, action),
                    self.counter(Map::Actions, program as u32 * ACTIONS + action),
                );
            }
        }
        assert_eq!(Program::ALL.len() as u32, PROGRAM_COUNT);
        for reason in Reason::ALL {
            add(Row::Drop(*reason), self.counter(Map::Drops, *reason as u32));
        }
        for id in self.world.tunnels.iter().map(|tunnel| tunnel.id) {
            let stats: abi::TunnelStats =
                self.sum(Map::TunnelStats, id, |total: &mut abi::TunnelStats, one| {
                    add_counter(&mut total.encap, one.encap);
                    add_counter(&mut total.decap, one.decap);
                });
            add(Row::Encap(id), stats.encap);
            add(Row::Decap(id), stats.decap);
        }
        all
    }

    fn counter(&self, map: Map, row: u32) -> abi::Counter {
        self.sum(map, row, add_counter)
    }

    fn sum<T: FromBytes + Default>(&self, map: Map, row: u32, add: impl Fn(&mut T, T)) -> T {
        let mut total = T::default();
        for value in self.plane.get_per_cpu(map, &row.to_ne_bytes()).unwrap() {
            add(&mut total, T::read_from_prefix(&value).expect("the map has this value").0);
        }
        total
    }

    /// Runs a frame and holds what comes of it against an outcome: the verdict, the frame, the slot, and that just the
    /// right counters moved. The oracle must be of the same mind.
    pub fn check(&mut self, name: &str, program: Program, ifindex: u32, frame: &[u8], outcome: &Outcome) {
        assert_eq!(
            self.world.judge(program, ifindex, frame),
            *outcome,
            "{name}: the oracle thinks otherwise"
        );
        if matches!(outcome, Outcome::Answer { reason: Some(_), .. }) {
            // A millisecond has one such answer; two are wanted.
            sleep(Duration::from_millis(3));
        }
        self.run_and_compare(&name, program, ifindex, frame, outcome);
        let tunnel_of = |id: &u32| self.world.tunnel(*id).expect("an outcome names a tunnel of the world");
        let slot = match outcome {
            Outcome::Pass | Outcome::Leave(_) | Outcome::Drop(_) | Outcome::Noted { .. } => None,
            Outcome::Forward { slot, .. } | Outcome::Answer { slot, .. } => Some(*slot),
            // The same sequence number again is another thing.
            Outcome::Decapsulated { tunnel, slot, .. } => {
                (!tunnel_of(tunnel).has_sequence()).then_some(*slot)
            }
            Outcome::Encapsulated { tunnel, .. } => {
                Some(tunnel_of(tunnel)).filter(|tunnel| !tunnel.stack).map(|tunnel| tunnel.slot)
            }
        };
        // Which slot a frame went to is not to be seen, but it can't go to one that is empty.
        if let Some(slot) = slot {
            let device = self.plane.get(Map::Devices, slot.as_bytes()).unwrap().expect("the slot was in use");
            self.plane.delete(Map::Devices, slot.as_bytes()).unwrap();
            let without = format!("{name}, slot {slot} empty");
            self.run_and_compare(&without, program, ifindex, frame, &Outcome::Drop(Reason::NoDevice));
            self.plane.put(Map::Devices, slot.as_bytes(), &device).unwrap();
        }
    }

    fn run_and_compare(
        &mut self,
        name: &dyn Display,
        program: Program,
        ifindex: u32,
        frame: &[u8],
        outcome: &Outcome,
    ) {
        for _ in 0..self.times(outcome) {
            let before = self.counters();
            let run = self.run(program, ifindex, frame);
            let expected = self.compare(name, program, ifindex, frame, outcome, &run);
            assert_eq!(difference(&before, &self.counters()), expected, "{name}: counters");
        }
    }

    /// How often a frame is run: the second time, its flow is known, if it is one that is kept. The outcome must be the
    /// same.
    fn times(&self, outcome: &Outcome) -> usize {
        match outcome {
            Outcome::Encapsulated { .. } => 2,
            // The same sequence number again is another thing.
            Outcome::Decapsulated { tunnel, .. } => {
                let tunnel = self.world.tunnel(*tunnel).expect("an outcome names a tunnel of the world");
                if tunnel.has_sequence() { 1 } else { 2 }
            }
            _ => 1,
        }
    }

    /// As `check`, but the counters are added up, to be looked at by `check_tally`: for many frames.
    pub fn tally(
        &mut self,
        name: &dyn Display,
        program: Program,
        ifindex: u32,
        frame: &[u8],
        outcome: &Outcome,
    ) {
        for _ in 0..self.times(outcome) {
            let run = self.run(program, ifindex, frame);
            // So many may be too big that not all of them are told so.
            let limited = Outcome::Drop(Reason::IcmpLimit);
            let is_limited = run.action == DROP && matches!(outcome, Outcome::Answer { reason: Some(_), .. });
            let outcome = if is_limited { &limited } else { outcome };
            self.tally_run(name, program, ifindex, frame, outcome, &run);
        }
    }

    /// As `tally`; the oracle must be of the same mind.
    pub fn tally_check(
        &mut self,
        name: &str,
        program: Program,
        ifindex: u32,
        frame: &[u8],
        outcome: &Outcome,
    ) {
        let judged = self.world.judge(program, ifindex, frame);
        assert_eq!(judged, *outcome, "{name}: the oracle thinks otherwise");
        self.tally(&name, program, ifindex, frame, outcome);
    }

    /// As `tally`, of a run that has been.
    pub fn tally_run(
        &mut self,
        name: &dyn Display,
        program: Program,
        ifindex: u32,
        frame: &[u8],
        outcome: &Outcome,
        run: &TestRun,
    ) {
        for (row, (packets, bytes)) in self.compare(name, program, ifindex, frame, outcome, run) {
            let total = self.tally.entry(row).or_default();
            *total = (total.0 + packets, total.1 + bytes);
        }
    }

    /// The counters are what all frames so far, run by `tally`, should have made of them.
    pub fn check_tally(&self) {
        assert_eq!(self.counters(), self.tally);
    }

    /// Holds a verdict and a frame against an outcome; returns how the counters should move.
    fn compare(
        &mut self,
        name: &dyn Display,
        program: Program,
        ifindex: u32,
        frame: &[u8],
        outcome: &Outcome,
        run: &TestRun,
    ) -> Counters {
        let expected = self.expect(name, program, ifindex, frame, outcome, run);
        assert_eq!(run.action, expected.action, "{name}: verdict; expected {outcome:02x?}\nfor {frame:02x?}");
        if let Some(out) = expected.frame {
            assert!(
                run.frame == out,
                "{name}: frame\n   in {frame:02x?}\n  out {:02x?}\nright {out:02x?}\n{outcome:02x?}",
                run.frame
            );
        }
        expected.moved
    }

    fn expect(
        &mut self,
        name: &dyn Display,
        program: Program,
        ifindex: u32,
        frame: &[u8],
        outcome: &Outcome,
        run: &TestRun,
    ) -> Expected {
        let size = |bytes: &[u8]| (1, bytes.len() as u64);
        let mut moved = Counters::new();
        let (action, frame_out) = match outcome {
            Outcome::Pass => (PASS, Some(frame.to_vec())),
            Outcome::Leave(reason) => {
                moved.insert(Row::Drop(*reason), size(frame));
                (PASS, Some(frame.to_vec()))
            }
            Outcome::Drop(reason) => {
                moved.insert(Row::Drop(*reason), size(frame));
                (DROP, None)
            }
            Outcome::Answer { frame: answer, reason, .. } => {
                if let Some(reason) = reason {
                    moved.insert(Row::Drop(*reason), size(frame));
                }
                (REDIRECT, Some(answer.clone()))
            }
            Outcome::Noted { tunnel, frame } => {
                if let Some(tunnel) = tunnel {
                    moved.insert(Row::Decap(*tunnel), size(frame));
                }
                // The note comes first; what is in it is between the two programs.
                let note = run.frame.get(..NOTE).unwrap_or_default();
                (PASS, Some([note, frame].concat()))
            }
            Outcome::Forward { frame, .. } => (REDIRECT, Some(frame.clone())),
            Outcome::Decapsulated { tunnel, frame, .. } => {
                moved.insert(Row::Decap(*tunnel), size(frame));
                (REDIRECT, Some(frame.clone()))
            }
            Outcome::Encapsulated { tunnel, inner } => {
                moved.insert(Row::Encap(*tunnel), size(frame));
                let own = self.own(name, *tunnel, inner, &run.frame);
                let tunnel = self.world.tunnel(*tunnel).expect("an outcome names a tunnel of the world");
                let mut out = tunnel.encode(inner, own);
                if tunnel.stack {
                    let own = self.world.interface(ifindex).expect("a device of the world").mac;
                    out[..6].copy_from_slice(&own);
                }
                (if tunnel.stack { PASS } else { REDIRECT }, Some(out))
            }
        };
        moved.insert(Row::Action(program, action), size(frame));
        Expected { action, frame: frame_out, moved }
    }

    /// Takes what is a packet's own from an outer frame: a source port of the tunnel's range, a flow label, both of which
    /// are the flow's, and a sequence number that was not yet.
    pub fn own(&mut self, name: &dyn Display, id: u32, inner: &[u8], outer: &[u8]) -> Own {
        let tunnel = self.world.tunnel(id).expect("a tunnel of the world");
        let own = tunnel.own(outer);
        let (first, count) = tunnel.ports;
        let range = u32::from(first)..u32::from(first) + count;
        let in_range = !tunnel.kind.has_udp() || range.contains(&u32::from(own.port));
        assert!(in_range, "{name}: source port {} is not in {range:?}", own.port);
        let has_sequence = tunnel.has_sequence();
        let flow = Inner::of_frame(inner).flow();
        let of_flow = (own.port, own.label);
        let first_seen = *self.flows.entry((id, flow)).or_insert(of_flow);
        assert_eq!(of_flow, first_seen, "{name}: the source port or flow label of {flow:?} changed");
        if has_sequence {
            let last = self.sent.insert(id, own.sequence);
            assert!(last.is_none_or(|last| last < own.sequence), "{name}: sequence numbers grow");
        }
        own
    }
}

fn add_counter(total: &mut abi::Counter, one: abi::Counter) {
    total.packets += one.packets;
    total.bytes += one.bytes;
}

/// The rows that moved.
pub fn difference(before: &Counters, after: &Counters) -> Counters {
    after
        .iter()
        .map(|(row, now)| {
            let then = before.get(row).copied().unwrap_or_default();
            (*row, (now.0 - then.0, now.1 - then.1))
        })
        .filter(|(_, moved)| *moved != (0, 0))
        .collect()
}

impl Drop for Node {
    fn drop(&mut self) {
        for link in &self.links {
            if let Err(error) = self.plane.detach(link) {
                eprintln!("left behind: {error}");
            }
        }
        if let Err(error) = self.plane.destroy() {
            eprintln!("left behind: {error}");
        }
    }
}
