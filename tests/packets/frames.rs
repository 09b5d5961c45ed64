//! Random frames of workloads, from one address to another: of every shape that a packet may have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::common::frame::{
    ACK, DO_NOT_FRAGMENT, Ethernet, Extension, ICMP, ICMP_ECHO_REQUEST, ICMPV6, ICMPV6_ECHO_REQUEST, Ipv4,
    Ipv6, MORE_FRAGMENTS, Mac, SCTP, SYN, TCP, TYPE_IPV4, TYPE_IPV6, TYPE_QINQ, TYPE_VLAN, Tcp, UDP,
    fill_transport_checksum, icmp, icmpv6, mss_option, udp,
};
use crate::random::Random;

/// What a frame is to be like.
pub struct Shape {
    pub macs: (Mac, Mac),
    /// The largest packet, tags included.
    pub mtu: usize,
    /// The smallest TTL.
    pub ttl: u8,
}

fn bytes(random: &mut Random, length: usize) -> Vec<u8> {
    (0..length).map(|_| random.next() as u8).collect()
}

/// Mostly small, sometimes as large as may be, often odd.
fn size(random: &mut Random, most: usize) -> usize {
    match random.below(10) {
        0 => most,
        1 => random.below(most + 1),
        _ => random.below(most.min(200) + 1),
    }
}

/// SYNs with an MSS at an even or odd place among other options, and segments without.
fn segment(random: &mut Random, payload: &[u8]) -> Vec<u8> {
    let mut tcp = Tcp::new(random.next() as u16, random.next() as u16);
    tcp.flags = *random.choose(&[SYN, SYN, SYN | ACK, ACK]);
    if random.below(4) != 0 {
        let others: [&[u8]; 4] = [&[1], &[3, 3, 7], &[4, 2], &[8, 10, 1, 2, 3, 4, 5, 6, 7, 8]];
        for _ in 0..random.below(3) {
            tcp.options.extend(*random.choose(&others));
        }
        tcp.options.extend(mss_option(random.next() as u16));
        while !tcp.options.len().is_multiple_of(4) {
            tcp.options.push(random.below(2) as u8);
        }
    }
    tcp.encode(payload)
}

/// Protocol and message. The checksum, where there is one, is right, wrong or not filled in.
fn message(random: &mut Random, ends: (IpAddr, IpAddr), room: usize) -> (u8, Vec<u8>) {
    let length = size(random, room - 60);
    let payload = bytes(random, length);
    let (protocol, mut message) = match (random.below(8), ends) {
        (0..=2, _) => (UDP, udp(random.next() as u16, random.next() as u16, &payload)),
        (3 | 4, _) => (TCP, segment(random, &payload)),
        (5, (IpAddr::V4(_), _)) => (ICMP, icmp(ICMP_ECHO_REQUEST, 0, 7, &payload)),
        (5, (IpAddr::V6(source), IpAddr::V6(destination))) => {
            (ICMPV6, icmpv6((source, destination), ICMPV6_ECHO_REQUEST, 0, 7, &payload))
        }
        (6, _) => return (SCTP, payload),
        _ => return (*random.choose(&[50, 59, 89, 253]), payload),
    };
    match random.below(6) {
        0 => {
            let at = random.below(message.len());
            message[at] ^= 1 << random.below(8);
        }
        // Of UDP, none at all; of the others, as wrong as can be.
        1 if protocol != ICMP && protocol != ICMPV6 => {}
        _ => fill_transport_checksum(ends.0, ends.1, protocol, &mut message),
    }
    (protocol, message)
}

fn ipv4(random: &mut Random, shape: &Shape, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let options = if random.below(4) == 0 { 4 * random.below(11) } else { 0 };
    let room = shape.mtu - 8 - 20 - options;
    let (protocol, message) = message(random, (source.into(), destination.into()), room);
    let ip = Ipv4 {
        tos: random.next() as u8,
        id: random.next() as u16,
        fragment: *random.choose(&[0, 0, 0, DO_NOT_FRAGMENT, DO_NOT_FRAGMENT, MORE_FRAGMENTS, 100, 0x2064]),
        ttl: shape.ttl + random.below(256 - usize::from(shape.ttl)) as u8,
        options: vec![1; options],
        ..Ipv4::new(source, destination, protocol)
    };
    ip.encode(&message)
}

fn extension(random: &mut Random) -> Extension {
    let length = random.below(20);
    match random.below(4) {
        0 => Extension::HopByHop(vec![0; length]),
        1 => Extension::DestinationOptions(vec![0; length]),
        2 => Extension::Routing { kind: 4, segments_left: 1, data: vec![0; 4 + 8 * random.below(3)] },
        _ => Extension::Fragment {
            offset: *random.choose(&[0, 0, 5]),
            more: random.below(2) == 0,
            id: random.next() as u32,
        },
    }
}

fn ipv6(random: &mut Random, shape: &Shape, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let count = if random.below(3) == 0 { random.below(5) } else { 0 };
    let extensions: Vec<Extension> = (0..count).map(|_| extension(random)).collect();
    let room = shape.mtu - 8 - 40 - 32 * count;
    let (protocol, message) = message(random, (source.into(), destination.into()), room);
    let ip = Ipv6 {
        traffic_class: random.next() as u8,
        flow_label: random.next() as u32 & 0xf_ffff,
        hop_limit: shape.ttl + random.below(256 - usize::from(shape.ttl)) as u8,
        extensions,
        ..Ipv6::new(source, destination, protocol)
    };
    ip.encode(&message)
}

/// An IP packet in a frame, with tags, with padding.
pub fn frame(random: &mut Random, shape: &Shape, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let (ethertype, packet) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            (TYPE_IPV4, ipv4(random, shape, source, destination))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            (TYPE_IPV6, ipv6(random, shape, source, destination))
        }
        ends => panic!("{ends:?} are of two families"),
    };
    let mut ethernet = Ethernet::new(shape.macs.0, shape.macs.1, ethertype);
    for _ in 0..random.below(6).saturating_sub(3) {
        ethernet = ethernet.tag(*random.choose(&[TYPE_VLAN, TYPE_QINQ]), random.next() as u16);
    }
    let mut frame = ethernet.encode(&packet);
    if frame.len() < 60 && random.below(2) == 0 {
        frame.resize(60, 0);
    } else if frame.len() + 40 < shape.mtu && random.below(8) == 0 {
        let padding = random.below(40);
        frame.extend(bytes(random, padding));
    }
    frame
}
