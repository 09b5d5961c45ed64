//! Valid frames of every kind, for those tests that make something else of them.

use std::net::Ipv4Addr;

use mptm::kernel::Program;

use crate::common::frame::{
    ArpOperation, BROADCAST, Ethernet, ICMP, Ipv4, MORE_FRAGMENTS, TCP, TYPE_ARP, TYPE_IPV4, TYPE_QINQ,
    TYPE_VLAN, UDP, arp, tcp, udp,
};
use crate::lab::*;

#[derive(Debug, Clone)]
pub struct Sample {
    pub program: Program,
    pub ifindex: u32,
    pub frame: Vec<u8>,
}

/// From one inner address to another: every kind of packet.
fn packets(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<Vec<u8>> {
    let ip = Ipv4::new(source, destination, UDP);
    let datagram = ip.encode(&udp(1000, 2000, b"a payload of some bytes"));
    let icmp = Ipv4 { protocol: ICMP, ..ip.clone() }.encode(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    let request = arp(ArpOperation::Request, (RED_MAC, source), ([0; 6], destination));
    let probe = arp(ArpOperation::Request, (RED_MAC, Ipv4Addr::UNSPECIFIED), ([0; 6], destination));
    let mac = |ethertype| Ethernet::new(FAR_MAC, RED_MAC, ethertype);
    let broadcast = Ethernet::new(BROADCAST, RED_MAC, TYPE_ARP);
    vec![
        mac(TYPE_IPV4).encode(&datagram),
        mac(TYPE_IPV4).encode(&Ipv4 { protocol: TCP, ..ip.clone() }.encode(&tcp(80, 81, b"tcp"))),
        mac(TYPE_IPV4).encode(&Ipv4 { options: vec![1; 12], ..ip.clone() }.encode(&udp(7, 8, b"options"))),
        mac(TYPE_IPV4).encode(&Ipv4 { fragment: MORE_FRAGMENTS, ..ip.clone() }.encode(&udp(7, 8, &[3; 24]))),
        mac(TYPE_IPV4).encode(&Ipv4 { fragment: 4, ..ip.clone() }.encode(&[4; 16])),
        mac(TYPE_IPV4).tag(TYPE_VLAN, 7).encode(&datagram),
        mac(TYPE_IPV4).tag(TYPE_QINQ, 7).tag(TYPE_VLAN, 8).encode(&datagram),
        [mac(TYPE_IPV4).encode(&icmp), vec![0; 18]].concat(),
        broadcast.encode(&request),
        broadcast.clone().tag(TYPE_VLAN, 7).encode(&request),
        broadcast.encode(&probe),
        mac(TYPE_ARP).encode(&arp(ArpOperation::Reply, (RED_MAC, source), (FAR_MAC, destination))),
    ]
}

/// The lab's frames, both ways, each of which is forwarded.
pub fn samples(lab: &Lab) -> Vec<Sample> {
    let mut all = Vec::new();
    let tunnels = [
        GENEVE,
        VXLAN,
        VLAN,
        GENEVE_OPTIONS,
        VLAN_OWN_MACS,
        NARROW,
        STACK,
        VXLAN_INNER_MAC,
        OUTER_OPTIONS,
        DEBUG,
    ];
    for id in tunnels {
        for frame in packets(RED_IP, behind(id)) {
            all.push(Sample { program: Program::Encap, ifindex: lab.red, frame });
        }
        for inner in packets(behind(id), RED_IP) {
            let frame = lab.tunnel(id).arriving(&inner, 50000);
            all.push(Sample { program: Program::Decap, ifindex: lab.underlay, frame });
        }
    }
    for frame in packets(RED_IP, GREEN_IP) {
        all.push(Sample { program: Program::Encap, ifindex: lab.red, frame });
    }
    for frame in packets(RED_PAIR_IP, behind(GENEVE)) {
        all.push(Sample { program: Program::Encap, ifindex: lab.red, frame });
    }
    for frame in packets(RED_IP, behind(GENEVE)) {
        all.push(Sample { program: Program::Encap, ifindex: lab.blue, frame });
    }
    for inner in packets(behind(GENEVE), RED_PAIR_IP) {
        let frame = lab.tunnel(PAIR).arriving(&inner, 50000);
        all.push(Sample { program: Program::Decap, ifindex: lab.underlay, frame });
    }
    all
}
