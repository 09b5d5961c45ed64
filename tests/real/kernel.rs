//! mptm against the kernel's own tunnel devices, both ways. The far node has no mptm, and its end of the wire does what
//! a network card does.

use crate::kernel_end::{SEGMENTS, addressed, addressed_over, device, segment_routing};
use crate::matrix::{Carries, Row};
use crate::protocols::file;
use crate::site::{Container, Family, Site, Status, ethtool, exec, usual};
use crate::traffic::{all_kinds, carries_up_to, full_size, no_ping, ping_full, ping_with, tcp, udp};
use crate::world::{self, ip};

/// The cells of a protocol over an outer family, with both inner families.
pub fn against_kernel(row: &Row, outer: Family) {
    world::run(&format!("the kernel's {}, over {outer:?}", row.name), |world, _| {
        let mut site = Site::new(world);
        let c1 = site.container(0, "c1", "10.250.1.1");
        site.wire(1);
        site.add_ipv6(&[&c1]);
        if row.name == "ipip" && outer == Family::V6 {
            return against_segment_routing(&site, row, &c1);
        }
        let mtu = row.mtu(1500, outer);
        let Some(far) = addressed_over(&site, row.name, outer, mtu) else { return };
        site.nodes[0].apply(&file(0, row, outer));
        for family in Family::BOTH {
            let [c1, far] = [c1.at(family), far.at(family)];
            carries_up_to(&c1, &far, [mtu, mtu - kept_free(row, outer)], || site.nodes[0].status());
            if row.carries == Carries::Ethernet {
                assert_eq!(c1.neighbour(far.address), far.mac("tun0"));
                assert_eq!(far.neighbour(c1.address), c1.mac("eth0"));
            }
            if row.name == "vxlan_gbp" {
                // Linux sends a packet's mark as its group, and none without a mark.
                ping_with(&far.netns, c1.address, 56, "-m 4660");
            }
        }
        nothing_but_groups_dropped(&site.nodes[0].status());
    });
}

/// What Linux's devices take less than would fit, in bytes: geneve's keeps room for an Ethernet header in any case, and
/// those of GRE over IPv6 put destination options with an encapsulation limit before it (RFC 2473, 4.1.1).
fn kept_free(row: &Row, outer: Family) -> u64 {
    match (row.name, outer) {
        ("geneve_ip", _) => 14,
        ("gre" | "gre_all" | "gretap" | "gretap_all", Family::V6) => 8,
        _ => 0,
    }
}

/// The group reports of the far end's own device come in by the tunnel, which has no `flood`.
pub fn nothing_but_groups_dropped(status: &Status) {
    let mut drops = status.drops();
    drops.remove("inner-group");
    assert!(drops.is_empty(), "{drops:?}");
}

/// IP in IPv6, without and with a routing header that has no segments left.
fn against_segment_routing(site: &Site, row: &Row, c1: &Container) {
    // Linux keeps room for a routing header of one segment, needed or not.
    let far_mtu = row.mtu(1500, Family::V6) - 24;
    for (family, segment) in Family::BOTH.into_iter().zip(SEGMENTS) {
        for mode in ["encap.red", "encap"] {
            let far = segment_routing(site, family, mode);
            site.nodes[0].apply(&file(0, row, Family::V6).replace(Family::V6.outer()[1], segment));
            let c1 = c1.at(family);
            for (from, to) in [(&c1, &far), (&far, &c1)] {
                ping_full(&from.netns, to.address, far_mtu);
                // This Linux fragments what is too big outside, not inside.
                udp(from, to, 1200);
                tcp(&from.netns, &to.netns, to.address, 2 << 20);
            }
            let received = site.nodes[0].status().received("t");
            assert!(received > 1000, "{received} packets, {mode}");
        }
    }
    nothing_but_groups_dropped(&site.nodes[0].status());
}

#[test]
fn vxlan_under_a_bridge() {
    world::run("the kernel's vxlan under a bridge", |world, _| {
        let mut site = Site::new(world);
        let [c1, c2] = site.two_containers();
        site.wire(1);
        if device(&site, "vxlan").is_none() {
            return;
        }
        let node = site.nodes[1].name.clone();
        ip(&format!("-n {node} link add br0 type bridge mcast_snooping 0"));
        ip(&format!("-n {node} link set br0 up"));
        for member in ["tun0", "c2"] {
            ip(&format!("-n {node} link set {member} master br0"));
        }
        // The far node is no concern of mptm's.
        exec(&c2.netns, "ip", "link set eth0 mtu 1450");
        site.nodes[0].apply(&usual(0, "protocol = \"vxlan\"\nid = 42"));
        all_kinds(&c1, &c2);
        full_size(&c1, &c2, || site.nodes[0].status());
        assert_eq!(c1.neighbour(c2.address), c2.mac("eth0"));
        let status = site.nodes[0].status();
        assert!(status.drops().is_empty(), "{:?}", status.drops());
    });
}

/// Where the wire is a veth, its far end can be a peer like a container's: then nothing is done by hand there, either.
#[test]
fn vxlan_with_the_underlays_peer() {
    world::run("the underlay's peer", |world, _| {
        let mut site = Site::new(world);
        let c1 = site.container(0, "c1", "10.250.1.1");
        let Some(far) = addressed(&site, "vxlan") else { return };
        let file = usual(0, "protocol = \"vxlan\"\nid = 42");
        site.nodes[0].apply(&with_peer(&file, &site.nodes[1].name, "u2"));
        all_kinds(&c1, &far);
        let status = site.nodes[0].status();
        assert!(status.drops().is_empty(), "{:?}", status.drops());

        let features = || exec(&site.nodes[1].netns, "ethtool", "-k u2");
        let managed = features();
        site.nodes[0].down();
        let before = features();
        for (feature, unmanaged) in
            [("tx-checksumming", "on"), ("tx-vlan-offload", "on"), ("generic-receive-offload", "off")]
        {
            let lines = [format!("\n{feature}: on\n"), format!("\n{feature}: off\n")];
            let [on, off] = lines.each_ref().map(|line| managed.contains(line));
            assert!(on != off, "{managed}");
            assert_eq!(off, unmanaged == "on", "{managed}");
            assert!(before.contains(&format!("\n{feature}: {unmanaged}\n")), "down puts back: {before}");
        }
    });
}

/// The kernel's bridge has VLAN tags beside its packets, and a veth leaves them there.
#[test]
fn vlan_through_a_bridge_with_the_underlays_peer() {
    world::run("the underlay's peer at a bridge", |world, _| {
        let (mut site, switch) = Site::with_switch(world);
        let [c1, c2] = site.two_containers();
        for port in ["p1", "p2"] {
            ethtool(&switch.netns, port, "txvlan on");
        }
        site.apply("protocol = \"vlan\"\nid = 42");
        no_ping(&c1.netns, c2.address, "");
        for node in 0..2 {
            let file = usual(node, "protocol = \"vlan\"\nid = 42");
            site.nodes[node].apply(&with_peer(&file, &switch.name, ["p1", "p2"][node]));
        }
        all_kinds(&c1, &c2);
        site.nothing_dropped();
    });
}

/// A file whose underlay says who is at the other end.
fn with_peer(file: &str, netns: &str, name: &str) -> String {
    let role = "role = \"underlay\"";
    file.replace(role, &format!("{role}\npeer = {{ netns = \"{netns}\", name = \"{name}\" }}"))
}

#[test]
fn tunnels_of_others_go_on() {
    world::run("tunnels of others go on", |world, _| {
        let mut site = Site::new(world);
        let c1 = site.container(0, "c1", "10.250.1.1");
        site.wire(1);
        let Some(far) = addressed(&site, "vxlan") else { return };
        for node in 0..2 {
            let name = &site.nodes[node].name;
            let (own, other) = (node + 1, 2 - node);
            ip(&format!(
                "-n {name} link add host99 type vxlan id 99 local 10.30.30.{own} remote 10.30.30.{other} dstport 4789"
            ));
            ip(&format!("-n {name} addr add 192.168.99.{own}/24 dev host99"));
            ip(&format!("-n {name} link set host99 up"));
        }
        site.nodes[0].apply(&usual(0, "protocol = \"vxlan\"\nid = 42"));
        let (here, there) = (&site.nodes[0].netns, &site.nodes[1].netns);
        tcp(here, there, "192.168.99.2".parse().unwrap(), 1 << 20);
        tcp(there, here, "192.168.99.1".parse().unwrap(), 1 << 20);
        let between = site.nodes[0].status();
        assert_eq!((between.sent("t"), between.received("t")), (0, 0), "those packets were not mptm's");
        assert!(between.action("mptm_decap", "pass") > 700, "but mptm let them by");
        tcp(&c1.netns, there, far.address, 1 << 20);
        let status = site.nodes[0].status();
        assert!(status.received("t") > 0 && status.drops().is_empty(), "{:?}", status.drops());
    });
}
