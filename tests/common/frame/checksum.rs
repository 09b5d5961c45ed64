//! The Internet checksum (RFC 1071) and where it stands.

use std::net::IpAddr;

use super::ip::{ICMP, ICMPV6, TCP, UDP};

/// The Internet checksum (RFC 1071); zero over what already has its checksum.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The pseudo header (RFC 768; RFC 8200, 8.1) in front of what it is for.
fn with_pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            out.extend(source.octets());
            out.extend(destination.octets());
            out.extend([0, protocol]);
            out.extend(u16::try_from(segment.len()).expect("at most 65535 bytes").to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            out.extend(source.octets());
            out.extend(destination.octets());
            out.extend(u32::try_from(segment.len()).expect("at most 4 GiB").to_be_bytes());
            out.extend([0, 0, 0, protocol]);
        }
        _ => panic!("{source} and {destination} are of two families"),
    }
    out.extend(segment);
    out
}

/// The checksum over a UDP, TCP, ICMP or ICMPv6 message as it is. For one that has its checksum already, 0 if it is
/// right; UDP sends 0xffff in place of a 0, since 0 says that there is none.
pub fn transport_checksum(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    if protocol == ICMP {
        return checksum(segment);
    }
    checksum(&with_pseudo_header(source, destination, protocol, segment))
}

/// Where a transport protocol has its checksum.
fn checksum_offset(protocol: u8) -> usize {
    match protocol {
        UDP => 6,
        TCP => 16,
        ICMP | ICMPV6 => 2,
        other => panic!("no checksum in protocol {other}"),
    }
}

/// Writes the right checksum, whatever stands there.
pub fn fill_transport_checksum(source: IpAddr, destination: IpAddr, protocol: u8, segment: &mut [u8]) {
    let at = checksum_offset(protocol);
    segment[at..at + 2].fill(0);
    let sum = match transport_checksum(source, destination, protocol, segment) {
        0 if protocol == UDP => 0xffff,
        sum => sum,
    };
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The same message with the right checksum.
#[must_use]
pub fn with_transport_checksum(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    mut segment: Vec<u8>,
) -> Vec<u8> {
    fill_transport_checksum(source, destination, protocol, &mut segment);
    segment
}

/// Whether a message has the right checksum; a UDP datagram without one has not.
pub fn transport_checksum_is_right(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    segment: &[u8],
) -> bool {
    let at = checksum_offset(protocol);
    (protocol != UDP || segment[at..at + 2] != [0, 0])
        && transport_checksum(source, destination, protocol, segment) == 0
}

/// Writes the checksum of a GRE packet (RFC 2784, 2.3), whose C flag must be set: it covers header and payload.
pub fn fill_gre_checksum(packet: &mut [u8]) {
    assert!(packet[0] & 0x80 != 0, "a GRE header without the C flag has no checksum");
    packet[4..6].fill(0);
    let sum = checksum(packet);
    packet[4..6].copy_from_slice(&sum.to_be_bytes());
}

/// Whether a GRE packet has the C flag and the right checksum.
pub fn gre_checksum_is_right(packet: &[u8]) -> bool {
    packet[0] & 0x80 != 0 && checksum(packet) == 0
}
