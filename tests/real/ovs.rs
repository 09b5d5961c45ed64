//! mptm against Open vSwitch's userspace datapath, both ways. Its daemons run in the far node's namespace, with files of
//! their own, and end with the test.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::capture::installed;
use crate::site::{Node, OUTER, Site, attempt, ethtool, exec, usual};
use crate::traffic::{all_kinds, full_size};
use crate::world::{self, World, ip, soon};

const PROGRAMS: [&str; 4] = ["ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl"];
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A running Open vSwitch.
struct Ovs {
    directory: TempDir,
    daemons: Vec<u32>,
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

    fn end(self, world: &mut World) {
        for pid in self.daemons.into_iter().rev() {
            world.end(pid);
        }
    }
}

fn against_ovs(protocol: &str) {
    let title = format!("Open vSwitch's {protocol}");
    if !installed(&title, "openvswitch-switch", &PROGRAMS) {
        return;
    }
    world::run(&title, |world, _| {
        let mut site = Site::new(world);
        let [c1, c2] = site.two_containers();
        let node = &site.nodes[1];
        let ovs = Ovs::start(site.world, node);
        let bridge = |name: &str| format!("add-br {name} -- set bridge {name} datapath_type=netdev");
        if protocol == "vlan" {
            ovs.vsctl(
                node,
                &format!("{} -- add-port br-phy u2 -- add-port br-phy c2 tag=42", bridge("br-phy")),
            );
        } else {
            ovs.vsctl(
                node,
                &format!(
                    "{} -- add-port br-phy u2 -- {} -- add-port br-int c2 -- add-port br-int t -- set interface t \
                     type={protocol} options:remote_ip={} options:key=42",
                    bridge("br-phy"),
                    bridge("br-int"),
                    OUTER[0]
                ),
            );
            // The userspace datapath finds its underlay by the address of br-phy, and takes what is sent to its MAC
            // address: u2 itself may not answer for it.
            exec(&node.netns, "sysctl", "-qw net.ipv4.conf.u2.arp_ignore=1");
            ip(&format!("-n {} addr flush dev u2", node.name));
            ip(&format!("-n {} addr add {}/24 dev br-phy", node.name, OUTER[1]));
            ip(&format!("-n {} link set br-phy up", node.name));
        }
        // What a network card does, and what Open vSwitch asks of containers behind its userspace datapath.
        site.wire(1);
        ethtool(&c2.netns, "eth0", "tx off");
        exec(&c2.netns, "ip", "link set eth0 mtu 1450");

        // A VLAN tag needs no room; the containers agree on an MTU all the same.
        site.nodes[0].apply(&usual(0, &format!("protocol = \"{protocol}\"\nid = 42\nmtu = 1450")));
        all_kinds(&c1, &c2);
        full_size(&c1, &c2, || site.nodes[0].status());
        assert_eq!(c1.neighbour(c2.address), c2.mac("eth0"));
        assert_eq!(c2.neighbour(c1.address), c1.mac("eth0"));
        let status = site.nodes[0].status();
        assert!(status.drops().is_empty(), "{:?}", status.drops());
        ovs.end(site.world);
    });
}

#[test]
fn geneve() {
    against_ovs("geneve");
}

#[test]
fn vxlan() {
    against_ovs("vxlan");
}

#[test]
fn vlan() {
    against_ovs("vlan");
}
