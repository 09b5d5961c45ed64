//! Three nodes, each with tunnels to both others.

use std::thread;

use mptm::config::model::NetnsRef;

use crate::groups::{Member, v6};
use crate::site::{Family, Node, ethtool, exec, with_ipv6};
use crate::world::{World, ip, veth};

/// Three nodes on a switch: node N has the container aN with 10.250.1.N, node 1 also b1 with 10.250.1.11 in the same
/// segment, and o1 with 10.250.1.12 in another.
pub struct Mesh {
    pub nodes: Vec<Node>,
    pub members: Vec<Member>,
    pub other: Member,
    _switch: Node,
}

/// Packets that each tunnel of a node has sent and received.
#[derive(Debug)]
pub struct Traffic {
    pub sent: Vec<u64>,
    pub received: Vec<u64>,
}

/// The address of a node on the wire.
pub fn outer(family: Family, node: usize) -> String {
    match family {
        Family::V4 => format!("10.30.30.{node}"),
        Family::V6 => format!("fd30::{node}"),
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in &self.nodes {
                let mut command = node.mptm();
                let _ = command.arg("status").status();
            }
        }
    }
}

impl Mesh {
    pub fn new(world: &mut World) -> Self {
        let switch = Node::new(&world.netns("switch"));
        ip(&format!("-n {} link add br0 type bridge mcast_snooping 0", switch.name));
        ip(&format!("-n {} link set br0 up", switch.name));
        let mut ports = String::new();
        let mut nodes = Vec::new();
        for number in 1..=3 {
            let node = Node::new(&world.netns(&format!("node{number}")));
            let (device, port) = (format!("u{number}"), format!("p{number}"));
            veth(&node.name, &device, &switch.name, &port);
            ip(&format!("-n {} link set {port} master br0", switch.name));
            ethtool(&switch.netns, &port, "txvlan off tx-vlan-stag-hw-insert off");
            ip(&format!("-n {} addr add {}/24 dev {device}", node.name, outer(Family::V4, number)));
            ports += &format!("interface.{port}.role = \"pass\"\n");
            nodes.push(node);
        }
        switch.apply(&ports);
        let mut container = |node: usize, device: &str, last: u8| {
            let netns = world.netns(device);
            let home = &nodes[node - 1].name;
            ip(&format!("-n {home} link add {device} type veth peer name eth0 netns {netns}"));
            ip(&format!("-n {home} link set {device} up"));
            let netns = NetnsRef::Name(netns.as_str().into());
            exec(&netns, "sysctl", "-qw net.ipv6.conf.all.disable_ipv6=1");
            exec(&netns, "ip", &format!("addr add 10.250.1.{last}/24 brd + dev eth0"));
            exec(&netns, "ip", "link set eth0 up");
            Member { netns, device: "eth0", address: [10, 250, 1, last].into() }
        };
        let members =
            vec![container(1, "a1", 1), container(2, "a2", 2), container(3, "a3", 3), container(1, "b1", 11)];
        let other = container(1, "o1", 12);
        Self { nodes, members, other, _switch: switch }
    }

    /// From now on the containers have IPv6, too.
    pub fn with_ipv6(&self) {
        for member in &self.members {
            with_ipv6(&member.netns, "eth0");
            exec(&member.netns, "ip", &format!("addr add {}/64 dev eth0 nodad", member.v6()));
        }
    }

    /// The file of a node, with a tunnel to each other node; `tunnel` is the rest of the one to node N. Where that is
    /// one with VLAN tags, it leads to all of them.
    pub fn file(number: usize, tunnel: &dyn Fn(usize) -> String, mode: &str, family: Family) -> String {
        let workload = |name: &str, last: u8, segment: &str| {
            format!(
                "[interface.{name}]\nrole = \"workload\"\nmode = \"{mode}\"\nsegment = \"{segment}\"\n\
                 addresses = [\"10.250.1.{last}\", \"{}\"]\n",
                v6(last)
            )
        };
        let mut file = format!("[interface.u{number}]\nrole = \"underlay\"\nmode = \"{mode}\"\n");
        file += &workload(&format!("a{number}"), number as u8, "default");
        if number == 1 {
            file += &workload("b1", 11, "default");
            file += &workload("o1", 12, "other");
        }
        let behind = |other: usize| {
            let mut list = format!("\"10.250.1.{other}\", \"{}\"", v6(other as u8));
            if other == 1 {
                list += &format!(", \"10.250.1.11\", \"{}\"", v6(11));
            }
            list
        };
        let mut tagged = Vec::new();
        for other in (1..=3).filter(|other| *other != number) {
            let tunnel = tunnel(other);
            if tunnel.contains("\"vlan\"") || tunnel.contains("\"qinq\"") {
                tagged.push((behind(other), tunnel));
                continue;
            }
            file += &format!(
                "[tunnel.t{other}]\nremote = \"{}\"\ninner = [{}]\n{tunnel}\n",
                outer(family, other),
                behind(other)
            );
        }
        if let Some((_, tunnel)) = tagged.first() {
            let inner: Vec<&str> = tagged.iter().map(|(behind, _)| behind.as_str()).collect();
            file += &format!("[tunnel.t]\ninner = [{}]\n{tunnel}\n", inner.join(", "));
        }
        file
    }

    pub fn apply(&self, tunnel: &str, mode: &str, family: Family) {
        if family == Family::V6 {
            for (node, number) in self.nodes.iter().zip(1..) {
                let device = format!("u{number}");
                with_ipv6(&node.netns, &device);
                ip(&format!("-n {} addr add {}/64 dev {device} nodad", node.name, outer(family, number)));
            }
        }
        for (node, number) in self.nodes.iter().zip(1..) {
            node.apply(&Self::file(number, &|_| tunnel.into(), mode, family));
        }
    }

    pub fn traffic(&self, number: usize) -> Traffic {
        let status = self.nodes[number - 1].status();
        let tunnels = status.0["tunnels"].as_array().unwrap();
        let names: Vec<&str> = tunnels.iter().map(|tunnel| tunnel["name"].as_str().unwrap()).collect();
        Traffic {
            sent: names.iter().map(|name| status.sent(name)).collect(),
            received: names.iter().map(|name| status.received(name)).collect(),
        }
    }
}
