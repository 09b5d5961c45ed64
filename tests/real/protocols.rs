//! Two mptm nodes with a container each: every protocol carries everything, over and within both families, on one subnet
//! and behind a gateway, and tshark reads what is on the wire.

use crate::capture::can_capture;
use crate::decode::Listener;
use crate::matrix::{Carries, Row};
use crate::site::{Container, Family, Node, Site, UNDERLAY, ethtool, exec, settled, v6_of};
use crate::traffic::{carries, ping_full, ping_with, tcp, udp};
use crate::world::{self, ip, soon};

/// Addresses of the containers that reach each other through a gateway.
pub const BEHIND: [[u8; 4]; 2] = [[10, 251, 1, 1], [10, 251, 2, 1]];
const GATEWAYS: [[u8; 4]; 2] = [[10, 251, 1, 254], [10, 251, 2, 254]];

/// The addresses of a list, of both families.
pub fn both(addresses: &[[u8; 4]]) -> String {
    let quoted = addresses.iter().map(|address| {
        let address = (*address).into();
        format!("\"{address}\", \"{}\"", v6_of(address))
    });
    format!("[{}]", quoted.collect::<Vec<_>>().join(", "))
}

/// The file of a node: a container with both families and a gateway, and a tunnel `t` to the other's.
pub fn file(node: usize, row: &Row, outer: Family) -> String {
    let (own, other) = (node + 1, 2 - node);
    let remote =
        if row.has_outer_ip() { format!("remote = \"{}\"", outer.outer()[1 - node]) } else { String::new() };
    format!(
        "[interface.u{own}]\nrole = \"underlay\"\n\
         [interface.c{own}]\nrole = \"workload\"\naddresses = {}\ngateway = {}\n\
         [tunnel.t]\ninner = {}\n{remote}\n{}\n",
        both(&[[10, 250, 1, own as u8], BEHIND[node]]),
        both(&[GATEWAYS[node]]),
        both(&[[10, 250, 1, other as u8], BEHIND[1 - node]]),
        row.keys,
    )
}

/// Gives a container the address behind its gateway, and the way to the other's.
fn behind_a_gateway(container: &Container, node: usize) -> Container {
    for family in Family::BOTH {
        let of = |address: [u8; 4]| match family {
            Family::V4 => (address.into(), 24),
            Family::V6 => (std::net::IpAddr::from(v6_of(address.into())), 120),
        };
        let ((own, length), (gateway, _)) = (of(BEHIND[node]), of(GATEWAYS[node]));
        let (network, _) = of([10, 251, 2 - node as u8, 0]);
        // Without: IPv6 addresses could not be told from those that are being checked.
        let nodad = if family == Family::V6 { "nodad" } else { "" };
        exec(&container.netns, "ip", &format!("addr add {own}/{length} dev eth0 {nodad}"));
        exec(&container.netns, "ip", &format!("route add {network}/{length} via {gateway} src {own}"));
    }
    settled(&container.netns);
    container.with_address(BEHIND[node].into())
}

/// How many hops away the answer to an echo request came from.
fn hops(from: &Container, to: &Container) -> u64 {
    let said = ping_with(&from.netns, to.address, 56, "");
    let ttl = said.split_whitespace().find_map(|word| word.strip_prefix("ttl=")).expect("a TTL");
    64 - ttl.parse::<u64>().unwrap()
}

/// No packet is lost between two nodes, and each is counted where it should be.
fn conserved(site: &Site) {
    // The last packet of a connection may be on its way still.
    let conserved = || {
        let [one, two] = site.nodes.each_ref().map(Node::status);
        (one.sent("t"), two.sent("t")) == (two.received("t"), one.received("t"))
            // Answers to ARP and neighbour solicitations are redirected, too.
            && one.sent("t") <= one.action("mptm_encap", "redirect")
            && one.received("t") == one.action("mptm_decap", "redirect")
    };
    assert!(soon(conserved), "{:#} {:#}", site.nodes[0].status().0, site.nodes[1].status().0);
}

/// The cells of a protocol over an outer family, with both inner families.
pub fn between_two_nodes(row: &Row, outer: Family) {
    let title = format!("two nodes, {} over {outer:?}", row.name);
    world::run(&title, |world, _| {
        let (mut site, switch) = Site::with_switch(world);
        let containers = site.two_containers();
        let [c1, c2] = &containers;
        site.add_ipv6(&[c1, c2]);
        let behind = [behind_a_gateway(c1, 0), behind_a_gateway(c2, 1)];
        for node in 0..2 {
            site.nodes[node].apply(&file(node, row, outer));
        }
        let mtu = row.mtu(1500, outer);
        assert_eq!(site.nodes[0].status().tunnel("t")["mtu"], mtu);
        // One packet in each direction costs a hop at each end that routes it.
        let (on_link, routed) = match row.carries {
            Carries::Ethernet => (0, 1),
            Carries::Ip => (2, 2),
        };

        let listener = can_capture(&title).then(|| Listener::start(&mut site, &switch));
        for family in Family::BOTH {
            let [a, b] = [c1.at(family), c2.at(family)];
            assert_eq!(hops(&a, &b), on_link, "hops, {family:?}");
            ping_full(&a.netns, b.address, mtu);
            udp(&a, &b, 0);
            udp(&a, &b, 4000);
            tcp(&a.netns, &b.netns, b.address, 1 << 18);
            let resolved = [a.neighbour(b.address), b.neighbour(a.address)];
            let expected = match row.carries {
                Carries::Ethernet => [b.mac("eth0"), a.mac("eth0")],
                // mptm answers with the MAC address of its own end.
                Carries::Ip => [0, 1].map(|end| crate::site::mac(&site.nodes[end].netns, ["c1", "c2"][end])),
            };
            assert_eq!(resolved, expected, "ARP and neighbour discovery, {family:?}");
        }
        if let Some(listener) = listener {
            listener.check(&mut site, row, outer, &containers);
        }

        for family in Family::BOTH {
            let [a, b] = behind.each_ref().map(|container| container.at(family));
            assert_eq!(hops(&a, &b), routed, "hops behind a gateway, {family:?}");
            ping_full(&a.netns, b.address, mtu);
            udp(&a, &b, 4000);
            tcp(&a.netns, &b.netns, b.address, 1 << 18);
            let [a, b] = [c1.at(family), c2.at(family)];
            carries(&a, &b, mtu, || site.nodes[0].status());
        }
        conserved(&site);
        site.nothing_dropped();

        jumbo(&site, &switch, row, outer, &containers);
    });
}

/// Packets of more than a page: XDP has them in several buffers.
fn jumbo(site: &Site, switch: &Node, row: &Row, outer: Family, containers: &[Container; 2]) {
    for port in ["p1", "p2"] {
        ip(&format!("-n {} link set {port} mtu 9000", switch.name));
        ethtool(&switch.netns, port, "gro off");
    }
    ip(&format!("-n {} link set br0 mtu 9000", switch.name));
    for (node, container) in containers.iter().enumerate() {
        // Devices go back to what they were, and then begin with larger MTUs.
        site.nodes[node].down();
        let name = &site.nodes[node].name;
        for device in [UNDERLAY[node], ["c1", "c2"][node]] {
            ip(&format!("-n {name} link set {device} mtu 9000"));
        }
        exec(&container.netns, "ip", "link set eth0 mtu 9000");
        site.nodes[node].apply(&file(node, row, outer));
    }
    let mtu = row.mtu(9000, outer);
    assert_eq!(site.nodes[0].status().tunnel("t")["mtu"], mtu);
    for family in Family::BOTH {
        let [a, b] = containers.each_ref().map(|container| container.at(family));
        carries(&a, &b, mtu, || site.nodes[0].status());
    }
    conserved(site);
    site.nothing_dropped();
}
