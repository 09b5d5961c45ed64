//! What mptm does not let in, and not let out.

use crate::kernel_end::addressed;
use crate::site::{Site, exec, usual};
use crate::traffic::{no_ping, ping};
use crate::world;

const TUNNEL: &str = "protocol = \"vxlan\"\nid = 42";

#[test]
fn a_far_end_that_lies_about_inner_sources() {
    world::run("a far end that lies", |world, _| {
        let mut site = Site::new(world);
        let c1 = site.container(0, "c1", "10.250.1.1");
        site.wire(1);
        let Some(far) = addressed(&site, "vxlan") else { return };
        site.nodes[0].apply(&usual(0, TUNNEL));
        ping(&far.netns, c1.address, 56);
        let before = site.nodes[0].status();
        assert!(before.drops().is_empty(), "{:?}", before.drops());

        exec(&far.netns, "ip", "addr add 10.250.1.66/24 dev tun0");
        exec(&far.netns, "ip", &format!("neigh replace 10.250.1.1 lladdr {} dev tun0", c1.mac("eth0")));
        no_ping(&far.netns, c1.address, "-I 10.250.1.66");
        let status = site.nodes[0].status();
        assert_eq!(status.drops(), [("inner-source", 3)].into());
        assert_eq!(status.received("t"), before.received("t"), "none of them counts as received");
        ping(&far.netns, c1.address, 56);
    });
}

#[test]
fn a_container_that_lies_about_its_address() {
    world::run("a container that lies", |world, _| {
        let mut site = Site::new(world);
        let [c1, c2] = site.two_containers();
        site.apply(TUNNEL);
        ping(&c1.netns, c2.address, 56);
        exec(&c1.netns, "ip", "addr add 10.250.1.66/24 dev eth0");
        exec(&c1.netns, "ip", &format!("neigh replace 10.250.1.2 lladdr {} dev eth0", c2.mac("eth0")));
        no_ping(&c1.netns, c2.address, "-I 10.250.1.66");
        assert_eq!(site.nodes[0].status().drops(), [("source", 3)].into());
        ping(&c1.netns, c2.address, 56);
        assert!(site.nodes[1].status().drops().is_empty());
    });
}

#[test]
fn a_far_end_that_nobody_named() {
    world::run("a far end that nobody named", |world, _| {
        let mut site = Site::new(world);
        let c1 = site.container(0, "c1", "10.250.1.1");
        site.wire(1);
        let Some(far) = addressed(&site, "vxlan") else { return };
        site.nodes[0]
            .apply(&usual(0, TUNNEL).replace("10.30.30.2", "10.30.30.3\"\nremote_mac = \"02:00:5e:10:00:03"));
        no_ping(&far.netns, c1.address, "");
        let status = site.nodes[0].status();
        assert_eq!(status.received("t"), 0);
        assert!(status.action("mptm_decap", "pass") > 0, "the host's stack may know it");
        assert!(status.drops().is_empty(), "{:?}", status.drops());
    });
}
