//! What the outer header's keys do on the wire.

use std::collections::{BTreeMap, BTreeSet};

use crate::capture::{Capture, can_capture};
use crate::site::{Container, Site, attempt, exec, usual};
use crate::traffic::{all_kinds, ping, udp_socket};
use crate::world;

/// Runs `test` with the usual containers and a capture of 3 datagrams of each of 64 flows from c1 to c2.
fn flows(title: &str, tunnel: &str, test: impl FnOnce(&Capture, &Container) + Send) {
    if !can_capture(title) {
        return;
    }
    world::run(title, |world, _| {
        let (mut site, switch) = Site::with_switch(world);
        let [c1, c2] = site.two_containers();
        site.apply(tunnel);
        ping(&c1.netns, c2.address, 56);
        let capture = Capture::start(site.world, &switch);
        let to = udp_socket(&c2.netns, c2.address).local_addr().unwrap();
        // All at once, so that each has a port of its own.
        let sockets = [(); 64].map(|()| udp_socket(&c1.netns, c1.address));
        for socket in sockets {
            for _ in 0..3 {
                // Nobody listens any more, and says so.
                let _ = socket.send_to(b"flow", to);
            }
        }
        capture.stop(site.world, "udp and ip.dst == 10.30.30.2", 64 * 3);
        test(&capture, &c2);
        site.nothing_dropped();
    });
}

/// Outer source ports by inner source port.
fn source_ports(capture: &Capture) -> BTreeMap<u16, BTreeSet<u16>> {
    let mut ports: BTreeMap<u16, BTreeSet<u16>> = BTreeMap::new();
    for row in capture.fields("ip.src == 10.250.1.1 and udp", &["udp.srcport"]) {
        let (outer, inner) = row[0].split_once(',').expect("an outer and an inner port");
        ports.entry(inner.parse().unwrap()).or_default().insert(outer.parse().unwrap());
    }
    assert_eq!(ports.len(), 64, "flows");
    ports
}

fn check_ports(capture: &Capture, first: u16, last: u16, at_least: usize) {
    let ports = source_ports(capture);
    let mut used = BTreeSet::new();
    for (flow, ports) in ports {
        assert_eq!(ports.len(), 1, "flow {flow} keeps its port");
        used.extend(ports);
    }
    assert!(used.iter().all(|port| (first..=last).contains(port)), "{used:?}");
    assert!(used.len() >= at_least, "{used:?}");
}

#[test]
fn source_port_by_flow() {
    flows("source port by flow", "protocol = \"geneve\"\nid = 42", |capture, _| {
        check_ports(capture, 49152, 65535, 48);
    });
}

#[test]
fn source_port_of_a_range() {
    let tunnel = "protocol = \"vxlan\"\nid = 42\nsrc_port = \"2000-2003\"";
    flows("source port of a range", tunnel, |capture, _| check_ports(capture, 2000, 2003, 4));
}

#[test]
fn source_and_destination_port_as_written() {
    let tunnel = "protocol = \"geneve\"\nid = 42\nsrc_port = 7\ndst_port = 7000";
    flows("ports as written", tunnel, |capture, _| {
        // tshark knows GENEVE by its usual port only.
        let rows = capture.fields("udp and ip.src == 10.30.30.1", &["udp.srcport", "udp.dstport"]);
        assert!(rows.len() >= 64 * 3);
        for row in rows {
            assert_eq!(row, ["7", "7000"]);
        }
    });
}

#[test]
fn inner_mac() {
    let tunnel = "protocol = \"vxlan\"\nid = 42\ninner_mac = \"02:00:5e:10:00:99\"";
    flows("inner_mac", tunnel, |capture, c2| {
        let rows = capture.fields("udp and ip.src == 10.250.1.1", &["eth.dst"]);
        assert!(rows.len() >= 64 * 3);
        for row in rows {
            let inner = row[0].split_once(',').expect("an outer and an inner address").1;
            assert_eq!(inner, "02:00:5e:10:00:99");
        }
        assert_ne!(c2.mac("eth0"), "02:00:5e:10:00:99", "and the far end puts its own back");
    });
}

#[test]
fn other_ports_carry_everything() {
    world::run("other ports", |world, _| {
        let mut site = Site::new(world);
        let [c1, c2] = site.two_containers();
        site.apply(
            "protocol = \"vxlan\"\nid = 0\nsrc_port = 7\ndst_port = 8472\ninner_mac = \"02:00:5e:10:00:99\"",
        );
        all_kinds(&c1, &c2);
        site.nothing_dropped();
    });
}

#[test]
fn mtu() {
    world::run("mtu", |world, _| {
        let mut site = Site::new(world);
        let [c1, c2] = site.two_containers();
        site.apply("protocol = \"geneve\"\nid = 42\nmtu = 1300");
        ping(&c1.netns, c2.address, 1272);
        let too_big = || attempt(&c1.netns, "ping", "-n -c 1 -W 1 -M do -s 1273 10.250.1.2");
        assert!(too_big().is_err_and(|said| said.contains("mtu=1300")));
        for node in &site.nodes {
            assert_eq!(node.status().tunnel("t")["mtu"], 1300);
        }
        site.nothing_dropped();
        // Where mptm may not set the container's, the packet is counted.
        exec(&c1.netns, "ip", "link set eth0 mtu 1500");
        assert!(too_big().is_err_and(|said| said.contains(" 0 received")));
        let output = site.nodes[0].mptm().args(["status", "--json"]).output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(status["drops"]["too-big"]["packets"], 1);
        let plan = site.nodes[0].apply(&usual(0, "protocol = \"geneve\"\nid = 42\nmtu = 1300"));
        assert!(plan.starts_with("~ setting ") && plan.contains("/eth0 mtu: 1500 -> 1300"), "{plan}");
    });
}

#[test]
fn through_the_hosts_stack() {
    // From the driver by way of a cpumap; see bpf/encap.h.
    for (mode, action) in [("native", "redirect"), ("generic", "pass")] {
        world::run(&format!("redirect = false, {mode}"), |world, _| {
            let mut site = Site::new(world);
            let [c1, c2] = site.two_containers();
            for node in 0..2 {
                let file = usual(node, "protocol = \"geneve\"\nid = 42\nredirect = false");
                let workload = "role = \"workload\"";
                site.nodes[node].apply(&file.replace(workload, &format!("{workload}\nmode = \"{mode}\"")));
            }
            all_kinds(&c1, &c2);
            for node in &site.nodes {
                let status = node.status();
                assert!(status.sent("t") > 1000, "{mode}: {:#}", status.0);
                assert!(status.sent("t") <= status.action("mptm_encap", action), "{mode}");
            }
            site.nothing_dropped();
        });
    }
}
