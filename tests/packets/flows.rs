//! What tells flows apart on the underlay: UDP source ports and flow labels.

use std::collections::BTreeSet;

use mptm::kernel::Program;

use crate::common::frame::{
    Extension, ICMP, Ipv4, Ipv6, MORE_FRAGMENTS, SCTP, TCP, TYPE_IPV4, TYPE_IPV6, UDP, tcp, udp,
};
use crate::lab::*;
use crate::wide::behind6;
use crate::world::Kind;

#[test]
fn of_ipv4() {
    let Some(mut lab) = Lab::new("flows::of_ipv4") else { return };
    let ip = Ipv4::new(RED_IP, behind(GENEVE), UDP);
    let mut port_of = |inner: Vec<u8>| {
        let frame = leaving(TYPE_IPV4).encode(&inner);
        let run = lab.node.run(Program::Encap, lab.red, &frame);
        lab.node.own(&"source ports", GENEVE.into(), &frame, &run.frame).port
    };

    let whole = udp(1000, 2000, &[1; 2000]);
    let fragments = [
        Ipv4 { fragment: MORE_FRAGMENTS, ..ip.clone() }.encode(&whole[..1000]),
        Ipv4 { fragment: MORE_FRAGMENTS | 125, ..ip.clone() }.encode(&whole[1000..1600]),
        Ipv4 { fragment: 200, ..ip.clone() }.encode(&whole[1600..]),
    ]
    .map(&mut port_of);
    assert!(fragments.iter().all(|port| *port == fragments[0]), "{fragments:?}: one datagram, one port");

    let mut ports = BTreeSet::new();
    for flow in 0..1000_u16 {
        ports.insert(port_of(ip.encode(&udp(1000 + flow, 2000, b"x"))));
        ports.insert(port_of(Ipv4 { protocol: TCP, ..ip.clone() }.encode(&tcp(1000, flow, b"x"))));
    }
    // SCTP has its ports where UDP has them (RFC 9260, 3.1); of other protocols, nothing but the addresses counts.
    for (protocol, spread) in [(SCTP, 90..=100), (ICMP, 1..=1)] {
        let flows: BTreeSet<u16> = (0..100)
            .map(|flow| port_of(Ipv4 { protocol, ..ip.clone() }.encode(&udp(flow, 2000, b"x"))))
            .collect();
        assert!(spread.contains(&flows.len()), "100 flows of protocol {protocol} take {} ports", flows.len());
    }
    // 2000 throws at 16384 ports hit 1883 of them on average, with a standard deviation of about 10.
    assert!(ports.len() > 1800, "2000 flows take only {} ports", ports.len());
    let quarters: Vec<usize> = (0..4_u16)
        .map(|quarter| {
            let first = 49152 + quarter * 4096;
            ports.range(first..=first + 4095).count()
        })
        .collect();
    assert!(quarters.iter().all(|count| *count > 300), "{quarters:?}: ports are spread over the range");
}

/// The same over IPv6, whose first fragment has headers that the others have not; and of flow labels.
#[test]
fn of_ipv6() {
    let Some(mut lab) = Lab::new("flows::of_ipv6") else { return };
    let red = lab.red;
    let id = lab.which(|tunnel| tunnel.is_ipv6() && tunnel.kind == Kind::VXLAN)[0];
    let ip = Ipv6::new(RED_IP6, behind6(id), UDP);
    let mut own = |packet: Vec<u8>| {
        let frame = leaving(TYPE_IPV6).encode(&packet);
        let run = lab.node.run(Program::Encap, red, &frame);
        lab.node.own(&"flows of IPv6", id.into(), &frame, &run.frame)
    };
    // Destination options between the fragment header and UDP are in the first fragment alone.
    let options = Extension::DestinationOptions(vec![0; 4]);
    let datagram =
        Ipv6 { protocol: UDP, ..ip.clone() }.extension(options.clone()).encode(&udp(1, 2, &[1; 200]));
    let fragmentable = &datagram[40..];
    let mut fragment = |offset: usize, end: usize, more| {
        let header = Extension::Fragment { offset: offset as u16 / 8, more, id: 7 };
        let part = Ipv6 { protocol: options.number(), ..ip.clone() }.extension(header);
        own(part.encode(&fragmentable[offset..end]))
    };
    let fragments =
        [fragment(0, 80, true), fragment(80, 160, true), fragment(160, fragmentable.len(), false)];
    assert!(fragments.iter().all(|own| *own == fragments[0]), "{fragments:?}: one datagram, one flow");

    let (mut ports, mut labels) = (BTreeSet::new(), BTreeSet::new());
    for flow in 0..1000_u16 {
        for packet in [
            ip.encode(&udp(1000 + flow, 2000, b"x")),
            // Extension headers don't hide the ports.
            ip.clone().extension(options.clone()).encode(&udp(1000 + flow, 3000, b"x")),
        ] {
            let own = own(packet);
            ports.insert(own.port);
            labels.insert(own.label);
        }
    }
    // 2000 throws at 16384 ports and 2^20 labels.
    assert!(ports.len() > 1800, "2000 flows take only {} ports", ports.len());
    assert!(labels.len() > 1980, "2000 flows take only {} labels", labels.len());
}
