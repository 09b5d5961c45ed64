//! mptm against Open vSwitch's userspace datapath, both ways. Its daemons run in the far node's namespace, with files of
//! their own, and end with the test.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::capture::installed;
use crate::kernel::nothing_but_groups_dropped;
use crate::matrix::{Carries, Row};
use crate::protocols::file;
use crate::site::{Family, Node, Site, attempt, ethtool, exec, finish};
use crate::traffic::carries;
use crate::world::{self, World, ip, soon};

const PROGRAMS: [&str; 5] = ["ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl"];
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A running Open vSwitch.
struct Ovs {
    directory: TempDir,
    daemons: Vec<u32>,
}

impl Drop for Ovs {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for what in ["dpctl/dump-flows -m", "ofproto/list-tunnels", "tnl/neigh/show", "coverage/show"] {
                let mut command = Command::new("ovs-appctl");
                command.arg("--target").arg(self.file("ovs-vswitchd.ctl")).args(what.split(' '));
                eprintln!("{what}: {}", finish(&mut command).unwrap_or_else(|said| said));
            }
            eprintln!("{}", self.said("ovs-vswitchd"));
        }
    }
}

impl Ovs {
    fn start(world: &mut World, node: &Node) -> Self {
        let mut ovs = Self { directory: TempDir::new().unwrap(), daemons: Vec::new() };
        let [database, socket] = ["conf.db", "db.sock"].map(|name| ovs.file(name));
        exec(&node.netns, "ovsdb-tool", &format!("create {database} {SCHEMA}"));
        ovs.daemon(world, node, "ovsdb-server", &[&database, &format!("--remote=punix:{socket}")]);
        assert!(soon(|| Path::new(&socket).exists()), "ovsdb-server: {}", ovs.said("ovsdb-server"));
        ovs.vsctl(node, "--no-wait init");
        ovs.daemon(world, node, "ovs-vswitchd", &[&format!("unix:{socket}")]);
        ovs
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().into()
    }

    fn daemon(&mut self, world: &mut World, node: &Node, program: &str, arguments: &[&str]) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", node.netns.path().display())).arg(program).args(arguments);
        command.args(["--no-chdir", "-vconsole:warn"]);
        command.arg(format!("--unixctl={}", self.file(&format!("{program}.ctl"))));
        command.arg(format!("--pidfile={}", self.file(&format!("{program}.pid"))));
        command.env("OVS_RUNDIR", self.directory.path()).stdout(Stdio::null());
        command.stderr(File::create(self.file(&format!("{program}.log"))).unwrap());
        self.daemons.push(world.spawn(&mut command));
    }

    fn said(&self, program: &str) -> String {
        std::fs::read_to_string(self.file(&format!("{program}.log"))).unwrap()
    }

    fn vsctl(&self, node: &Node, arguments: &str) {
        let arguments = format!("--db=unix:{} --timeout=30 {arguments}", self.file("db.sock"));
        attempt(&node.netns, "ovs-vsctl", &arguments)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.said("ovs-vswitchd")));
    }

    /// `ovs-ofctl` with arguments that have blanks in them, perhaps.
    fn ofctl(&self, node: &Node, arguments: &[&str]) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", node.netns.path().display())).args(["ovs-ofctl", "--timeout=30"]);
        command.args(arguments).env("OVS_RUNDIR", self.directory.path());
        finish(&mut command).unwrap_or_else(|error| panic!("{error}\n{}", self.said("ovs-vswitchd")));
    }

    fn end(mut self, world: &mut World) {
        for pid in std::mem::take(&mut self.daemons).into_iter().rev() {
            world.end(pid);
        }
    }
}

/// Options of the tunnel port `t`, beside `remote_ip`; none for tags, which are the business of ports.
fn port(row: &str) -> Option<&'static str> {
    Some(match row {
        "vlan" | "qinq" => return None,
        "vxlan" => "type=vxlan options:key=42",
        "geneve" | "geneve_options" => "type=geneve options:key=42",
        "gre" => "type=gre options:packet_type=legacy_l3",
        "gre_all" => "type=gre options:packet_type=legacy_l3 options:key=4000000000",
        "gretap" => "type=gre",
        "gretap_all" => "type=gre options:key=42",
        other => panic!("Open vSwitch does not speak {other}"),
    })
}

/// The flows of br-int, where c2 is port 1 and t is port 2; none: it learns. With them, only what bears the right
/// options comes in, and what goes out has others.
fn flows(row: &Row, container: &str) -> Vec<String> {
    let out = "in_port=1,actions=";
    match row.name {
        "geneve_options" => vec![
            "in_port=2,tun_metadata0=0x01020304,tun_metadata1=0x0a0b0c0d0e0f1011,actions=output:1".into(),
            format!("{out}set_field:0xfedcba98->tun_metadata0,set_field:0x1->tun_metadata1,output:2"),
        ],
        // What comes without an Ethernet header gets an empty one.
        _ if row.carries == Carries::Ip => {
            vec![
                format!("in_port=2,actions=set_field:{container}->eth_dst,output:1"),
                format!("{out}output:2"),
            ]
        }
        _ => Vec::new(),
    }
}

/// The options of the file's `geneve_options`, for Open vSwitch.
const OPTIONS: &str =
    "{class=0x0103,type=0x05,len=4}->tun_metadata0,{class=0xff01,type=0x80,len=8}->tun_metadata1";

/// A bridge on the wire, which has node 2's addresses for a protocol over IP.
fn underlay(site: &Site, ovs: &Ovs, row: &Row, outer: Family, option: &str) {
    let node = &site.nodes[1];
    let bridge = |name: &str| format!("add-br {name} -- set bridge {name} datapath_type=netdev");
    let Some(port) = port(row.name) else {
        let (wire, inside) = (bridge("br-phy"), bridge("br-int"));
        if row.name == "vlan" {
            ovs.vsctl(node, &format!("{wire} -- add-port br-phy u2 -- add-port br-phy c2 tag=42"));
            return;
        }
        // One bridge has the container in VLAN 42, the other puts all of that into service VLAN 7.
        ovs.vsctl(
            node,
            &format!(
                "set Open_vSwitch . other_config:vlan-limit=2 -- {wire} -- {inside} -- add-port br-phy u2 -- \
                 add-port br-int c2 tag=42 -- add-port br-int in -- set interface in type=patch options:peer=out -- \
                 add-port br-phy out vlan_mode=dot1q-tunnel tag=7 other_config:qinq-ethtype=802.1ad -- \
                 set interface out type=patch options:peer=in"
            ),
        );
        return;
    };
    ovs.vsctl(
        node,
        &format!(
            "{} -- add-port br-phy u2 -- {} -- add-port br-int c2 -- set interface c2 ofport_request=1 -- \
             add-port br-int t -- set interface t ofport_request=2 options:remote_ip={} {port} {option}",
            bridge("br-phy"),
            bridge("br-int"),
            outer.outer()[0]
        ),
    );
    // The userspace datapath finds its underlay by the addresses of br-phy, and takes what is sent to its MAC address: u2
    // itself may not answer for it.
    exec(&node.netns, "sysctl", "-qw net.ipv4.conf.u2.arp_ignore=1");
    ip(&format!("-n {} addr flush dev u2", node.name));
    ip(&format!("-n {} addr add {}/24 dev br-phy", node.name, Family::V4.outer()[1]));
    ip(&format!("-n {} addr add {}/64 dev br-phy nodad", node.name, Family::V6.outer()[1]));
    ip(&format!("-n {} link set br-phy up", node.name));
}

/// The cells of a protocol over an outer family, with both inner families.
pub fn against_ovs(row: &Row, outer: Family) {
    if !row.name.ends_with("_all") {
        return against_port(row, outer, "");
    }
    // Open vSwitch fills in the checksum before the sequence number, so that it is wrong with both.
    for (without, option) in
        [("\nsequence = true", "options:csum=true"), ("\nchecksum = true", "options:seq=true")]
    {
        let keys: &str = row.keys.replace(without, "").leak();
        against_port(&Row { keys, ..*row }, outer, option);
    }
}

/// The same with one more option of the tunnel port.
fn against_port(row: &Row, outer: Family, option: &str) {
    let title = format!("Open vSwitch's {}, over {outer:?}", row.name);
    if !installed(&title, "openvswitch-switch", &PROGRAMS) {
        return;
    }
    world::run(&title, |world, _| {
        let mut site = Site::new(world);
        let [c1, c2] = site.two_containers();
        site.add_ipv6(&[&c1, &c2]);
        let ovs = Ovs::start(site.world, &site.nodes[1]);
        underlay(&site, &ovs, row, outer, option);
        if row.name == "geneve_options" {
            ovs.ofctl(&site.nodes[1], &["add-tlv-map", "br-int", OPTIONS]);
        }
        for flow in flows(row, &c2.mac("eth0")) {
            ovs.ofctl(&site.nodes[1], &["add-flow", "br-int", &flow]);
        }
        // What a network card does, but no packet may be merged with another: Open vSwitch would pass it on as it is.
        site.wire(1);
        ethtool(&site.nodes[1].netns, "u2", "gro off");
        site.nodes[1].apply("[interface.u2]\nrole = \"pass\"\n");
        // And what Open vSwitch asks of containers behind its userspace datapath.
        ethtool(&c2.netns, "eth0", "tx off");
        let mtu = row.mtu(1500, outer).min(1450);
        exec(&c2.netns, "ip", &format!("link set eth0 mtu {mtu}"));
        if row.carries == Carries::Ip {
            // There is nobody at that end who would answer for addresses behind the tunnel.
            for family in Family::BOTH {
                let far = c1.at(family).address;
                exec(&c2.netns, "ip", &format!("neigh replace {far} lladdr {} dev eth0", c1.mac("eth0")));
            }
        }

        // A VLAN tag needs no room; the containers agree on an MTU all the same.
        site.nodes[0].apply(&format!("{}\nmtu = {mtu}\n", file(0, row, outer)));
        for family in Family::BOTH {
            let [c1, c2] = [c1.at(family), c2.at(family)];
            carries(&c1, &c2, mtu, || site.nodes[0].status());
            if row.carries == Carries::Ethernet {
                assert_eq!(c1.neighbour(c2.address), c2.mac("eth0"));
                assert_eq!(c2.neighbour(c1.address), c1.mac("eth0"));
            }
        }
        nothing_but_groups_dropped(&site.nodes[0].status());
        ovs.end(site.world);
    });
}
