//! A node in a namespace: a workload and an underlay, both veths whose far ends drop, and mptm between them.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::PathBuf;
use std::process::Command;

use libbpf_rs::ProgramHandle;
use mptm::kernel::abi::{self, ACTIONS, name_kind};
use mptm::kernel::linux::BpfDataPlane;
use mptm::kernel::{DataPlane, Map, Program};
use mptm::reason::Reason;
use zerocopy::{FromBytes, IntoBytes};

use crate::common::netns::Namespace;
use crate::floor::Floor;
use crate::tunnels::{Tunnel, UNDERLAY_MAC, WORKLOAD, WORKLOAD_MAC};

/// The underlay's, so that 1500 bytes fit into every tunnel.
const MTU: &str = "2000";

pub struct Site {
    pub plane: BpfDataPlane,
    pub floor: Floor,
    pub workload: u32,
    pub underlay: u32,
    programs: BTreeMap<Program, ProgramHandle>,
    ids: BTreeMap<String, u32>,
    directory: tempfile::TempDir,
    _namespace: Namespace,
}

/// What was counted of packets, by what.
pub type Counters = BTreeMap<String, u64>;

impl Site {
    /// Makes all of it; None, and a line on standard error: not root.
    pub fn new(tunnels: &[Tunnel]) -> Option<Self> {
        let namespace = Namespace::enter("benches/packets")?;
        let pins = PathBuf::from(format!("/sys/fs/bpf/mptm-bench-{}", std::process::id()));
        let mut floor = Floor::load();
        let mut device = |name: &str, mac: [u8; 6]| {
            let ifindex = namespace.veth(name);
            let peer = format!("{name}-peer");
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            // So that nothing but the bench's own frames arrives.
            let quiet = fs::write(format!("/proc/sys/net/ipv6/conf/{peer}/disable_ipv6"), "1");
            assert!(quiet.is_ok() || !fs::exists("/proc/sys/net/ipv6").unwrap_or(true), "{peer}: {quiet:?}");
            ip(&format!("link set {name} mtu {MTU}"));
            ip(&format!("link set {peer} mtu {MTU} up"));
            ip(&format!("link set {name} address {mac}"));
            floor.drop_at(nix::net::if_::if_nametoindex(peer.as_str()).expect("it was just made"));
            ifindex
        };
        let workload = device("red", [2, 0, 0, 0, 2, 1]);
        let underlay = device("underlay", UNDERLAY_MAC);
        ip("addr add 192.0.2.1/24 dev underlay");
        ip("addr add 2001:db8::ffff/64 dev underlay nodad");
        floor.send_to(underlay);
        let mut site = Self {
            plane: BpfDataPlane::new(&pins),
            floor,
            workload,
            underlay,
            programs: BTreeMap::new(),
            ids: BTreeMap::new(),
            directory: tempfile::tempdir().expect("a directory for temporary files"),
            _namespace: namespace,
        };
        site.apply(tunnels);
        Some(site)
    }

    fn mptm(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mptm"));
        command.arg("--pin").arg(self.plane.pin_dir()).arg("-c").arg(self.directory.path().join("mptm.toml"));
        command
    }

    fn apply(&mut self, tunnels: &[Tunnel]) {
        let mac = WORKLOAD_MAC.map(|byte| format!("{byte:02x}")).join(":");
        let mut file = format!(
            "[interface.underlay]\nrole = \"underlay\"\npeer = false\n\
             [interface.red]\nrole = \"workload\"\naddresses = [\"{WORKLOAD}\"]\nmac = \"{mac}\"\npeer = false\n"
        );
        file.extend(tunnels.iter().map(Tunnel::table));
        fs::write(self.directory.path().join("mptm.toml"), file).expect("a file of our own");
        let output = self.mptm().arg("apply").output().expect("cargo has built mptm");
        assert!(output.status.success(), "mptm apply: {}", String::from_utf8_lossy(&output.stderr));
        self.open_programs();
        let mut named = |key: &[u8], name: &[u8]| {
            let key = abi::NameKey::read_from_bytes(key).expect("a key of names");
            if key.kind == name_kind::TUNNEL {
                let text = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
                self.ids.insert(text, key.id);
            }
            Ok(())
        };
        self.plane.each_entry(Map::Names, &mut named).expect("apply has made the maps");
        assert_eq!(self.ids.len(), tunnels.len(), "each tunnel has its id: {:?}", self.ids);
    }

    /// Those that are pinned now.
    pub fn open_programs(&mut self) {
        for program in [Program::Encap, Program::Decap] {
            let pin = self.plane.pin_dir().join("programs").join(program.name());
            self.programs.insert(program, ProgramHandle::from_pinned_path(pin).expect("apply has pinned it"));
        }
    }

    pub fn program(&self, program: Program) -> RawFd {
        self.programs[&program].as_fd().as_raw_fd()
    }

    /// By its name.
    pub fn tunnel_id(&self, name: &str) -> u32 {
        self.ids[name]
    }

    /// What the program makes of one frame.
    pub fn outcome(&self, program: Program, ifindex: u32, frame: &[u8]) -> Vec<u8> {
        let run = self.plane.test_run(program, frame, ifindex).expect("the kernel runs it");
        assert_eq!(run.action, 4, "{}: XDP_REDIRECT for {frame:02x?}", program.name());
        run.frame
    }

    /// Packets that were counted since the programs were loaded; none that are zero.
    pub fn counters(&self) -> Counters {
        let mut all = Counters::new();
        for program in [Program::Encap, Program::Decap] {
            for action in 0..ACTIONS {
                let packets = self.packets(Map::Actions, program as u32 * ACTIONS + action, 0);
                all.insert(format!("{} action {action}", program.name()), packets);
            }
        }
        for reason in Reason::ALL {
            all.insert(format!("drop {reason:?}"), self.packets(Map::Drops, *reason as u32, 0));
        }
        for (name, id) in &self.ids {
            all.insert(format!("{name} encap"), self.packets(Map::TunnelStats, *id, 0));
            all.insert(format!("{name} decap"), self.packets(Map::TunnelStats, *id, 1));
        }
        all.retain(|_, packets| *packets > 0);
        all
    }

    /// Of the counter that is the `place`th in a row.
    fn packets(&self, map: Map, row: u32, place: usize) -> u64 {
        let rows = self.plane.get_per_cpu(map, row.as_bytes()).expect("the maps are pinned");
        let of = |row: Vec<u8>| {
            let at = &row[place * size_of::<abi::Counter>()..];
            abi::Counter::read_from_prefix(at).expect("the row has this counter").0.packets
        };
        rows.into_iter().map(of).sum()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.programs.clear();
        match self.mptm().arg("down").output() {
            Ok(output) if output.status.success() => {}
            other => eprintln!("left behind: {}: {other:?}", self.plane.pin_dir().display()),
        }
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
