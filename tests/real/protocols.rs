//! Two mptm nodes with a container each: every protocol carries everything.

use crate::site::{Node, Site};
use crate::traffic::{all_kinds, full_size};
use crate::world::{self, soon};

fn between_two_nodes(protocol: &str, mtu: u64) {
    world::run(protocol, |world, _| {
        let mut site = Site::new(world);
        let [c1, c2] = site.two_containers();
        site.apply(&format!("protocol = \"{protocol}\"\nid = 42"));
        all_kinds(&c1, &c2);
        full_size(&c1, &c2, || site.nodes[0].status());

        assert_eq!(c1.neighbour(c2.address), c2.mac("eth0"), "ARP went through the tunnel");
        // The last packet of a connection may be on its way still.
        let conserved = || {
            let [one, two] = site.nodes.each_ref().map(Node::status);
            (one.sent("t"), two.sent("t")) == (two.received("t"), one.received("t"))
                && one.sent("t") == one.action("mptm_encap", "redirect")
                && one.received("t") == one.action("mptm_decap", "redirect")
        };
        assert!(soon(conserved), "{:#} {:#}", site.nodes[0].status().0, site.nodes[1].status().0);
        assert_eq!(site.nodes[0].status().tunnel("t")["mtu"], mtu);
        site.nothing_dropped();
    });
}

#[test]
fn geneve() {
    between_two_nodes("geneve", 1450);
}

#[test]
fn vxlan() {
    between_two_nodes("vxlan", 1450);
}

#[test]
fn vlan() {
    between_two_nodes("vlan", 1500);
}
