//! ICMP, ICMPv6 and neighbour discovery, with their checksums.

use std::net::{IpAddr, Ipv6Addr};

use super::checksum::with_transport_checksum;
use super::ethernet::Mac;
use super::ip::{ICMP, ICMPV6};

pub const ICMP_ECHO_REPLY: u8 = 0;
pub const ICMP_ECHO_REQUEST: u8 = 8;
pub const ICMPV6_ECHO_REQUEST: u8 = 128;
pub const ICMPV6_ECHO_REPLY: u8 = 129;

fn message(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, code, 0, 0];
    out.extend(rest);
    out.extend(payload);
    out
}

/// ICMP (RFC 792): type, code, the second word, and what follows.
pub fn icmp(kind: u8, code: u8, rest: u32, payload: &[u8]) -> Vec<u8> {
    let any = IpAddr::from([0; 4]);
    with_transport_checksum(any, any, ICMP, message(kind, code, rest.to_be_bytes(), payload))
}

/// ICMPv6 (RFC 4443), whose checksum covers the addresses.
pub fn icmpv6(
    (source, destination): (Ipv6Addr, Ipv6Addr),
    kind: u8,
    code: u8,
    rest: u32,
    payload: &[u8],
) -> Vec<u8> {
    let out = message(kind, code, rest.to_be_bytes(), payload);
    with_transport_checksum(source.into(), destination.into(), ICMPV6, out)
}

/// Fragmentation needed and DF set (RFC 1191, 4); `original` is what the packet's beginning is quoted from.
pub fn icmp_fragmentation_needed(mtu: u16, original: &[u8]) -> Vec<u8> {
    icmp(3, 4, mtu.into(), original)
}

/// Packet too big (RFC 4443, 3.2).
pub fn icmpv6_packet_too_big(ends: (Ipv6Addr, Ipv6Addr), mtu: u32, original: &[u8]) -> Vec<u8> {
    icmpv6(ends, 2, 0, mtu, original)
}

/// The group in which the owner of an address listens for solicitations (RFC 4291, 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

pub const SOURCE_LINK_LAYER: u8 = 1;
pub const TARGET_LINK_LAYER: u8 = 2;

/// An option with a MAC address (RFC 4861, 4.6.1).
pub fn link_layer_option(kind: u8, mac: Mac) -> Vec<u8> {
    let mut out = vec![kind, 1];
    out.extend(mac);
    out
}

/// Neighbour solicitation (RFC 4861, 4.3).
pub fn neighbour_solicitation(ends: (Ipv6Addr, Ipv6Addr), target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    icmpv6(ends, 135, 0, 0, &[&target.octets()[..], options].concat())
}

pub const NA_ROUTER: u32 = 1 << 31;
pub const NA_SOLICITED: u32 = 1 << 30;
pub const NA_OVERRIDE: u32 = 1 << 29;

/// Neighbour advertisement (RFC 4861, 4.4), with `NA_` flags.
pub fn neighbour_advertisement(
    ends: (Ipv6Addr, Ipv6Addr),
    flags: u32,
    target: Ipv6Addr,
    options: &[u8],
) -> Vec<u8> {
    icmpv6(ends, 136, 0, flags, &[&target.octets()[..], options].concat())
}
