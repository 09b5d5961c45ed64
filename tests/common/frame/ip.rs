//! IPv4 with options, and IPv6 with extension headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::checksum;
use super::ethernet::{TYPE_IPV4, TYPE_IPV6};

pub const ICMP: u8 = 1;
/// IPv4 as a payload (RFC 2003).
pub const IPV4_IN_IP: u8 = 4;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
/// IPv6 as a payload (RFC 2473, RFC 4213).
pub const IPV6_IN_IP: u8 = 41;
pub const GRE: u8 = 47;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;

pub const MORE_FRAGMENTS: u16 = 0x2000;
pub const DO_NOT_FRAGMENT: u16 = 0x4000;

/// IPv4 (RFC 791).
#[derive(Debug, Clone)]
pub struct Ipv4 {
    pub tos: u8,
    pub id: u16,
    /// Flags and offset, as they stand in the header.
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    /// A multiple of four bytes.
    pub options: Vec<u8>,
}

impl Ipv4 {
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Self {
        Self { tos: 0, id: 7, fragment: 0, ttl: 64, protocol, source, destination, options: Vec::new() }
    }

    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let total = u16::try_from(header + payload.len()).expect("an IPv4 packet has at most 65535 bytes");
        let mut out = vec![0x40 | (header / 4) as u8, self.tos];
        out.extend(total.to_be_bytes());
        out.extend(self.id.to_be_bytes());
        out.extend(self.fragment.to_be_bytes());
        out.extend([self.ttl, self.protocol, 0, 0]);
        out.extend(self.source.octets());
        out.extend(self.destination.octets());
        out.extend(&self.options);
        let sum = checksum(&out);
        out[10..12].copy_from_slice(&sum.to_be_bytes());
        out.extend(payload);
        out
    }
}

/// An IPv6 extension header (RFC 8200, 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extension {
    /// Its options, which are padded to what the header's length can say.
    HopByHop(Vec<u8>),
    /// The same.
    DestinationOptions(Vec<u8>),
    /// Type, segments left, and data: 4 bytes, and any multiple of 8.
    Routing { kind: u8, segments_left: u8, data: Vec<u8> },
    /// The offset is in units of 8 bytes.
    Fragment { offset: u16, more: bool, id: u32 },
}

impl Extension {
    /// As the next-header field of what is before it has it.
    pub fn number(&self) -> u8 {
        match self {
            Self::HopByHop(_) => 0,
            Self::Routing { .. } => 43,
            Self::Fragment { .. } => 44,
            Self::DestinationOptions(_) => 60,
        }
    }

    fn encode(&self, next: u8) -> Vec<u8> {
        let mut out = vec![next, 0];
        match self {
            Self::HopByHop(options) | Self::DestinationOptions(options) => {
                out.extend(options);
                match (8 - out.len() % 8) % 8 {
                    0 => {}
                    // Pad1 has no length; PadN has (RFC 8200, 4.2).
                    1 => out.push(0),
                    room => {
                        out.extend([1, room as u8 - 2]);
                        out.resize(out.len() + room - 2, 0);
                    }
                }
            }
            Self::Routing { kind, segments_left, data } => {
                out.extend([*kind, *segments_left]);
                out.extend(data);
                assert!(out.len().is_multiple_of(8), "a routing header is a multiple of 8 bytes");
            }
            Self::Fragment { offset, more, id } => {
                out.extend((offset << 3 | u16::from(*more)).to_be_bytes());
                out.extend(id.to_be_bytes());
                // The second byte is reserved, not a length.
                return out;
            }
        }
        out[1] = (out.len() / 8 - 1) as u8;
        out
    }
}

/// The destination options that Linux puts between an outer IPv6 header and its payload (RFC 2473, 4.1.1).
pub fn encapsulation_limit(limit: u8) -> Extension {
    Extension::DestinationOptions(vec![4, 1, limit])
}

/// IPv6 (RFC 8200).
#[derive(Debug, Clone)]
pub struct Ipv6 {
    pub traffic_class: u8,
    /// 20 bits.
    pub flow_label: u32,
    pub hop_limit: u8,
    /// That of the payload, behind all extension headers.
    pub protocol: u8,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    /// In the order in which they stand.
    pub extensions: Vec<Extension>,
}

impl Ipv6 {
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8) -> Self {
        Self {
            traffic_class: 0,
            flow_label: 0,
            hop_limit: 64,
            protocol,
            source,
            destination,
            extensions: Vec::new(),
        }
    }

    #[must_use]
    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        assert!(self.flow_label < 1 << 20, "a flow label has 20 bits");
        let mut numbers: Vec<u8> = self.extensions.iter().map(Extension::number).collect();
        numbers.push(self.protocol);
        let mut rest = Vec::new();
        for (extension, next) in self.extensions.iter().zip(&numbers[1..]) {
            rest.extend(extension.encode(*next));
        }
        rest.extend(payload);
        let length = u16::try_from(rest.len()).expect("an IPv6 payload has at most 65535 bytes");
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label;
        let mut out = first.to_be_bytes().to_vec();
        out.extend(length.to_be_bytes());
        out.extend([numbers[0], self.hop_limit]);
        out.extend(self.source.octets());
        out.extend(self.destination.octets());
        out.extend(rest);
        out
    }
}

/// A plain packet of either family.
pub fn ip_packet(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Ipv4::new(source, destination, protocol).encode(payload)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Ipv6::new(source, destination, protocol).encode(payload)
        }
        _ => panic!("{source} and {destination} are of two families"),
    }
}

/// The EtherType of an IP packet.
pub fn type_of(packet: &[u8]) -> u16 {
    match packet[0] >> 4 {
        4 => TYPE_IPV4,
        6 => TYPE_IPV6,
        other => panic!("IP version {other}"),
    }
}

/// The IP protocol number of an IP packet inside another.
pub fn ip_protocol_of(packet: &[u8]) -> u8 {
    if type_of(packet) == TYPE_IPV4 { IPV4_IN_IP } else { IPV6_IN_IP }
}
