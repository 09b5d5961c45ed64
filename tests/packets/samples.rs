//! Valid frames of every kind, for those tests that make something else of them.

use std::net::{Ipv4Addr, Ipv6Addr};

use mptm::kernel::Program;

use crate::common::frame::{
    ArpOperation, BROADCAST, Ethernet, Extension, ICMP, ICMP_ECHO_REQUEST, ICMPV6, ICMPV6_ECHO_REQUEST, Ipv4,
    Ipv6, MORE_FRAGMENTS, NA_SOLICITED, SOURCE_LINK_LAYER, TARGET_LINK_LAYER, TCP, TYPE_ARP, TYPE_IPV4,
    TYPE_IPV6, TYPE_QINQ, TYPE_VLAN, Tcp, UDP, arp, encapsulation_limit, group_mac, icmp, icmpv6,
    link_layer_option, mss_option, neighbour_advertisement, neighbour_solicitation, solicited_node, udp,
    udp_with_checksum, with_transport_checksum,
};
use crate::lab::*;
use crate::patched::inserted;
use crate::wide::behind6;
use crate::world::Own;

#[derive(Debug, Clone)]
pub struct Sample {
    pub program: Program,
    pub ifindex: u32,
    pub frame: Vec<u8>,
}

fn mac(ethertype: u16) -> Ethernet {
    Ethernet::new(FAR_MAC, RED_MAC, ethertype)
}

/// A SYN with an MSS, from one address to another of the same family.
fn syn() -> Tcp {
    let options = [&[1][..], &mss_option(8960), &[1, 1, 1]].concat();
    Tcp { options, ..Tcp::new(80, 81) }
}

/// From one inner address to another: every kind of IPv4 packet.
fn ipv4_packets(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<Vec<u8>> {
    let ip = Ipv4::new(source, destination, UDP);
    let (a, b) = (source.into(), destination.into());
    let syn = with_transport_checksum(a, b, TCP, syn().encode(b"syn"));
    vec![
        ip.encode(&udp(1000, 2000, b"a payload of some bytes")),
        ip.encode(&udp_with_checksum((a, 1000), (b, 2000), b"with checksum")),
        Ipv4 { protocol: TCP, ..ip.clone() }.encode(&syn),
        Ipv4 { options: vec![1; 12], tos: 0xb9, ..ip.clone() }.encode(&udp(7, 8, b"options")),
        Ipv4 { fragment: MORE_FRAGMENTS, ..ip.clone() }.encode(&udp(7, 8, &[3; 24])),
        Ipv4 { fragment: 4, ..ip.clone() }.encode(&[4; 16]),
        Ipv4 { protocol: ICMP, ..ip }.encode(&icmp(ICMP_ECHO_REQUEST, 0, 7, &[])),
    ]
}

/// The same of IPv6.
fn ipv6_packets(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<Vec<u8>> {
    let ip = Ipv6::new(source, destination, UDP);
    let (a, b) = (source.into(), destination.into());
    let datagram = udp_with_checksum((a, 1000), (b, 2000), b"a payload of some bytes");
    let syn = with_transport_checksum(a, b, TCP, syn().encode(b"syn"));
    let echo = icmpv6((source, destination), ICMPV6_ECHO_REQUEST, 0, 7, b"echo");
    let fragment = |offset, more| ip.clone().extension(Extension::Fragment { offset, more, id: 9 });
    vec![
        Ipv6 { traffic_class: 0x2a, flow_label: 0x12345, ..ip.clone() }.encode(&datagram),
        Ipv6 { protocol: TCP, ..ip.clone() }.encode(&syn),
        Ipv6 { protocol: ICMPV6, ..ip.clone() }.encode(&echo),
        ip.clone()
            .extension(Extension::HopByHop(vec![5, 2, 0, 0]))
            .extension(encapsulation_limit(4))
            .encode(&datagram),
        fragment(0, true).encode(&datagram[..24]),
        fragment(3, false).encode(&datagram[24..]),
    ]
}

/// Resolution of a target's MAC address, and its answer: ARP.
fn arp_frames(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<Vec<u8>> {
    let request = arp(ArpOperation::Request, (RED_MAC, source), ([0; 6], destination));
    let probe = arp(ArpOperation::Request, (RED_MAC, Ipv4Addr::UNSPECIFIED), ([0; 6], destination));
    let broadcast = Ethernet::new(BROADCAST, RED_MAC, TYPE_ARP);
    vec![
        broadcast.encode(&request),
        broadcast.clone().tag(TYPE_VLAN, 7).encode(&request),
        broadcast.encode(&probe),
        mac(TYPE_ARP).encode(&arp(ArpOperation::Reply, (RED_MAC, source), (FAR_MAC, destination))),
    ]
}

/// A solicitation with its asker's MAC address.
pub fn solicitation(source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    solicitation_with(source, target, &link_layer_option(SOURCE_LINK_LAYER, RED_MAC))
}

fn solicitation_with(source: Ipv6Addr, target: Ipv6Addr, option: &[u8]) -> Vec<u8> {
    let group = solicited_node(target);
    let ip = Ipv6 { hop_limit: 255, ..Ipv6::new(source, group, ICMPV6) };
    let message = neighbour_solicitation((source, group), target, option);
    Ethernet::new(group_mac(group.into()), RED_MAC, TYPE_IPV6).encode(&ip.encode(&message))
}

/// An answer to one.
pub fn advertisement(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let option = link_layer_option(TARGET_LINK_LAYER, RED_MAC);
    let message = neighbour_advertisement((source, destination), NA_SOLICITED, source, &option);
    let ip = Ipv6 { hop_limit: 255, ..Ipv6::new(source, destination, ICMPV6) };
    mac(TYPE_IPV6).encode(&ip.encode(&message))
}

/// Neighbour discovery.
fn nd_frames(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<Vec<u8>> {
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, source.segments()[7]);
    vec![
        solicitation(source, destination),
        solicitation(link_local, destination),
        solicitation_with(Ipv6Addr::UNSPECIFIED, destination, &[]),
        advertisement(source, destination),
    ]
}

/// From red to what is behind a tunnel: ARP, and neighbour discovery.
pub fn resolution(id: u8) -> Vec<Vec<u8>> {
    [arp_frames(RED_IP, behind(id)), nd_frames(RED_IP6, behind6(id))].concat()
}

/// From one inner address to another: every kind of frame with an IP packet.
fn ip_frames(ipv4: (Ipv4Addr, Ipv4Addr), ipv6: (Ipv6Addr, Ipv6Addr)) -> Vec<Vec<u8>> {
    let ipv4 = ipv4_packets(ipv4.0, ipv4.1);
    let ipv6 = ipv6_packets(ipv6.0, ipv6.1);
    let mut all = vec![
        mac(TYPE_IPV4).tag(TYPE_VLAN, 0xa007).encode(&ipv4[0]),
        mac(TYPE_IPV4).tag(TYPE_QINQ, 7).tag(TYPE_VLAN, 8).encode(&ipv4[0]),
        mac(TYPE_IPV6).tag(TYPE_QINQ, 7).tag(TYPE_VLAN, 8).encode(&ipv6[0]),
    ];
    all.extend(ipv4.iter().map(|packet| mac(TYPE_IPV4).encode(packet)));
    all.extend(ipv6.iter().map(|packet| mac(TYPE_IPV6).encode(packet)));
    // The shortest of them, an echo request, padded to what Ethernet wants.
    all[9].resize(60, 0);
    all
}

/// To a group of either family.
fn group_frames(ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> [Vec<u8>; 2] {
    let (group, group6) = (Ipv4Addr::new(239, 1, 2, 3), Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 1, 2));
    let ends = ((ipv6.into(), 7), (group6.into(), 8));
    let to = |group, ethertype| Ethernet::new(group_mac(group), RED_MAC, ethertype);
    [
        to(group.into(), TYPE_IPV4).encode(&Ipv4::new(ipv4, group, UDP).encode(&udp(7, 8, b"to all"))),
        to(group6.into(), TYPE_IPV6)
            .encode(&Ipv6::new(ipv6, group6, UDP).encode(&udp_with_checksum(ends.0, ends.1, b"to all"))),
    ]
}

/// Those of the lab's frames that are forwarded only where multicast is.
pub fn groups(lab: &Lab) -> Vec<Sample> {
    let leave = |frame| Sample { program: Program::Encap, ifindex: lab.red, frame };
    let arrive = |frame| Sample { program: Program::Decap, ifindex: lab.underlay, frame };
    let mut all: Vec<Sample> = group_frames(RED_IP, RED_IP6).into_iter().map(leave).collect();
    for id in lab.which(|tunnel| !tunnel.kind.carries_ip()) {
        for inner in group_frames(behind(id), behind6(id)) {
            all.push(arrive(lab.tunnel(id).arriving(&inner, 50000)));
        }
    }
    all
}

/// An outer frame over IPv6, with what Linux puts before its payload, and another extension header.
fn behind_extensions(outer: &[u8]) -> Vec<u8> {
    let mut frame = outer.to_vec();
    let next = std::mem::replace(&mut frame[20], 0);
    inserted(&frame, 54, &[60, 0, 1, 4, 0, 0, 0, 0, next, 0, 4, 1, 4, 1, 1, 0])
}

/// The lab's frames, both ways, each of which is forwarded or answered.
pub fn samples(lab: &Lab) -> Vec<Sample> {
    samples_after(lab, 0)
}

/// The same, with GRE sequence numbers from the next one on.
pub fn samples_after(lab: &Lab, mut sequence: u32) -> Vec<Sample> {
    let mut all = Vec::new();
    let mut leave = |ifindex, frame| all.push(Sample { program: Program::Encap, ifindex, frame });
    let narrow = [
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
    for id in narrow {
        for packet in ipv4_packets(RED_IP, behind(id)) {
            leave(lab.red, mac(TYPE_IPV4).encode(&packet));
        }
        arp_frames(RED_IP, behind(id)).into_iter().for_each(|frame| leave(lab.red, frame));
    }
    for id in &lab.wide {
        for frame in ip_frames((RED_IP, behind(*id)), (RED_IP6, behind6(*id))) {
            leave(lab.red, frame);
        }
        // Over IP payloads these are answered, but for the answers.
        let answers = if lab.tunnel(*id).kind.carries_ip() { 3 } else { 4 };
        for frames in [arp_frames(RED_IP, behind(*id)), nd_frames(RED_IP6, behind6(*id))] {
            frames.into_iter().take(answers).for_each(|frame| leave(lab.red, frame));
        }
    }
    for frame in ip_frames((RED_IP, GREEN_IP), (RED_IP6, GREEN_IP6)) {
        leave(lab.red, frame);
    }
    for packet in ipv4_packets(RED_PAIR_IP, behind(GENEVE)) {
        leave(lab.red, mac(TYPE_IPV4).encode(&packet));
    }
    for packet in ipv4_packets(RED_IP, behind(GENEVE)) {
        leave(lab.blue, mac(TYPE_IPV4).encode(&packet));
    }
    let gateway = [arp_frames(RED_IP, GATEWAY), nd_frames(RED_IP6, GATEWAY6)].concat();
    gateway.into_iter().filter(|frame| frame[0] & 1 != 0).for_each(|frame| leave(lab.red, frame));

    let mut arrive = |all: &mut Vec<Sample>, id, inner: &[u8]| {
        sequence += 1;
        let own = Own { port: 50000, sequence, ip_id: 7, label: 0x54321 };
        let frame = lab.tunnel(id).arriving_as(inner, own);
        all.push(Sample { program: Program::Decap, ifindex: lab.underlay, frame });
    };
    for id in narrow {
        for packet in ipv4_packets(behind(id), RED_IP) {
            arrive(&mut all, id, &mac(TYPE_IPV4).encode(&packet));
        }
        arp_frames(behind(id), RED_IP).iter().for_each(|frame| arrive(&mut all, id, frame));
    }
    for packet in ipv4_packets(behind(GENEVE), RED_PAIR_IP) {
        arrive(&mut all, PAIR, &mac(TYPE_IPV4).encode(&packet));
    }
    for id in &lab.wide {
        for frame in ip_frames((behind(*id), RED_IP), (behind6(*id), RED_IP6)) {
            arrive(&mut all, *id, &frame);
        }
        if lab.tunnel(*id).is_ipv6() {
            let last = all.last_mut().expect("just made");
            last.frame = behind_extensions(&last.frame);
        }
        if !lab.tunnel(*id).kind.carries_ip() {
            for frames in [arp_frames(behind(*id), RED_IP), nd_frames(behind6(*id), RED_IP6)] {
                frames.iter().for_each(|frame| arrive(&mut all, *id, frame));
            }
        }
    }
    all
}
