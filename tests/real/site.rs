//! Two nodes on a wire, with containers, and `mptm` run on them as an operator would.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use mptm::config::model::NetnsRef;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::{World, ip, soon, veth};

/// Addresses of the nodes on the wire, as their devices have them.
pub const OUTER: [&str; 2] = ["10.30.30.1", "10.30.30.2"];
/// The same where a test wants IPv6.
pub const OUTER6: [&str; 2] = ["fd30::1", "fd30::2"];
/// The devices at the wire's ends.
pub const UNDERLAY: [&str; 2] = ["u1", "u2"];

/// Runs a program in a namespace, for a minute at most, and returns what it printed; it must succeed.
pub fn exec(netns: &NetnsRef, program: &str, arguments: &str) -> String {
    attempt(netns, program, arguments).unwrap_or_else(|said| panic!("{said}"))
}

/// The same, or all that was said when it failed.
pub fn attempt(netns: &NetnsRef, program: &str, arguments: &str) -> Result<String, String> {
    let mut command = Command::new("timeout");
    command.args(["60", "nsenter", &format!("--net={}", netns.path().display()), program]);
    finish(command.args(arguments.split_whitespace()))
}

/// Runs a command to its end: what it printed, or all that it said when it failed.
pub fn finish(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        Ok(stdout.into_owned())
    } else {
        Err(format!("{command:?}: {}\n{stdout}{stderr}", output.status))
    }
}

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The addresses of the nodes on the wire.
    pub fn outer(self) -> [&'static str; 2] {
        match self {
            Self::V4 => OUTER,
            Self::V6 => OUTER6,
        }
    }
}

/// The IPv6 address that goes with an IPv4 address.
pub fn v6_of(address: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from(0xfd10 << 112 | u128::from(u32::from(address)))
}

/// No router solicitations and no neighbour discovery: a test counts its own packets only.
fn quiet(netns: &NetnsRef) {
    exec(netns, "sysctl", "-qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
}

/// IPv6 in a namespace with a device: addresses that are good at once, and nothing that is sent unasked but group
/// reports.
pub fn with_ipv6(netns: &NetnsRef, device: &str) {
    let all = ["accept_ra=0", "router_solicitations=0", "accept_dad=0", "dad_transmits=0", "disable_ipv6=0"];
    let of_each = |of| all.map(|setting| format!("net.ipv6.conf.{of}.{setting}")).join(" ");
    exec(netns, "sysctl", &format!("-qw {}", ["default", device, "all"].map(of_each).join(" ")));
}

/// Waits until all IPv6 addresses of a namespace are in use: the kernel gets there by way of a work queue.
pub fn settled(netns: &NetnsRef) {
    assert!(soon(|| exec(netns, "ip", "-6 addr show tentative").is_empty()));
}

fn name(netns: &str) -> NetnsRef {
    NetnsRef::Name(netns.into())
}

/// A node: a namespace in which mptm works.
pub struct Node {
    pub name: String,
    pub netns: NetnsRef,
    pin: PathBuf,
    directory: TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.pin.exists() {
            if std::thread::panicking() {
                let status = finish(self.mptm().arg("status"));
                eprintln!("{}", status.unwrap_or_else(|said| said));
            }
            let _ = finish(self.mptm().arg("down"));
            // What a failed `down` left; the links end with their pins.
            let _ = fs::remove_dir_all(&self.pin);
        }
    }
}

impl Node {
    /// Makes a namespace a node.
    pub fn new(netns: &str) -> Self {
        let node = Self {
            name: netns.into(),
            netns: name(netns),
            pin: Path::new("/sys/fs/bpf").join(netns),
            directory: TempDir::new().unwrap(),
        };
        quiet(&node.netns);
        node
    }

    /// A command line for this node, but for the command.
    pub fn mptm(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mptm"));
        command.args(["-n", &self.name]).arg("--pin").arg(&self.pin).arg("-c").arg(self.file());
        command
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("mptm.toml")
    }

    /// Applies a file, which must do without warnings; the plan that was carried out.
    pub fn apply(&self, text: &str) -> String {
        let (plan, said) = self.apply_and_listen(text);
        assert!(!said.contains("warning"), "{said}\n{text}");
        plan
    }

    fn apply_and_listen(&self, text: &str) -> (String, String) {
        fs::write(self.file(), text).unwrap();
        let output = self.mptm().arg("apply").output().unwrap();
        let [plan, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(output.status.success(), "{said}\n{text}");
        (plan, said)
    }

    /// Takes the data plane down, which must succeed.
    pub fn down(&self) {
        finish(self.mptm().arg("down")).unwrap_or_else(|said| panic!("{said}"));
        assert!(!self.pin.exists(), "{} is still there", self.pin.display());
    }

    /// It has dropped nothing.
    pub fn nothing_dropped(&self) {
        let status = self.status();
        assert!(status.drops().is_empty(), "{}: {:?}", self.name, status.drops());
    }

    /// What `mptm status --json` says, which must not be of drift.
    pub fn status(&self) -> Status {
        let text = finish(self.mptm().args(["status", "--json"])).unwrap_or_else(|said| panic!("{said}"));
        let status: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(status["drift_unknown"], Value::Null);
        assert_eq!(status["drift"], json!([]), "the kernel is as the file says");
        Status(status)
    }
}

/// `mptm status --json`.
pub struct Status(pub Value);

impl Status {
    /// What there is of an interface.
    pub fn interface(&self, name: &str) -> &Value {
        find(&self.0["interfaces"], name)
    }

    /// What there is of a tunnel.
    pub fn tunnel(&self, name: &str) -> &Value {
        find(&self.0["tunnels"], name)
    }

    /// Packets that a tunnel has sent.
    pub fn sent(&self, tunnel: &str) -> u64 {
        number(&self.tunnel(tunnel)["encap"]["packets"])
    }

    /// Bytes that a tunnel has sent.
    pub fn sent_bytes(&self, tunnel: &str) -> u64 {
        number(&self.tunnel(tunnel)["encap"]["bytes"])
    }

    /// Packets that a tunnel has received.
    pub fn received(&self, tunnel: &str) -> u64 {
        number(&self.tunnel(tunnel)["decap"]["packets"])
    }

    /// How often a program has ended in an action.
    pub fn action(&self, program: &str, action: &str) -> u64 {
        number(&self.0["actions"][program][action]["packets"])
    }

    /// The reasons for which packets were dropped, and how many; not those that passed to the host's stack.
    pub fn drops(&self) -> BTreeMap<&str, u64> {
        let mut all = self.counted();
        all.retain(|reason, _| !["stray", "oam", "group"].contains(reason));
        all
    }

    /// All reasons that were counted.
    pub fn counted(&self) -> BTreeMap<&str, u64> {
        let all = self.0["drops"].as_object().unwrap().iter();
        all.map(|(reason, count)| (reason.as_str(), number(&count["packets"])))
            .filter(|(_, packets)| *packets > 0)
            .collect()
    }
}

fn find<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found = list.as_array().unwrap().iter().find(|entry| entry["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list:#}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a number: {value}"))
}

/// The MAC address of a device.
pub fn mac(netns: &NetnsRef, device: &str) -> String {
    let text = exec(netns, "ip", &format!("-o link show dev {device}"));
    let mut words = text.split_whitespace().skip_while(|word| *word != "link/ether");
    words.nth(1).unwrap_or_else(|| panic!("no MAC address in {text}")).into()
}

/// A container: a namespace with an eth0, behind a veth of its node.
#[derive(Clone)]
pub struct Container {
    pub netns: NetnsRef,
    pub address: IpAddr,
}

impl Container {
    /// The MAC address of a device.
    pub fn mac(&self, device: &str) -> String {
        mac(&self.netns, device)
    }

    /// The same container by another address.
    pub fn with_address(&self, address: IpAddr) -> Self {
        Self { address, ..self.clone() }
    }

    /// The same container by its address of a family.
    pub fn at(&self, family: Family) -> Self {
        match (family, self.address) {
            (Family::V6, IpAddr::V4(address)) => Self { address: v6_of(address).into(), ..self.clone() },
            _ => self.clone(),
        }
    }

    /// The MAC address that its neighbour table has for another.
    pub fn neighbour(&self, address: IpAddr) -> String {
        let text = exec(&self.netns, "ip", &format!("neigh show {address}"));
        let mut words = text.split_whitespace().skip_while(|word| *word != "lladdr");
        words.nth(1).unwrap_or_else(|| panic!("no neighbour {address}: {text}")).into()
    }
}

/// Two nodes and what belongs to them.
pub struct Site<'a> {
    pub world: &'a mut World,
    pub nodes: [Node; 2],
}

impl<'a> Site<'a> {
    /// Two nodes, joined by a wire with an MTU of 1500.
    pub fn new(world: &'a mut World) -> Self {
        let nodes = [Node::new(&world.netns("node1")), Node::new(&world.netns("node2"))];
        veth(&nodes[0].name, UNDERLAY[0], &nodes[1].name, UNDERLAY[1]);
        Self::address(world, nodes)
    }

    /// Two nodes with a switch between them, where the wire can be listened to: u1 is at its p1, and u2 at its p2.
    /// mptm_pass makes the ports take what XDP redirects to them; no packet is merged with another, and a VLAN tag that
    /// leaves them is in the packet.
    pub fn with_switch(world: &'a mut World) -> (Self, Node) {
        let nodes = [Node::new(&world.netns("node1")), Node::new(&world.netns("node2"))];
        let switch = Node::new(&world.netns("switch"));
        ip(&format!("-n {} link add br0 type bridge mcast_snooping 0", switch.name));
        ip(&format!("-n {} link set br0 up", switch.name));
        for (node, device, port) in [(&nodes[0], UNDERLAY[0], "p1"), (&nodes[1], UNDERLAY[1], "p2")] {
            veth(&node.name, device, &switch.name, port);
            ip(&format!("-n {} link set {port} master br0", switch.name));
            ethtool(&switch.netns, port, "txvlan off tx-vlan-stag-hw-insert off");
        }
        switch.apply("interface.p1.role = \"pass\"\ninterface.p2.role = \"pass\"\n");
        (Self::address(world, nodes), switch)
    }

    fn address(world: &'a mut World, nodes: [Node; 2]) -> Self {
        for end in 0..2 {
            ip(&format!("-n {} addr add {}/24 dev {}", nodes[end].name, OUTER[end], UNDERLAY[end]));
        }
        Self { world, nodes }
    }

    /// A container of a node with an address of 10.250.1.0/24, say, behind a veth called `device`.
    pub fn container(&mut self, node: usize, device: &str, address: &str) -> Container {
        let netns = self.world.netns(device);
        ip(&format!("-n {} link add {device} type veth peer name eth0 netns {netns}", self.nodes[node].name));
        self.furnish(node, device, name(&netns), address)
    }

    /// The same in a namespace that belongs to a process.
    pub fn container_of_process(&mut self, node: usize, device: &str, address: &str) -> (Container, u32) {
        let pid = self.world.process_in_anonymous_netns();
        ip(&format!("-n {} link add {device} type veth peer name eth0 netns {pid}", self.nodes[node].name));
        (self.furnish(node, device, NetnsRef::Pid(pid), address), pid)
    }

    fn furnish(&self, node: usize, device: &str, netns: NetnsRef, address: &str) -> Container {
        quiet(&netns);
        ip(&format!("-n {} link set {device} up", self.nodes[node].name));
        exec(&netns, "ip", "link set lo up");
        exec(&netns, "ip", &format!("addr add {address}/24 dev eth0"));
        exec(&netns, "ip", "link set eth0 up");
        Container { netns, address: address.parse().unwrap() }
    }

    /// A container on each node: 10.250.1.1 behind c1, and 10.250.1.2 behind c2.
    pub fn two_containers(&mut self) -> [Container; 2] {
        [self.container(0, "c1", "10.250.1.1"), self.container(1, "c2", "10.250.1.2")]
    }

    /// IPv6 on both nodes and in the containers, beside the IPv4 that they have.
    pub fn add_ipv6(&self, containers: &[&Container]) {
        for end in 0..2 {
            with_ipv6(&self.nodes[end].netns, UNDERLAY[end]);
            let (node, device) = (&self.nodes[end].name, UNDERLAY[end]);
            ip(&format!("-n {node} addr add {}/64 dev {device}", OUTER6[end]));
        }
        for container in containers {
            with_ipv6(&container.netns, "eth0");
            let address = container.at(Family::V6).address;
            exec(&container.netns, "ip", &format!("addr add {address}/120 dev eth0"));
            settled(&container.netns);
        }
        self.nodes.iter().for_each(|node| settled(&node.netns));
    }

    /// The node without mptm takes what XDP redirects to its end of the wire, and leaves nothing to hardware that a
    /// real network card would have done before the packet is on the wire: checksums, segments, VLAN tags.
    pub fn wire(&self, node: usize) {
        ethtool(
            &self.nodes[node].netns,
            UNDERLAY[node],
            "gro on tx off txvlan off tx-vlan-stag-hw-insert off",
        );
    }

    /// Applies the usual files: `tunnel` is the rest of a tunnel `t` to the other node's container.
    pub fn apply(&self, tunnel: &str) {
        for node in 0..2 {
            self.nodes[node].apply(&usual(node, tunnel));
        }
    }

    /// No node has dropped anything.
    pub fn nothing_dropped(&self) {
        self.nodes.iter().for_each(Node::nothing_dropped);
    }
}

/// The file of a node with the container of `two_containers`, and a tunnel `t` to the other's.
pub fn usual(node: usize, tunnel: &str) -> String {
    let (own, other) = (node + 1, 2 - node);
    let remote = if tunnel.contains("\"vlan\"") { String::new() } else { remote(node) };
    format!(
        "[interface.u{own}]\nrole = \"underlay\"\n\
         [interface.c{own}]\nrole = \"workload\"\naddresses = [\"10.250.1.{own}\"]\n\
         [tunnel.t]\ninner = [\"10.250.1.{other}\"]\n{remote}\n{tunnel}\n"
    )
}

/// The `remote` of a tunnel of a node.
pub fn remote(node: usize) -> String {
    format!("remote = \"{}\"", OUTER[1 - node])
}

/// Changes offloads by hand.
pub fn ethtool(netns: &NetnsRef, device: &str, features: &str) {
    exec(netns, "ethtool", &format!("-K {device} {features}"));
}
