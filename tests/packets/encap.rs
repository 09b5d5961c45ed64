//! What leaves the workloads.

use std::net::{Ipv4Addr, Ipv6Addr};

use mptm::kernel::Program;
use mptm::reason::Reason;

use crate::common::frame::{
    ArpOperation, BROADCAST, Ethernet, ICMP, Ipv4, Ipv6, TYPE_ARP, TYPE_IPV4, TYPE_IPV6, TYPE_QINQ,
    TYPE_VLAN, UDP, arp, udp,
};
use crate::lab::*;
use crate::oracle::Outcome;

/// Name, ifindex of the interface, frame, outcome.
type Case = (&'static str, u32, Vec<u8>, Outcome);

fn into(tunnel: u8, inner: &[u8]) -> Outcome {
    Outcome::Encapsulated { tunnel: tunnel.into(), inner: inner.to_vec() }
}

/// A case whose frame is put into a tunnel as it is.
fn goes_into(name: &'static str, ifindex: u32, tunnel: u8, frame: Vec<u8>) -> Case {
    let outcome = into(tunnel, &frame);
    (name, ifindex, frame, outcome)
}

fn with_destination(frame: &[u8], mac: [u8; 6]) -> Vec<u8> {
    [&mac, &frame[6..]].concat()
}

fn check(lab: &mut Lab, cases: Vec<Case>) {
    for (name, ifindex, frame, outcome) in cases {
        lab.node.check(name, Program::Encap, ifindex, &frame, &outcome);
    }
}

#[test]
fn tunnels() {
    let Some(mut lab) = Lab::new("encap::tunnels") else { return };
    let red = lab.red;
    let to = |id| datagram(RED_IP, behind(id), 100);
    let mut cases = vec![
        goes_into("geneve", red, GENEVE, to(GENEVE)),
        goes_into("vxlan", red, VXLAN, to(VXLAN)),
        goes_into("vlan that keeps the addresses", red, VLAN, to(VLAN)),
        goes_into("vlan that keeps the destination", red, NARROW_VLAN, to(NARROW_VLAN)),
        goes_into("geneve with options, fixed port", red, GENEVE_OPTIONS, to(GENEVE_OPTIONS)),
        goes_into("options in the outer IPv4 header", red, OUTER_OPTIONS, to(OUTER_OPTIONS)),
        goes_into("to the host's stack", red, STACK, to(STACK)),
        goes_into("debug", red, DEBUG, to(DEBUG)),
        goes_into("the same addresses in another segment", lab.blue, BLUE_GENEVE, to(GENEVE)),
        goes_into("a pair of its own", red, PAIR, datagram(RED_PAIR_IP, behind(GENEVE), 9)),
        goes_into(
            "a prefix among the pairs",
            red,
            PAIR,
            datagram(RED_PAIR_IP, Ipv4Addr::new(10, 1, 40, 9), 9),
        ),
        goes_into("no pair, so the segment's", red, VXLAN, datagram(RED_PAIR_IP, behind(VXLAN), 9)),
        goes_into(
            "from a prefix of its own",
            red,
            GENEVE,
            datagram(Ipv4Addr::new(10, 0, 8, 200), behind(GENEVE), 9),
        ),
        ("another's pair", lab.green, datagram(GREEN_IP, Ipv4Addr::new(10, 1, 40, 9), 9), Outcome::Pass),
        ("unresolved", red, to(UNRESOLVED), Outcome::Drop(Reason::NoNeighbour)),
        ("missing tunnel", red, to(MISSING), Outcome::Drop(Reason::NoTunnel)),
        ("missing underlay", red, to(NO_DEVICE), Outcome::Drop(Reason::NoDevice)),
    ];
    for id in [VXLAN_INNER_MAC, VLAN_OWN_MACS] {
        let outcome = into(id, &with_destination(&to(id), INNER_MAC));
        cases.push(("inner MAC", red, to(id), outcome));
    }
    for (last_bytes, id) in
        [([9, 9], GENEVE), ([3, 127], VXLAN), ([3, 130], VXLAN), ([3, 129], VLAN), ([3, 128], GENEVE_OPTIONS)]
    {
        let destination = Ipv4Addr::new(10, 2, last_bytes[0], last_bytes[1]);
        cases.push(goes_into("the most specific prefix", red, id, datagram(RED_IP, destination, 9)));
    }
    check(&mut lab, cases);
}

#[test]
fn who_may_send() {
    let Some(mut lab) = Lab::new("encap::who_may_send") else { return };
    let (red, nowhere) = (lab.red, Ipv4Addr::new(203, 0, 113, 1));
    let to_green = datagram(RED_IP, GREEN_IP, 40);
    let to_prefix = datagram(GREEN_IP, Ipv4Addr::new(10, 0, 8, 3), 40);
    let green = lab.green;
    check(
        &mut lab,
        vec![
            ("spoofed, unknown", red, datagram(nowhere, behind(GENEVE), 9), Outcome::Drop(Reason::Source)),
            ("spoofed, another's", red, datagram(GREEN_IP, behind(GENEVE), 9), Outcome::Drop(Reason::Source)),
            (
                "spoofed, a far end's",
                red,
                datagram(behind(VXLAN), behind(GENEVE), 9),
                Outcome::Drop(Reason::Source),
            ),
            ("spoofed, to a workload", red, datagram(nowhere, GREEN_IP, 9), Outcome::Drop(Reason::Source)),
            (
                "unspecified source",
                red,
                datagram(Ipv4Addr::UNSPECIFIED, behind(GENEVE), 9),
                Outcome::Drop(Reason::Source),
            ),
            ("no route", red, datagram(RED_IP, nowhere, 9), Outcome::Pass),
            ("to itself", red, datagram(RED_IP, RED_PAIR_IP, 9), Outcome::Pass),
            (
                "to a workload",
                red,
                to_green.clone(),
                Outcome::Forward { slot: GREEN, frame: with_destination(&to_green, GREEN_MAC) },
            ),
            (
                "to a workload of unknown MAC",
                green,
                to_prefix.clone(),
                Outcome::Forward { slot: RED, frame: to_prefix },
            ),
            (
                "to a workload that is gone",
                red,
                datagram(RED_IP, Ipv4Addr::new(10, 0, 9, 1), 9),
                Outcome::Drop(Reason::NoDevice),
            ),
        ],
    );
    for (name, ifindex) in [("no workload", lab.underlay), ("a patch cable", lab.cable)] {
        check(&mut lab, vec![(name, ifindex, datagram(RED_IP, behind(GENEVE), 9), Outcome::Pass)]);
    }
}

#[test]
fn address_resolution() {
    let Some(mut lab) = Lab::new("encap::address_resolution") else { return };
    let red = lab.red;
    let arp_frame = |destination, operation, sender, target| {
        Ethernet::new(destination, RED_MAC, TYPE_ARP).encode(&arp(
            operation,
            (RED_MAC, sender),
            ([0; 6], target),
        ))
    };
    let request = |sender, target| arp_frame(BROADCAST, ArpOperation::Request, sender, target);
    let to_green = arp_frame([2; 6], ArpOperation::Reply, RED_IP, GREEN_IP);
    let mut ipv6_arp = request(RED_IP, behind(GENEVE));
    ipv6_arp[16..18].copy_from_slice(&TYPE_IPV6.to_be_bytes());
    check(
        &mut lab,
        vec![
            goes_into("request", red, GENEVE, request(RED_IP, behind(GENEVE))),
            goes_into("request, vlan", red, VLAN, request(RED_IP, behind(VLAN))),
            goes_into("request in its pair", red, PAIR, request(RED_PAIR_IP, behind(GENEVE))),
            goes_into(
                "request with an inner MAC",
                red,
                VXLAN_INNER_MAC,
                request(RED_IP, behind(VXLAN_INNER_MAC)),
            ),
            goes_into("reply", red, VXLAN, arp_frame([2; 6], ArpOperation::Reply, RED_IP, behind(VXLAN))),
            goes_into("probe", red, GENEVE, request(Ipv4Addr::UNSPECIFIED, behind(GENEVE))),
            goes_into(
                "request with a tag and padding",
                red,
                GENEVE,
                [
                    &Ethernet::new(BROADCAST, RED_MAC, TYPE_ARP).tag(TYPE_VLAN, 5).encode(&arp(
                        ArpOperation::Request,
                        (RED_MAC, RED_IP),
                        ([0; 6], behind(GENEVE)),
                    ))[..],
                    &[0; 14],
                ]
                .concat(),
            ),
            (
                "request for a workload",
                red,
                request(RED_IP, GREEN_IP),
                Outcome::Forward { slot: GREEN, frame: request(RED_IP, GREEN_IP) },
            ),
            (
                "reply to a workload",
                red,
                to_green.clone(),
                Outcome::Forward { slot: GREEN, frame: with_destination(&to_green, GREEN_MAC) },
            ),
            ("gratuitous", red, request(RED_IP, RED_IP), Outcome::Pass),
            ("probe for itself", red, request(Ipv4Addr::UNSPECIFIED, RED_IP), Outcome::Pass),
            ("no route", red, request(RED_IP, Ipv4Addr::new(203, 0, 113, 1)), Outcome::Pass),
            ("spoofed", red, request(GREEN_IP, behind(GENEVE)), Outcome::Drop(Reason::Source)),
            ("of another protocol", red, ipv6_arp, Outcome::Pass),
            (
                "truncated",
                red,
                request(RED_IP, behind(GENEVE))[..41].to_vec(),
                Outcome::Drop(Reason::Malformed),
            ),
        ],
    );
}

#[test]
fn what_is_not_ours() {
    let Some(mut lab) = Lab::new("encap::what_is_not_ours") else { return };
    let red = lab.red;
    let inner = Ipv4::new(RED_IP, behind(GENEVE), UDP).encode(&udp(1, 2, b"payload"));
    let to = |destination| Ethernet::new(destination, RED_MAC, TYPE_IPV4).encode(&inner);
    let address = |destination| datagram(RED_IP, destination, 20);
    let group = Outcome::Leave(Reason::Group);
    let discovery = Ethernet::new([1, 0x80, 0xc2, 0, 0, 0x0e], RED_MAC, 0x88cc).encode(&[1; 40]);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let hello = Ipv6::new(Ipv6Addr::LOCALHOST, all_nodes, UDP).encode(&udp(1, 2, b"hello"));
    let three_tags = leaving(TYPE_IPV4).tag(TYPE_QINQ, 1).tag(TYPE_VLAN, 2).tag(TYPE_VLAN, 3).encode(&inner);
    check(
        &mut lab,
        [
            ("unknown type", leaving(0x88cc).encode(&[1; 40]), Outcome::Pass),
            ("IEEE 802.3 length", leaving(38).encode(&[0x42; 40]), Outcome::Pass),
            ("three tags", three_tags, Outcome::Pass),
            ("group MAC", to([1, 0, 0x5e, 0, 0, 1]), group.clone()),
            ("broadcast MAC", to(BROADCAST), group.clone()),
            ("multicast", address(Ipv4Addr::new(224, 0, 0, 1)), group.clone()),
            ("limited broadcast", address(Ipv4Addr::BROADCAST), group.clone()),
            ("class E", address(Ipv4Addr::new(240, 0, 0, 1)), group.clone()),
            ("unknown type to a group", discovery, group.clone()),
            ("IPv6 multicast", leaving(TYPE_IPV6).encode(&hello), group),
        ]
        .map(|(name, frame, outcome)| (name, red, frame, outcome))
        .into(),
    );
}

#[test]
fn shapes_of_packets() {
    let Some(mut lab) = Lab::new("encap::shapes_of_packets") else { return };
    let red = lab.red;
    let ip = Ipv4::new(RED_IP, behind(GENEVE), UDP);
    let inner = ip.encode(&udp(1, 2, b"payload"));
    let options = Ipv4 { options: vec![1; 40], ..ip.clone() }.encode(&udp(3, 4, b"payload"));
    let patched = |at: usize, byte: u8| {
        let mut frame = leaving(TYPE_IPV4).encode(&inner);
        frame[at] = byte;
        frame
    };
    let padded =
        [&leaving(TYPE_IPV4).encode(&Ipv4::new(RED_IP, behind(GENEVE), ICMP).encode(&[8]))[..], &[0; 25]];
    let plain = leaving(TYPE_IPV4).encode(&inner);
    check(
        &mut lab,
        vec![
            goes_into("one tag", red, GENEVE, leaving(TYPE_IPV4).tag(TYPE_VLAN, 0xe007).encode(&inner)),
            goes_into(
                "two tags",
                red,
                GENEVE,
                leaving(TYPE_IPV4).tag(TYPE_QINQ, 7).tag(TYPE_VLAN, 8).encode(&inner),
            ),
            goes_into("IPv4 options", red, GENEVE, leaving(TYPE_IPV4).encode(&options)),
            goes_into("padded to 60 bytes", red, GENEVE, padded.concat()),
            goes_into("no payload", red, GENEVE, leaving(TYPE_IPV4).encode(&ip.encode(&[]))),
            ("IPv4 version 6", red, patched(14, 0x65), Outcome::Drop(Reason::Malformed)),
            ("IPv4 header of 16 bytes", red, patched(14, 0x44), Outcome::Drop(Reason::Malformed)),
            ("IPv4 header beyond the packet", red, patched(14, 0x4f), Outcome::Drop(Reason::Malformed)),
            ("longer than the frame", red, patched(17, 36), Outcome::Drop(Reason::Malformed)),
            ("shorter than its header", red, patched(17, 19), Outcome::Drop(Reason::Malformed)),
            ("no IPv4 header", red, plain[..33].to_vec(), Outcome::Drop(Reason::Malformed)),
            ("nothing but Ethernet", red, plain[..14].to_vec(), Outcome::Drop(Reason::Malformed)),
            (
                "IPv6 of another length",
                red,
                leaving(TYPE_IPV6).encode(&[0x60; 60]),
                Outcome::Drop(Reason::Malformed),
            ),
            ("half a tag", red, leaving(TYPE_VLAN).encode(&[0, 1, 8]), Outcome::Drop(Reason::Malformed)),
        ],
    );
}

#[test]
fn sizes() {
    let Some(mut lab) = Lab::new("encap::sizes") else { return };
    let red = lab.red;
    let of = |id: u8, size: usize| datagram(RED_IP, behind(id), size - 28);
    let tagged = leaving(TYPE_IPV4)
        .tag(TYPE_VLAN, 5)
        .encode(&Ipv4::new(RED_IP, behind(NARROW), UDP).encode(&udp(1, 2, &[7; 1400 - 31])));
    let mut oracle = lab.node.world.clone();
    // What is said to the sender, icmp.rs looks at.
    let mut too_big = |name, frame: Vec<u8>| {
        let outcome = oracle.judge(Program::Encap, red, &frame);
        assert!(matches!(outcome, Outcome::Answer { reason: Some(Reason::TooBigNoDf), .. }), "{name}");
        (name, red, frame, outcome)
    };
    let mut cases = vec![
        goes_into("as large as may be", red, NARROW, of(NARROW, 1400)),
        too_big("a byte too large", of(NARROW, 1401)),
        goes_into("as large as may be, vlan", red, NARROW_VLAN, of(NARROW_VLAN, 1496)),
        too_big("a byte too large, vlan", of(NARROW_VLAN, 1497)),
        too_big("a byte too large with its tag", tagged),
        too_big("jumbo, a byte too large", of(GENEVE, 9001)),
        goes_into("jumbo, to the host's stack", red, STACK, of(STACK, 9000)),
    ];
    // From where a frame just fits into one buffer, to where it takes several.
    for size in [3000, 3400, 3520, 3600, 4096, 8000, 9000] {
        for id in [GENEVE, VXLAN, VLAN, OUTER_OPTIONS, VLAN_OWN_MACS] {
            let frame = of(id, size);
            let inner = if id == VLAN_OWN_MACS { with_destination(&frame, INNER_MAC) } else { frame.clone() };
            cases.push(("jumbo", red, frame, into(id, &inner)));
        }
    }
    check(&mut lab, cases);
}
