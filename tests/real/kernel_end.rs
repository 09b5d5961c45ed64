//! A far end of the kernel's own.

use std::io::{self, Write};

use mptm::config::model::NetnsRef;

use crate::site::{Container, Family, Site, UNDERLAY, attempt, exec, v6_of};
use crate::world::ip;

/// The kernel's device for a protocol on node 2, called tun0, for the tunnel `t` with id 42. None, loudly, where the
/// kernel was built without.
pub fn device(site: &Site, protocol: &str) -> Option<()> {
    device_over(site, protocol, Family::V4, 1450)
}

/// The same for a row of the matrix, over an outer family.
pub fn device_over(site: &Site, row: &str, outer: Family, mtu: u64) -> Option<()> {
    let ([here, there], node) = (outer.outer(), &site.nodes[1]);
    let underlay = UNDERLAY[1];
    let ends = format!("local {there} remote {here}");
    let (v4, all) = (outer == Family::V4, "ikey 42 okey 42 icsum ocsum iseq oseq");
    let add = match row {
        "vxlan" => format!("name tun0 type vxlan id 42 {ends} dstport 4789"),
        "vxlan_gbp" => format!("name tun0 type vxlan id 42 {ends} dstport 4789 gbp"),
        "geneve" => format!("name tun0 type geneve id 42 remote {here}"),
        "geneve_ip" => format!("name tun0 type geneve id 42 remote {here} innerprotoinherit"),
        "vlan" => format!("link {underlay} name tun0 type vlan id 42"),
        "qinq" => format!("link {underlay} name outer0 type vlan id 7 protocol 802.1ad"),
        "gre" => format!("name tun0 type {} {ends}", if v4 { "gre" } else { "ip6gre" }),
        "gre_all" => format!(
            "name tun0 type {} {ends} {}",
            if v4 { "gre" } else { "ip6gre" },
            all.replace("42", "4000000000")
        ),
        "gretap" => format!("name tun0 type {} {ends}", if v4 { "gretap" } else { "ip6gretap" }),
        "gretap_all" => format!("name tun0 type {} {ends} {all}", if v4 { "gretap" } else { "ip6gretap" }),
        other => panic!("no kernel device for {other}"),
    };
    if !has_device(&node.netns, &add) {
        return None;
    }
    if row == "qinq" {
        ip(&format!("-n {} link set outer0 up", node.name));
        ip(&format!("-n {} link add link outer0 name tun0 type vlan id 42", node.name));
    }
    ip(&format!("-n {} link set tun0 up mtu {mtu}", node.name));
    Some(())
}

/// The same with the far inner address 10.250.1.2 on it: node 2 stands for a container of its own.
pub fn addressed(site: &Site, protocol: &str) -> Option<Container> {
    device(site, protocol)?;
    Some(address(site, "tun0", "/24"))
}

/// Gives a device of node 2 the far inner address.
fn address(site: &Site, device: &str, length: &str) -> Container {
    ip(&format!("-n {} addr add 10.250.1.2{length} dev {device}", site.nodes[1].name));
    Container { netns: site.nodes[1].netns.clone(), address: [10, 250, 1, 2].into() }
}

/// The far end of a row with both inner families, with IPv6 on node 2 already.
pub fn addressed_over(site: &Site, row: &str, outer: Family, mtu: u64) -> Option<Container> {
    let mut v6_device = "tun0";
    if row == "ipip" {
        // One device for each inner family.
        let ends = format!("local {} remote {}", outer.outer()[1], outer.outer()[0]);
        for (device, kind) in [("tun0", "ipip"), ("tun1", "sit")] {
            if !has_device(&site.nodes[1].netns, &format!("name {device} type {kind} {ends}")) {
                return None;
            }
            ip(&format!("-n {} link set {device} up mtu {mtu}", site.nodes[1].name));
        }
        v6_device = "tun1";
    } else {
        device_over(site, row, outer, mtu)?;
    }
    let far = address(site, "tun0", "/24");
    let address = far.at(Family::V6).address;
    ip(&format!("-n {} addr add {address}/120 dev {v6_device} nodad", site.nodes[1].name));
    Some(far)
}

/// Where node 2 takes packets of segment routing: a network behind it, an address for each inner family.
pub const SEGMENTS: [&str; 2] = ["fd31::4", "fd31::6"];

/// Linux's segment routing on node 2, for an inner family: with one segment and `mode` encap.red it is plain IP in IPv6
/// (RFC 8986, 5.2), with `mode` encap it has a routing header without segments left. Node 1 knows the way to `SEGMENTS`.
pub fn segment_routing(site: &Site, inner: Family, mode: &str) -> Container {
    let [near, node] = site.nodes.each_ref().map(|node| &node.netns);
    let (segment, action, far, remote) = match inner {
        Family::V4 => {
            (SEGMENTS[0], "End.DX4 nh4 10.250.1.2", "10.250.1.2/32".to_owned(), "10.250.1.1".into())
        }
        Family::V6 => {
            let [far, near] = [[10, 250, 1, 2], [10, 250, 1, 1]].map(|address| v6_of(address.into()));
            (SEGMENTS[1], "End.DT6 table local", format!("{far}/128"), near.to_string())
        }
    };
    exec(near, "ip", &format!("route replace fd31::/64 via {}", Family::V6.outer()[1]));
    exec(node, "sysctl", "-qw net.ipv6.conf.all.forwarding=1 net.ipv4.ip_forward=1");
    exec(node, "ip", &format!("addr replace {far} dev lo"));
    exec(node, "ip", &format!("sr tunsrc set {segment}"));
    exec(node, "ip", &format!("-6 route replace {segment}/128 encap seg6local action {action} dev u2"));
    let source = far.split('/').next().unwrap();
    let segments = format!("encap seg6 mode {mode} segs {}", Family::V6.outer()[0]);
    exec(node, "ip", &format!("route replace {remote} {segments} dev u2 src {source}"));
    Container { netns: node.clone(), address: source.parse().unwrap() }
}

/// Adds a device; false, loudly, where the kernel was built without its kind.
pub fn has_device(netns: &NetnsRef, add: &str) -> bool {
    match attempt(netns, "ip", &format!("link add {add}")) {
        Ok(_) => true,
        Err(said) if said.contains("Unknown device type") => {
            // Not eprintln: the test harness would swallow it.
            let _ = writeln!(io::stderr(), "SKIPPED (needs the kernel's device): ip link add {add}");
            false
        }
        Err(said) => panic!("{said}"),
    }
}
