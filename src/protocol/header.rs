//! What the outer headers have in common: Ethernet, IPv4 and UDP, as bytes.

use std::net::IpAddr;

use crate::kernel::abi::{MAX_HEADER, tunnel_flags};
use crate::mac::MacAddr;
use crate::state::{RemoteMac, Tunnel};

/// Bytes of an Ethernet header.
pub const ETHERNET: u32 = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const IPPROTO_UDP: u8 = 17;
/// RFC 1700's recommendation, and what Linux sends.
const TTL: u8 = 64;

/// An outer header, and where its parts are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// All of it, in network byte order; what differs from packet to packet is zero.
    pub bytes: Vec<u8>,
    /// Bytes at the inner frame's front that it replaces.
    pub pop: u16,
    /// Where the IP header begins.
    pub l3_offset: u16,
    /// Where the UDP header begins.
    pub l4_offset: u16,
    /// `tunnel_flags` that follow from it.
    pub flags: u32,
}

impl Header {
    /// Begins with the Ethernet addresses; those that are the inner frame's, or not known yet, are zero.
    pub fn ethernet(tunnel: &Tunnel) -> Self {
        let mut header = Self::default();
        let destination = match tunnel.remote_mac {
            RemoteMac::Known(mac) => mac,
            RemoteMac::Inner => {
                header.flags |= tunnel_flags::KEEP_DESTINATION;
                MacAddr::ZERO
            }
            RemoteMac::Unresolved => {
                header.flags |= tunnel_flags::UNRESOLVED;
                MacAddr::ZERO
            }
        };
        if tunnel.local_mac.is_none() {
            header.flags |= tunnel_flags::KEEP_SOURCE;
        }
        header.bytes.extend(destination.0);
        header.bytes.extend(tunnel.local_mac.unwrap_or(MacAddr::ZERO).0);
        header
    }

    /// Adds an IP header (RFC 791) and a UDP header (RFC 768). Don't Fragment is set, so the identification may be zero
    /// (RFC 6864, 4.1); the UDP checksum is zero, as RFC 7348 and RFC 8926 want it over IPv4.
    pub fn ip_udp(mut self, tunnel: &Tunnel) -> Self {
        if let (Some(IpAddr::V4(local)), Some(IpAddr::V4(remote))) = (tunnel.local, tunnel.remote) {
            self.bytes.extend(ETHERTYPE_IPV4.to_be_bytes());
            self.l3_offset = self.bytes.len() as u16;
            self.bytes.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, TTL, IPPROTO_UDP, 0, 0]);
            self.bytes.extend(local.octets());
            self.bytes.extend(remote.octets());
            self.flags |= tunnel_flags::IPV4;
        }
        self.l4_offset = self.bytes.len() as u16;
        self.bytes.extend([0, 0]);
        self.bytes.extend(tunnel.dst_port.to_be_bytes());
        self.bytes.extend([0, 0, 0, 0]);
        self.flags |= tunnel_flags::UDP;
        self
    }

    /// The sum of the IPv4 header's words, as they lie in memory (RFC 1071, 2.B).
    pub fn ip_sum(&self) -> u32 {
        if self.flags & tunnel_flags::IPV4 == 0 {
            return 0;
        }
        let ip = &self.bytes[usize::from(self.l3_offset)..usize::from(self.l4_offset)];
        ip.chunks_exact(2).map(|word| u32::from(u16::from_ne_bytes([word[0], word[1]]))).sum()
    }

    /// The bytes, with room.
    pub fn padded(&self) -> [u8; MAX_HEADER] {
        let mut bytes = [0; MAX_HEADER];
        bytes[..self.bytes.len()].copy_from_slice(&self.bytes);
        bytes
    }
}

/// The outer addresses in a header's bytes: local and remote.
pub fn read_addresses(header: &Header) -> (Option<IpAddr>, Option<IpAddr>) {
    if header.flags & tunnel_flags::IPV4 == 0 {
        return (None, None);
    }
    let at = |offset: usize| -> Option<IpAddr> {
        let start = usize::from(header.l3_offset) + offset;
        let octets: [u8; 4] = header.bytes.get(start..start + 4)?.try_into().ok()?;
        Some(octets.into())
    };
    (at(12), at(16))
}

/// A 16-bit field of a header.
pub fn read_u16(header: &Header, offset: usize) -> u16 {
    header.bytes.get(offset..offset + 2).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// A 24-bit field of a header.
pub fn read_u24(header: &Header, offset: usize) -> u32 {
    header
        .bytes
        .get(offset..offset + 3)
        .map_or(0, |bytes| u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]))
}
