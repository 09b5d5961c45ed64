//! Who lives behind a node, and which way their packets take.

use crate::kernel_end::has_device;
use crate::site::{Site, exec, remote, usual};
use crate::traffic::{all_kinds, no_ping, ping, tcp};
use crate::world;

const TUNNEL: &str = "protocol = \"geneve\"\nid = 42";

#[test]
fn two_containers_on_one_node() {
    world::run("two containers on one node", |world, _| {
        let mut site = Site::new(world);
        let a = site.container(0, "ca", "10.250.1.1");
        let b = site.container(0, "cb", "10.250.1.2");
        site.nodes[0].apply(
            "[interface.ca]\nrole = \"workload\"\naddresses = [\"10.250.1.1\"]\n\
             [interface.cb]\nrole = \"workload\"\naddresses = [\"10.250.1.2\"]\n",
        );
        all_kinds(&a, &b);
        assert_eq!(a.neighbour(b.address), b.mac("eth0"));
        let status = site.nodes[0].status();
        assert!(status.action("mptm_encap", "redirect") > 1000);
        assert!(status.drops().is_empty(), "{:?}", status.drops());
    });
}

#[test]
fn two_segments_with_the_same_addresses() {
    world::run("two segments with the same addresses", |world, _| {
        let mut site = Site::new(world);
        let [red1, red2] = [site.container(0, "red1", "10.250.1.1"), site.container(1, "red2", "10.250.1.2")];
        let [blue1, blue2] =
            [site.container(0, "blue1", "10.250.1.1"), site.container(1, "blue2", "10.250.1.2")];
        for node in 0..2 {
            let (own, other, remote) = (node + 1, 2 - node, remote(node));
            let mut file = format!("[interface.u{own}]\nrole = \"underlay\"\n");
            for (segment, id) in [("red", 42), ("blue", 43)] {
                file += &format!(
                    "[interface.{segment}{own}]\nrole = \"workload\"\nsegment = \"{segment}\"\n\
                     addresses = [\"10.250.1.{own}\"]\n\
                     [tunnel.{segment}]\nprotocol = \"vxlan\"\nid = {id}\nsegment = \"{segment}\"\n{remote}\n\
                     inner = [\"10.250.1.{other}\"]\n"
                );
            }
            site.nodes[node].apply(&file);
        }
        ping(&red1.netns, red2.address, 56);
        let status = site.nodes[0].status();
        assert!(status.sent("red") >= 3 && status.received("red") >= 3);
        assert_eq!((status.sent("blue"), status.received("blue")), (0, 0));
        // Both at the same time.
        std::thread::scope(|scope| {
            let red = scope.spawn(|| all_kinds(&red1, &red2));
            all_kinds(&blue1, &blue2);
            red.join().unwrap();
        });
        assert_eq!(red1.neighbour(red2.address), red2.mac("eth0"));
        assert_eq!(blue1.neighbour(blue2.address), blue2.mac("eth0"));
        site.nothing_dropped();
    });
}

#[test]
fn a_gateway_with_a_network_behind_it() {
    world::run("a gateway", |world, _| {
        let mut site = Site::new(world);
        let [c1, c2] = site.two_containers();
        exec(&c1.netns, "ip", "addr add 192.168.7.5/32 dev lo");
        exec(&c2.netns, "ip", "route add 192.168.7.0/24 via 10.250.1.1");
        let file = usual(0, TUNNEL).replace("[\"10.250.1.1\"]", "[\"10.250.1.1\", \"192.168.7.0/24\"]");
        site.nodes[0].apply(&file);
        let file = usual(1, TUNNEL).replace("[\"10.250.1.1\"]", "[\"10.250.1.1\", \"192.168.7.0/24\"]");
        site.nodes[1].apply(&file);
        let behind = "192.168.7.5".parse().unwrap();
        ping(&c2.netns, behind, 1400);
        tcp(&c2.netns, &c1.netns, behind, 1 << 20);
        exec(&c1.netns, "ping", "-n -c 3 -i 0.05 -w 15 -I 192.168.7.5 10.250.1.2");
        site.nothing_dropped();
        // The next network is not the gateway's.
        exec(&c1.netns, "ip", "addr add 192.168.8.5/32 dev lo");
        no_ping(&c1.netns, c2.address, "-I 192.168.8.5");
        assert_eq!(site.nodes[0].status().drops(), [("source", 3)].into());
    });
}

#[test]
fn a_pair_with_its_own_tunnel() {
    world::run("a pair with its own tunnel", |world, _| {
        let mut site = Site::new(world);
        let [c1, c2] = site.two_containers();
        let c3 = site.container(0, "c3", "10.250.1.3");
        let remote = [remote(0), remote(1)];
        site.nodes[0].apply(&format!(
            "{}\n[interface.c3]\nrole = \"workload\"\naddresses = [\"10.250.1.3\"]\n\
             [tunnel.own]\nprotocol = \"vxlan\"\nid = 7\n{}\nfrom = [\"10.250.1.3\"]\ninner = [\"10.250.1.2\"]\n",
            usual(0, TUNNEL),
            remote[0]
        ));
        site.nodes[1].apply(&format!(
            "{}\n[tunnel.own]\nprotocol = \"vxlan\"\nid = 7\n{}\ninner = [\"10.250.1.3\"]\n",
            usual(1, TUNNEL),
            remote[1]
        ));
        ping(&c3.netns, c2.address, 1400);
        for node in &site.nodes {
            let status = node.status();
            assert!(status.sent("own") >= 3 && status.received("own") >= 3, "{:#}", status.0);
            assert_eq!((status.sent("t"), status.received("t")), (0, 0), "{:#}", status.0);
        }
        let own = site.nodes[0].status().sent("own");
        ping(&c1.netns, c2.address, 1400);
        let status = site.nodes[0].status();
        assert!(status.sent("t") >= 3 && status.received("t") >= 3, "{:#}", status.0);
        assert_eq!(status.sent("own"), own);
        tcp(&c3.netns, &c2.netns, c2.address, 1 << 20);
        tcp(&c2.netns, &c3.netns, c3.address, 1 << 20);
        site.nothing_dropped();
    });
}

#[test]
fn the_addresses_of_the_peer() {
    world::run("the addresses of the peer", |world, _| {
        let mut site = Site::new(world);
        let [c1, c2] = site.two_containers();
        site.nodes[0].apply(&usual(0, TUNNEL).replace("[\"10.250.1.1\"]", "\"peer\""));
        site.nodes[1].apply(&usual(1, TUNNEL));
        ping(&c1.netns, c2.address, 56);
        // A new address counts from the next apply on.
        exec(&c1.netns, "ip", "addr add 10.250.1.9/24 dev eth0");
        exec(&c2.netns, "ip", "addr add 10.250.1.8/24 dev eth0");
        let file = usual(1, TUNNEL).replace("[\"10.250.1.1\"]", "[\"10.250.1.1\", \"10.250.1.9\"]");
        site.nodes[1].apply(&file);
        no_ping(&c2.netns, "10.250.1.9".parse().unwrap(), "");
        let plan = site.nodes[0].apply(&usual(0, TUNNEL).replace("[\"10.250.1.1\"]", "\"peer\""));
        assert_eq!(plan.lines().count(), 1, "{plan}");
        assert!(plan.starts_with("+ route default 10.250.1.9: interface c1"), "{plan}");
        ping(&c2.netns, "10.250.1.9".parse().unwrap(), 56);
    });
}

#[test]
fn a_container_in_the_namespace_of_a_process() {
    world::run("a container in the namespace of a process", |world, _| {
        let mut site = Site::new(world);
        let (c1, pid) = site.container_of_process(0, "c1", "10.250.1.1");
        let c2 = site.container(1, "c2", "10.250.1.2");
        // Found, then written down, which is the same.
        site.apply(TUNNEL);
        let peer = |status: &crate::site::Status| status.interface("c1")["peer"].clone();
        let found = peer(&site.nodes[0].status());
        assert_eq!(found, serde_json::json!({ "netns": format!("pid:{pid}"), "name": "eth0" }));
        all_kinds(&c1, &c2);
        let written = format!("role = \"workload\"\npeer = {{ netns = \"pid:{pid}\", name = \"eth0\" }}");
        let plan = site.nodes[0].apply(&usual(0, TUNNEL).replace("role = \"workload\"", &written));
        assert_eq!(plan, "");
        site.nothing_dropped();
        site.nodes[0].down();
        assert!(exec(&c1.netns, "ethtool", "-k eth0").contains("\ntx-checksumming: on"));
        assert!(exec(&c1.netns, "ip", "link show eth0").contains(" mtu 1500 "));
    });
}

/// A VLAN tag that a container puts on is the container's own, and arrives with it.
#[test]
fn tags_of_the_containers() {
    world::run("tags of the containers", |world, _| {
        let mut site = Site::new(world);
        let [c1, c2] = site.two_containers();
        site.apply(TUNNEL);
        for container in [&c1, &c2] {
            let netns = &container.netns;
            exec(netns, "ip", &format!("addr del {}/24 dev eth0", container.address));
            if !has_device(netns, "link eth0 name eth0.7 mtu 1446 type vlan id 7") {
                return;
            }
            exec(netns, "ip", &format!("addr add {}/24 dev eth0.7", container.address));
            exec(netns, "ip", "link set eth0.7 up");
        }
        all_kinds(&c1, &c2);
        site.nothing_dropped();
    });
}
