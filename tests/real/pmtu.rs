//! Packets that are too big for their tunnel, where mptm may not set the containers' MTU: the sender is told, and sends
//! smaller ones. And packets whose hops are used up.

use std::collections::BTreeMap;

use crate::matrix::{Carries, ROWS, Row};
use crate::protocols::file;
use crate::site::{Container, Family, Site, UNDERLAY, attempt, exec, settled};
use crate::traffic::{datagram_arrives, no_ping, ping_full, ping_with, tcp, udp, udp_socket};
use crate::world::{self, ip};

fn row(name: &str) -> &'static Row {
    ROWS.iter().find(|row| row.name == name).expect("a row of this name")
}

/// Two nodes with a wire of MTU 1400 and containers that know nothing of that.
fn narrow(site: &mut Site, row: &Row, outer: Family, more: &str) -> [Container; 2] {
    let containers = site.two_containers();
    site.add_ipv6(&[&containers[0], &containers[1]]);
    for (end, device) in UNDERLAY.iter().enumerate() {
        ip(&format!("-n {} link set {device} mtu 1400", site.nodes[end].name));
        let workload = "role = \"workload\"\n";
        let file = file(end, row, outer).replace(workload, &format!("{workload}manage = [\"offloads\"]\n"));
        site.nodes[end].apply(&format!("{file}{more}\n"));
    }
    for container in &containers {
        assert!(exec(&container.netns, "ip", "link show eth0").contains(" mtu 1500 "));
    }
    containers
}

/// The MTU of the way to another container, as one has learned it.
fn learned(from: &Container, to: &Container) -> Option<u64> {
    let said = exec(&from.netns, "ip", &format!("route get {}", to.address));
    let mut words = said.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1).map(|mtu| mtu.parse().unwrap())
}

/// Two other containers, since what one has learned it knows for ten minutes.
fn told(name: &str, outer: Family, inner: Family) {
    world::run(&format!("too big for {name} over {outer:?}, {inner:?} within"), |world, _| {
        let mut site = Site::new(world);
        let row = row(name);
        let containers = narrow(&mut site, row, outer, "");
        let [c1, c2] = containers.each_ref().map(|container| container.at(inner));
        let mtu = row.mtu(1400, outer);
        assert_eq!(site.nodes[0].status().tunnel("t")["mtu"], mtu);

        tcp(&c2.netns, &c1.netns, c1.address, 4 << 20);
        assert_eq!((learned(&c2, &c1), learned(&c1, &c2)), (Some(mtu), None));
        assert!(site.nodes[1].status().drops()["too-big"] > 0);
        site.nodes[0].nothing_dropped();

        // The first datagram is lost, and those after it are fragmented.
        let headers = if inner == Family::V4 { 28 } else { 48 };
        let (near, far) = (udp_socket(&c1.netns, c1.address), udp_socket(&c2.netns, c2.address));
        assert!(!datagram_arrives(&near, &far, 1500 - headers));
        assert_eq!(site.nodes[0].status().drops(), [("too-big", 1)].into());
        assert_eq!(learned(&c1, &c2), Some(mtu));
        udp(&c1, &c2, 1500 - headers);
        ping_full(&c1.netns, c2.address, mtu);
        tcp(&c1.netns, &c2.netns, c2.address, 4 << 20);
        assert_eq!(site.nodes[0].status().drops(), [("too-big", 1)].into());
        for node in &site.nodes {
            let status = node.status();
            assert!(status.drops().keys().all(|reason| *reason == "too-big"), "{:?}", status.drops());
        }
    });
}

#[test]
fn vxlan_over_ipv4() {
    told("vxlan", Family::V4, Family::V4);
    told("vxlan", Family::V4, Family::V6);
}

#[test]
fn geneve_over_ipv6() {
    told("geneve_options", Family::V6, Family::V4);
    told("geneve_options", Family::V6, Family::V6);
}

#[test]
fn gre_over_ipv4() {
    told("gre_all", Family::V4, Family::V4);
    told("gre_all", Family::V4, Family::V6);
}

#[test]
fn ipip_over_ipv6() {
    told("ipip", Family::V6, Family::V4);
    told("ipip", Family::V6, Family::V6);
}

#[test]
fn vlan() {
    told("vlan", Family::V4, Family::V4);
    told("vlan", Family::V4, Family::V6);
}

/// Dropped, but told all the same; Linux then fragments by itself.
#[test]
fn without_df() {
    world::run("too big without DF", |world, _| {
        let mut site = Site::new(world);
        let [c1, c2] = narrow(&mut site, row("vxlan"), Family::V4, "");
        let first = attempt(&c1.netns, "ping", &format!("-n -c 1 -W 1 -M dont -s 1472 {}", c2.address));
        assert!(first.is_err(), "{first:?}");
        assert_eq!(site.nodes[0].status().drops(), [("too-big-no-df", 1)].into());
        assert_eq!(learned(&c1, &c2), Some(1350));
        exec(&c1.netns, "ping", &format!("-n -c 3 -i 0.05 -w 15 -M dont -s 1472 {}", c2.address));
        assert_eq!(site.nodes[0].status().drops(), [("too-big-no-df", 1)].into());
    });
}

/// With the clamp, no segment of TCP is too big to begin with.
#[test]
fn mss_clamp() {
    for (name, outer) in [("vxlan", Family::V4), ("gtpu_qfi", Family::V6)] {
        world::run(&format!("mss_clamp, {name} over {outer:?}"), |world, _| {
            let mut site = Site::new(world);
            let containers = narrow(&mut site, row(name), outer, "mss_clamp = true");
            for inner in Family::BOTH {
                let [c1, c2] = containers.each_ref().map(|container| container.at(inner));
                tcp(&c1.netns, &c2.netns, c2.address, 4 << 20);
                tcp(&c2.netns, &c1.netns, c1.address, 4 << 20);
                assert_eq!((learned(&c1, &c2), learned(&c2, &c1)), (None, None));
            }
            site.nothing_dropped();
        });
    }
}

/// Which node drops packets that start with a TTL; none if all arrive.
fn used_up(name: &str, gateway: bool, ttl: u8, at: Option<usize>) {
    world::run(&format!("TTL {ttl} through {name}"), |world, _| {
        let mut site = Site::new(world);
        let containers = site.two_containers();
        site.add_ipv6(&[&containers[0], &containers[1]]);
        for node in 0..2 {
            site.nodes[node].apply(&file(node, row(name), Family::V4));
        }
        let mut dropped = 0;
        for inner in Family::BOTH {
            let [c1, mut c2] = containers.each_ref().map(|container| container.at(inner));
            if gateway {
                // Behind the same interface, but by way of the gateway.
                let via = [10, 251, 1, 254].into();
                let via = c1.with_address(via).at(inner).address;
                exec(
                    &c1.netns,
                    "ip",
                    &format!("addr add {} dev lo", c1.with_address([10, 251, 1, 1].into()).at(inner).address),
                );
                exec(&c1.netns, "ip", &format!("route add {via} dev eth0"));
                let far = c2.with_address([10, 251, 2, 1].into()).at(inner);
                exec(&c2.netns, "ip", &format!("addr add {} dev lo", far.address));
                exec(&c1.netns, "ip", &format!("route add {} via {via} src {}", far.address, c1.address));
                settled(&c1.netns);
                settled(&c2.netns);
                c2 = far;
            }
            if at.is_some() {
                no_ping(&c1.netns, c2.address, &format!("-t {ttl}"));
                dropped += 3;
            } else {
                ping_with(&c1.netns, c2.address, 56, &format!("-t {ttl}"));
            }
        }
        for (index, node) in site.nodes.iter().enumerate() {
            let expected: BTreeMap<_, _> =
                at.filter(|at| *at == index).map(|_| ("ttl", dropped)).into_iter().collect();
            assert_eq!(node.status().drops(), expected, "node {}", index + 1);
        }
    });
}

/// What carries Ethernet is no hop, unless it is a gateway.
#[test]
fn hops_of_ethernet() {
    assert_eq!(row("geneve").carries, Carries::Ethernet);
    used_up("geneve", false, 1, None);
    used_up("geneve", true, 1, Some(0));
    used_up("geneve", true, 2, None);
}

/// What carries IP is two hops, one for each end.
#[test]
fn hops_of_ip() {
    assert_eq!(row("gue").carries, Carries::Ip);
    used_up("gue", false, 1, Some(0));
    used_up("gue", false, 2, Some(1));
    used_up("gue", false, 3, None);
}
