//! mptm against what one would pick instead: `cargo bench --bench peers`, as root.
//!
//! Two nodes and two containers, all of them namespaces, joined by VXLAN: by mptm, by the kernel's vxlan device and a
//! bridge, and by Open vSwitch's userspace datapath. From container to container: UDP in Ethernet frames of 64 bytes, a TCP
//! stream at MTUs of 1500 and 9000 bytes, and TCP requests and responses of one byte. The first stream runs again with the
//! containers' segmentation off, so that each packet goes by itself, as it would on a cable, whatever the way.
//! The ways take turns within each round.
//! MPTM_BENCH=short only sees to it that all of it runs.

#[path = "../common/mod.rs"]
mod common;
mod traffic;
#[path = "../../tests/common/world.rs"]
#[allow(dead_code, reason = "it has what tests need, too")]
mod world;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::stats::{median, percentile};
use common::table::Table;
use tempfile::TempDir;
use world::{World, ip, soon, veth};

/// Room for 9000 bytes and the outer header.
const WIRE_MTU: u32 = 9100;
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Mptm,
    Kernel,
    OpenVswitch,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Mptm => "mptm",
            Self::Kernel => "kernel vxlan + bridge",
            Self::OpenVswitch => "Open vSwitch, userspace",
        }
    }
}

/// Two nodes and their containers.
struct Site {
    way: Way,
    nodes: [String; 2],
    containers: [String; 2],
    directory: TempDir,
}

/// What is measured, each with its unit.
const KINDS: [&str; 6] = [
    "UDP 64 bytes, kpps",
    "TCP MTU 1500, Gbit/s",
    "the same, packet by packet",
    "TCP MTU 9000, Gbit/s",
    "TCP RR p50, µs",
    "TCP RR p99, µs",
];

fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg(program);
    command
}

/// Runs a command that must succeed; what it prints.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

impl Site {
    fn new(world: &mut World, way: Way) -> Self {
        let nodes = [world.netns("n1"), world.netns("n2")];
        let containers = [world.netns("c1"), world.netns("c2")];
        let [one, two] = &nodes;
        veth(one, "u0", two, "u0");
        for (at, (node, container)) in nodes.iter().zip(&containers).enumerate() {
            let number = at + 1;
            veth(node, "c0", container, "eth0");
            ip(&format!("-n {node} link set u0 mtu {WIRE_MTU}"));
            ip(&format!("-n {node} addr add 192.0.2.{number}/24 dev u0"));
            ip(&format!("-n {node} link set c0 mtu 9000"));
            ip(&format!("-n {container} link set eth0 mtu 9000"));
            ip(&format!("-n {container} addr add 10.0.0.{number}/24 dev eth0"));
        }
        let site = Self { way, nodes, containers, directory: TempDir::new().expect("a temporary directory") };
        for number in [1, 2] {
            match way {
                Way::Mptm => site.mptm(number),
                Way::Kernel => site.kernel(number),
                Way::OpenVswitch => site.open_vswitch(world, number),
            }
        }
        let answers = || {
            let status = inside(&site.containers[0], "ping")
                .args(["-c1", "-W1", "10.0.0.2"])
                .stdout(Stdio::null())
                .status();
            status.is_ok_and(|status| status.success())
        };
        assert!(soon(answers), "{}: the containers do not reach each other", way.name());
        site
    }

    fn pin(&self, number: usize) -> String {
        format!("/sys/fs/bpf/mptm-peers-{}-{number}", std::process::id())
    }

    fn mptm(&self, number: usize) {
        let other = 3 - number;
        let file = self.directory.path().join(format!("{number}.toml"));
        let text = format!(
            "[interface.u0]\nrole = \"underlay\"\n\
             [interface.c0]\nrole = \"workload\"\naddresses = [\"10.0.0.{number}\"]\n\
             peer = {{ netns = \"{}\", name = \"eth0\" }}\nmanage = [\"offloads\"]\n\
             [tunnel.other]\nprotocol = \"vxlan\"\nid = 42\nremote = \"192.0.2.{other}\"\ninner = [\"10.0.0.{other}\"]\n",
            self.containers[number - 1]
        );
        fs::write(&file, text).expect("a file of our own");
        let node = &self.nodes[number - 1];
        said(
            inside(node, env!("CARGO_BIN_EXE_mptm"))
                .args(["--pin", &self.pin(number), "-c"])
                .arg(&file)
                .arg("apply"),
        );
    }

    fn kernel(&self, number: usize) {
        let (node, other) = (&self.nodes[number - 1], 3 - number);
        ip(&format!("-n {node} link add br0 type bridge"));
        ip(&format!(
            "-n {node} link add vx type vxlan id 42 local 192.0.2.{number} remote 192.0.2.{other} dstport 4789"
        ));
        for port in ["vx", "c0"] {
            ip(&format!("-n {node} link set {port} mtu 9000"));
            ip(&format!("-n {node} link set {port} master br0 up"));
        }
        ip(&format!("-n {node} link set br0 up"));
    }

    fn open_vswitch(&self, world: &mut World, number: usize) {
        let (node, other) = (&self.nodes[number - 1], 3 - number);
        let file = |name: &str| self.directory.path().join(format!("{number}-{name}")).display().to_string();
        let (database, socket) = (file("conf.db"), file("db.sock"));
        said(inside(node, "ovsdb-tool").args(["create", &database, SCHEMA]));
        let mut daemon = |program: &str, arguments: &[&str]| {
            let log = File::create(file(&format!("{program}.log"))).expect("a file of our own");
            let mut command = inside(node, program);
            command.args(arguments).args(["--no-chdir", "-vconsole:warn"]);
            command.arg(format!("--unixctl={}", file(&format!("{program}.ctl"))));
            command.env("OVS_RUNDIR", self.directory.path()).stdout(Stdio::null()).stderr(log);
            world.spawn(&mut command);
        };
        daemon("ovsdb-server", &[&database, &format!("--remote=punix:{socket}")]);
        assert!(soon(|| Path::new(&socket).exists()), "ovsdb-server does not start");
        let vsctl = |arguments: &str| {
            let mut command = inside(node, "ovs-vsctl");
            command.arg(format!("--db=unix:{socket}")).args(arguments.split(' '));
            said(&mut command);
        };
        vsctl("--no-wait init");
        daemon("ovs-vswitchd", &[&format!("unix:{socket}")]);
        // Where segments are made by the sender's card, its sums are not there yet.
        for container in &self.containers {
            said(inside(container, "ethtool").args(["-K", "eth0", "tx", "off", "tso", "off", "gso", "off"]));
        }
        vsctl(&format!(
            "add-br br-phy -- set bridge br-phy datapath_type=netdev -- add-port br-phy u0 -- add-br br-int -- \
             set bridge br-int datapath_type=netdev -- add-port br-int c0 -- add-port br-int vx -- \
             set interface vx type=vxlan options:key=42 options:remote_ip=192.0.2.{other}"
        ));
        // The bridge is the wire's address now.
        ip(&format!("-n {node} addr del 192.0.2.{number}/24 dev u0"));
        ip(&format!("-n {node} addr add 192.0.2.{number}/24 dev br-phy"));
        ip(&format!("-n {node} link set br-phy mtu {WIRE_MTU} up"));
    }

    /// Whether the containers' devices take segments from the stack, as `ethtool -K` wants it. (Generic receive offload
    /// stays: without it a veth does not take what XDP sends to it.)
    fn offloads(&self) -> [Vec<String>; 2] {
        let names = [("tcp-segmentation-offload", "tso"), ("generic-segmentation-offload", "gso")];
        self.containers.each_ref().map(|container| {
            let text = said(inside(container, "ethtool").args(["-k", "eth0"]));
            let state = |name| {
                let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                line.and_then(|state| state.split(' ').next()).unwrap_or("off").to_owned()
            };
            names.iter().flat_map(|(long, short)| [(*short).to_owned(), state(*long)]).collect()
        })
    }

    /// Some are fixed where there is an XDP program: what can't be changed stays.
    fn set_offloads(&self, states: &[Vec<String>; 2]) {
        for (container, states) in self.containers.iter().zip(states) {
            for state in states.chunks(2) {
                let mut ethtool = inside(container, "ethtool");
                ethtool.args(["-K", "eth0"]).args(state).stdout(Stdio::null()).stderr(Stdio::null());
                let _ = ethtool.status();
            }
        }
    }

    fn mtu(&self, mtu: u32) {
        for container in &self.containers {
            ip(&format!("-n {container} link set eth0 mtu {mtu}"));
        }
    }

    /// In the order of KINDS.
    fn measure(&self, seconds: u32) -> [f64; KINDS.len()] {
        let ends = (&*self.containers[0], &*self.containers[1]);
        let length = Duration::from_secs(seconds.into());
        self.mtu(1500);
        let packets = traffic::datagrams(ends, length) / 1e3;
        let trips = traffic::round_trips(ends, length);
        let stream = traffic::stream(ends, seconds) / 1e9;
        let before = self.offloads();
        let off = || ["tso", "off", "gso", "off"].map(String::from).to_vec();
        self.set_offloads(&[off(), off()]);
        let single = traffic::stream(ends, seconds) / 1e9;
        self.set_offloads(&before);
        self.mtu(9000);
        let jumbo = traffic::stream(ends, seconds) / 1e9;
        [packets, stream, single, jumbo, percentile(&trips, 50.0), percentile(&trips, 99.0)]
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.way != Way::Mptm {
            return;
        }
        for number in [1, 2] {
            let file = self.directory.path().join(format!("{number}.toml"));
            let mut down = inside(&self.nodes[number - 1], env!("CARGO_BIN_EXE_mptm"));
            let status = down
                .args(["--pin", &self.pin(number), "-c"])
                .arg(file)
                .arg("down")
                .stdout(Stdio::null())
                .status();
            if !status.is_ok_and(|status| status.success()) {
                eprintln!("left behind: {}", self.pin(number));
            }
        }
    }
}

fn main() {
    let (rounds, seconds) = if common::is_short() { (1, 1) } else { (5, 2) };
    world::run("benches/peers", |world, _| {
        let mut ways = vec![Way::Mptm, Way::Kernel];
        if Path::new(SCHEMA).exists() {
            ways.push(Way::OpenVswitch);
        } else {
            eprintln!("SKIPPED (needs openvswitch-switch): {}", Way::OpenVswitch.name());
        }
        let sites: Vec<Site> = ways.iter().map(|way| Site::new(world, *way)).collect();
        let mut results = vec![Vec::new(); sites.len()];
        for _ in 0..rounds {
            for (site, results) in sites.iter().zip(&mut results) {
                results.push(site.measure(seconds));
            }
        }
        println!("{rounds} rounds of {seconds} s for each figure; medians\n");
        let mut heading = vec!["container to container".to_owned()];
        heading.extend(ways.iter().map(|way| way.name().to_owned()));
        heading.extend(ways.iter().skip(1).map(|way| format!("mptm / {}", way.name())));
        let mut table = Table::new(&heading.iter().map(String::as_str).collect::<Vec<_>>());
        for (kind, name) in KINDS.iter().enumerate() {
            let of: Vec<f64> = results
                .iter()
                .map(|rounds| median(&rounds.iter().map(|row| row[kind]).collect::<Vec<_>>()))
                .collect();
            let mut cells = vec![(*name).to_owned()];
            cells.extend(of.iter().map(|value| format!("{value:.1}")));
            cells.extend(of.iter().skip(1).map(|other| format!("{:.2}", of[0] / other)));
            table.row(cells);
        }
        table.print();
    });
}
