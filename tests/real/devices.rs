//! Other roles, modes and sizes of devices.

use crate::site::{Site, UNDERLAY, exec, usual};
use crate::traffic::{all_kinds, full_size, ping};
use crate::world::{self, ip};

const TUNNEL: &str = "protocol = \"geneve\"\nid = 42";

#[test]
fn patch_cable() {
    world::run("a patch cable", |world, _| {
        let mut site = Site::new(world);
        let a = site.container(0, "ca", "10.250.1.1");
        let b = site.container(0, "cb", "10.250.1.2");
        site.nodes[0].apply(
            "[interface.ca]\nrole = \"redirect\"\nto = \"cb\"\n[interface.cb]\nrole = \"redirect\"\nto = \"ca\"\n",
        );
        all_kinds(&a, &b);
        assert_eq!(a.neighbour(b.address), b.mac("eth0"));
        let status = site.nodes[0].status();
        assert!(status.action("mptm_redirect", "redirect") > 1000);
        assert_eq!(status.action("mptm_redirect", "drop"), 0);
    });
}

#[test]
fn pass() {
    world::run("role pass", |world, _| {
        let mut site = Site::new(world);
        let c1 = site.container(0, "c1", "10.250.1.1");
        ip(&format!("-n {} addr add 10.250.1.2/24 dev c1", site.nodes[0].name));
        site.nodes[0].apply("[interface.c1]\nrole = \"pass\"\n");
        ping(&c1.netns, "10.250.1.2".parse().unwrap(), 1400);
        let status = site.nodes[0].status();
        assert!(status.action("mptm_pass", "pass") >= 3, "{:#}", status.0);
        assert_eq!(status.0["settings"], serde_json::json!([]), "it needs nothing of anybody");
    });
}

#[test]
fn generic_mode() {
    world::run("generic mode", |world, _| {
        let mut site = Site::new(world);
        let [c1, c2] = site.two_containers();
        for node in 0..2 {
            site.nodes[node].apply(&usual(node, TUNNEL).replace("role = ", "mode = \"generic\"\nrole = "));
        }
        let link = exec(&site.nodes[0].netns, "ip", "link show u1");
        assert!(link.contains(" xdpgeneric "), "{link}");
        all_kinds(&c1, &c2);
        full_size(&c1, &c2, || site.nodes[0].status());
        site.nothing_dropped();
    });
}

/// Packets of more than a page: XDP has them in several buffers.
#[test]
fn jumbo_frames() {
    world::run("jumbo frames", |world, _| {
        let mut site = Site::new(world);
        let containers = site.two_containers();
        for (node, container) in containers.iter().enumerate() {
            let name = &site.nodes[node].name;
            for device in [UNDERLAY[node].to_owned(), format!("c{}", node + 1)] {
                ip(&format!("-n {name} link set {device} mtu 9000"));
            }
            exec(&container.netns, "ip", "link set eth0 mtu 9000");
        }
        site.apply(TUNNEL);
        let [c1, c2] = containers;
        assert_eq!(site.nodes[0].status().tunnel("t")["mtu"], 8950);
        ping(&c1.netns, c2.address, 8922);
        all_kinds(&c1, &c2);
        full_size(&c1, &c2, || site.nodes[0].status());
        site.nothing_dropped();
    });
}
