//! What mptm says itself: ICMP errors, ARP and neighbour discovery, GTP-U echo.

use std::net::{IpAddr, Ipv6Addr};

use mptm::reason::Reason;

use super::Outcome;
use super::inner::{Class, Inner, ipv4_at, ipv6_at, word};
use crate::common::frame::{
    ArpOperation, DO_NOT_FRAGMENT, Gtpu, GtpuMessage, ICMP, ICMPV6, Ipv4, Ipv6, NA_OVERRIDE, NA_ROUTER,
    NA_SOLICITED, TARGET_LINK_LAYER, UDP, arp, group_mac, icmp_fragmentation_needed, icmpv6_packet_too_big,
    link_layer_option, neighbour_advertisement, transport_checksum, udp_with_checksum,
};
use crate::world::Interface;

/// What becomes of a question.
pub enum Answer {
    /// A frame that goes back, and what is counted besides.
    Frame(Vec<u8>, Option<Reason>),
    None(Outcome),
}

/// Whose address is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Host,
    Gateway,
}

/// Errors, and all but the first fragment, are not answered (RFC 1122, 3.2.2; RFC 4443, 2.4).
fn may_be_answered(frame: &[u8], inner: &Inner) -> bool {
    let Some(l4) = inner.l4 else { return !inner.later };
    let kind = frame[..].get(l4).copied();
    match (inner.class, inner.protocol) {
        (Class::Ipv4, ICMP) => matches!(kind, Some(0 | 8 | 13 | 14)),
        (Class::Ipv6, ICMPV6) => matches!(kind, Some(128..)),
        _ => true,
    }
}

/// An answer to a packet that is too big (RFC 1191, 4; RFC 4443, 3.2).
pub fn too_big(frame: &[u8], inner: &Inner, mtu: u32) -> Answer {
    let reason = if inner.class == Class::Ipv4 && !inner.df { Reason::TooBigNoDf } else { Reason::TooBig };
    if !inner.is_ip() || !may_be_answered(frame, inner) {
        return Answer::None(Outcome::Drop(reason));
    }
    let packet = &frame[inner.l3..inner.end];
    let answer = match (inner.source, inner.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let quote = &packet[..packet.len().min(576 - 28)];
            let ip =
                Ipv4 { tos: 0xc0, id: 0, fragment: DO_NOT_FRAGMENT, ..Ipv4::new(destination, source, ICMP) };
            ip.encode(&icmp_fragmentation_needed(mtu.max(576) as u16, quote))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let quote = &packet[..packet.len().min(1280 - 48)];
            let message = icmpv6_packet_too_big((destination, source), mtu.max(1280), quote);
            Ipv6::new(destination, source, ICMPV6).encode(&message)
        }
        _ => unreachable!("both are of one packet"),
    };
    let frame = [&frame[6..12], &frame[..6], &frame[12..inner.l3], &answer].concat();
    Answer::Frame(frame, Some(reason))
}

/// An answer to who asks for an address that is behind this interface (RFC 826; RFC 4861, 7.2.4).
pub fn neighbour(frame: &[u8], inner: &Inner, interface: &Interface, role: Role) -> Answer {
    let head = &frame[12..inner.l3];
    let own = interface.mac;
    match (inner.class, inner.source, inner.destination) {
        (Class::Arp, IpAddr::V4(sender), IpAddr::V4(target)) => {
            let request = &frame[inner.l3..inner.l3 + 28];
            if request[6..8] != [0, 1] {
                return Answer::None(Outcome::Pass);
            }
            let asker = request[8..14].try_into().expect("a MAC address");
            let reply = arp(ArpOperation::Reply, (own, target), (asker, sender));
            let padding = &frame[inner.l3 + 28..];
            let frame = [&frame[6..12], &own[..], head, &reply, padding].concat();
            Answer::Frame(frame, None)
        }
        (Class::Solicitation, IpAddr::V6(source), IpAddr::V6(target)) => {
            let ip = &frame[inner.l3..inner.end];
            if transport_checksum(ipv6_at(&ip[8..]), ipv6_at(&ip[24..]), ICMPV6, &ip[40..]) != 0 {
                return Answer::None(Outcome::Drop(Reason::Malformed));
            }
            // Whoever has no address yet is told with all others.
            let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            let (to, flags, mac) = if source.is_unspecified() {
                (all_nodes, NA_OVERRIDE, group_mac(all_nodes.into()))
            } else {
                (source, NA_SOLICITED | NA_OVERRIDE, frame[6..12].try_into().expect("a MAC address"))
            };
            let flags = if role == Role::Gateway { flags | NA_ROUTER } else { flags };
            let option = link_layer_option(TARGET_LINK_LAYER, own);
            let message = neighbour_advertisement((target, to), flags, target, &option);
            let ip = Ipv6 { hop_limit: 255, ..Ipv6::new(target, to, ICMPV6) };
            let frame = [&mac, &own[..], head, &ip.encode(&message)].concat();
            Answer::Frame(frame, None)
        }
        _ => Answer::None(Outcome::Pass),
    }
}

/// The answer to an echo request of GTP-U (3GPP TS 29.281, 7.2.2), whose UDP header is at `l4`.
pub fn echo(frame: &[u8], l4: usize) -> Vec<u8> {
    let sequence = if frame[l4 + 8] & 2 != 0 { word(frame, l4 + 16).expect("it was looked at") } else { 0 };
    let message = Gtpu { message: GtpuMessage::EchoResponse, sequence: Some(sequence), ..Gtpu::new(0) };
    // The recovery element: type, and a counter that means nothing any more.
    let message = message.encode(&[14, 0]);
    let ports = (word(frame, l4).expect("a UDP header"), word(frame, l4 + 2).expect("a UDP header"));
    let ip = &frame[14..];
    let packet = if ip[0] >> 4 == 4 {
        let (from, to) = (ipv4_at(&ip[16..]), ipv4_at(&ip[12..]));
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (from, to) else { unreachable!() };
        // What the request's header has, the answer's has, too.
        let header = Ipv4 {
            tos: ip[1],
            id: word(ip, 4).expect("an IPv4 header"),
            fragment: word(ip, 6).expect("an IPv4 header"),
            ..Ipv4::new(source, destination, UDP)
        };
        header.encode(&udp_with_checksum((from, ports.1), (to, ports.0), &message))
    } else {
        let (from, to) = (ipv6_at(&ip[24..]), ipv6_at(&ip[8..]));
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (from, to) else { unreachable!() };
        let first = u32::from_be_bytes([ip[0], ip[1], ip[2], ip[3]]);
        let header = Ipv6 {
            traffic_class: (first >> 20) as u8,
            flow_label: first & 0xf_ffff,
            ..Ipv6::new(source, destination, UDP)
        };
        header.encode(&udp_with_checksum((from, ports.1), (to, ports.0), &message))
    };
    [&frame[6..12], &frame[..6], &frame[12..14], &packet].concat()
}
