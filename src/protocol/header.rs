//! What the outer headers have in common: Ethernet, IPv4 or IPv6, and UDP, as bytes, written and read back.

use std::net::IpAddr;

use super::Outer;
use crate::config::model::{Df, FlowLabel, Tos, Ttl};
use crate::kernel::abi::{MAX_CRITICAL, MAX_HEADER, tunnel_flags};
use crate::mac::MacAddr;
use crate::state::{RemoteMac, Tunnel};

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes of its addresses.
pub const ETHERNET_ADDRESSES: usize = 12;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const IPV4: usize = 20;
const UDP: usize = 8;
const IPPROTO_UDP: u8 = 17;
/// RFC 791, 3.1: bit 1 of the flags.
const DONT_FRAGMENT: u8 = 0x40;
/// Of the flow label in the first word of an IPv6 header.
const LABEL: u32 = 0x000f_ffff;

/// An outer header, and where its parts are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// All of it, in network byte order; what differs from packet to packet is zero.
    pub bytes: Vec<u8>,
    /// Bytes at the inner frame's front that it replaces.
    pub pop: u16,
    /// Where the IP header begins.
    pub l3_offset: u16,
    /// Where what follows the IP header begins.
    pub l4_offset: u16,
    /// Where the payload's type is filled in.
    pub type_offset: u16,
    /// Where a GRE sequence number is filled in.
    pub sequence_offset: u16,
    /// `class << 8 | type` of critical GENEVE options.
    pub critical: [u32; MAX_CRITICAL],
    /// `tunnel_flags` that follow from it.
    pub flags: u32,
}

impl Header {
    /// Begins with what comes before a protocol's own header.
    pub(super) fn begin(tunnel: &Tunnel, outer: Outer) -> Self {
        let mut header = Self::default();
        header.ethernet(tunnel);
        match outer {
            Outer::Tags => header.pop = ETHERNET_ADDRESSES as u16,
            Outer::Ip(protocol) => header.ip(tunnel, protocol),
            Outer::Udp(_) => {
                header.ip(tunnel, Some(IPPROTO_UDP));
                header.udp(tunnel);
            }
        }
        header
    }

    /// The Ethernet addresses; those that are the inner frame's, or not known yet, are zero.
    fn ethernet(&mut self, tunnel: &Tunnel) {
        let destination = match tunnel.remote_mac {
            RemoteMac::Known(mac) => mac,
            RemoteMac::Inner => {
                self.flags |= tunnel_flags::KEEP_DESTINATION;
                MacAddr::ZERO
            }
            RemoteMac::Unresolved => {
                self.flags |= tunnel_flags::UNRESOLVED;
                MacAddr::ZERO
            }
        };
        if tunnel.local_mac.is_none() {
            self.flags |= tunnel_flags::KEEP_SOURCE;
        }
        self.bytes.extend(destination.0);
        self.bytes.extend(tunnel.local_mac.unwrap_or(MacAddr::ZERO).0);
    }

    /// An IPv4 header (RFC 791), with a zero identification (RFC 6864, 4.1), or an IPv6 header (RFC 8200). Without a
    /// protocol, it is the payload's, which is filled in.
    fn ip(&mut self, tunnel: &Tunnel, protocol: Option<u8>) {
        let ttl = match tunnel.ttl {
            Ttl::Fixed(ttl) => ttl,
            Ttl::Inherit => {
                self.flags |= tunnel_flags::TTL_INHERIT;
                0
            }
        };
        if tunnel.tos == Tos::Inherit {
            self.flags |= tunnel_flags::TOS_INHERIT;
        }
        let next = protocol.unwrap_or(0);
        let l3 = ETHERNET as u16;
        let type_offset = match (tunnel.local, tunnel.remote) {
            (Some(IpAddr::V4(local)), Some(IpAddr::V4(remote))) => {
                let df = match tunnel.df {
                    Df::Set => DONT_FRAGMENT,
                    Df::Unset => {
                        self.flags |= tunnel_flags::DF_UNSET;
                        0
                    }
                    Df::Inherit => {
                        self.flags |= tunnel_flags::DF_INHERIT;
                        0
                    }
                };
                self.bytes.extend(ETHERTYPE_IPV4.to_be_bytes());
                self.bytes.extend([0x45, 0, 0, 0, 0, 0, df, 0, ttl, next, 0, 0]);
                self.bytes.extend(local.octets());
                self.bytes.extend(remote.octets());
                self.flags |= tunnel_flags::IPV4;
                l3 + 9
            }
            (Some(IpAddr::V6(local)), Some(IpAddr::V6(remote))) => {
                let label = match tunnel.flow_label {
                    FlowLabel::Fixed(label) => label & LABEL,
                    FlowLabel::Flow => {
                        self.flags |= tunnel_flags::LABEL_FLOW;
                        0
                    }
                    FlowLabel::Inherit => {
                        self.flags |= tunnel_flags::LABEL_INHERIT;
                        0
                    }
                };
                self.bytes.extend(ETHERTYPE_IPV6.to_be_bytes());
                self.bytes.extend((6 << 28 | label).to_be_bytes());
                self.bytes.extend([0, 0, next, ttl]);
                self.bytes.extend(local.octets());
                self.bytes.extend(remote.octets());
                self.flags |= tunnel_flags::IPV6;
                l3 + 6
            }
            // Of no tunnel that resolve makes; one that was read may be anything.
            _ => return,
        };
        self.l3_offset = l3;
        self.l4_offset = self.bytes.len() as u16;
        if protocol.is_none() {
            self.flags |= tunnel_flags::IP_PROTOCOL;
            self.type_offset = type_offset;
        }
    }

    /// A UDP header (RFC 768).
    fn udp(&mut self, tunnel: &Tunnel) {
        self.bytes.extend([0, 0]);
        self.bytes.extend(tunnel.dst_port.to_be_bytes());
        self.bytes.extend([0, 0, 0, 0]);
        self.flags |= tunnel_flags::UDP;
        if tunnel.udp_checksum {
            self.flags |= tunnel_flags::UDP_CHECKSUM;
        }
    }

    /// Appends what is the same in every packet.
    pub(super) fn push(&mut self, bytes: impl IntoIterator<Item = u8>) {
        self.bytes.extend(bytes);
    }

    /// Appends the EtherType of the payload, which is filled in if there may be two of them.
    pub(super) fn push_ethertype(&mut self, fixed: Option<u16>) {
        if fixed.is_none() {
            self.flags |= tunnel_flags::ETHERTYPE;
            self.type_offset = self.bytes.len() as u16;
        }
        self.bytes.extend(fixed.unwrap_or(0).to_be_bytes());
    }

    /// Appends room for the payload's IP protocol.
    pub(super) fn push_ip_protocol(&mut self) {
        self.flags |= tunnel_flags::IP_PROTOCOL;
        self.type_offset = self.bytes.len() as u16;
        self.bytes.push(0);
    }

    /// A protocol's own header: what `begin` did not write.
    pub(super) fn own(&self) -> &[u8] {
        let start = if self.has(tunnel_flags::UDP) {
            usize::from(self.l4_offset) + UDP
        } else if self.has(tunnel_flags::IPV4) || self.has(tunnel_flags::IPV6) {
            usize::from(self.l4_offset)
        } else {
            ETHERNET_ADDRESSES
        };
        self.bytes.get(start..).unwrap_or_default()
    }

    /// Whether a flag is set.
    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Reads back what `begin` wrote.
    pub(super) fn read_begin(&self, tunnel: &mut Tunnel) {
        let mac = |at: usize| self.array(at).map_or(MacAddr::ZERO, MacAddr);
        tunnel.local_mac = if self.has(tunnel_flags::KEEP_SOURCE) { None } else { Some(mac(6)) };
        tunnel.remote_mac = if self.has(tunnel_flags::KEEP_DESTINATION) {
            RemoteMac::Inner
        } else if self.has(tunnel_flags::UNRESOLVED) {
            RemoteMac::Unresolved
        } else {
            RemoteMac::Known(mac(0))
        };
        let l3 = usize::from(self.l3_offset);
        let mut ttl = None;
        if self.has(tunnel_flags::IPV4) {
            let address = |at: usize| self.array::<4>(l3 + at).map(IpAddr::from);
            (tunnel.local, tunnel.remote) = (address(12), address(16));
            ttl = self.array(l3 + 8);
            tunnel.df = if self.has(tunnel_flags::DF_INHERIT) {
                Df::Inherit
            } else if self.has(tunnel_flags::DF_UNSET) {
                Df::Unset
            } else {
                Df::Set
            };
        } else if self.has(tunnel_flags::IPV6) {
            let address = |at: usize| self.array::<16>(l3 + at).map(IpAddr::from);
            (tunnel.local, tunnel.remote) = (address(8), address(24));
            ttl = self.array(l3 + 7);
            tunnel.flow_label = if self.has(tunnel_flags::LABEL_FLOW) {
                FlowLabel::Flow
            } else if self.has(tunnel_flags::LABEL_INHERIT) {
                FlowLabel::Inherit
            } else {
                FlowLabel::Fixed(self.array(l3).map_or(0, u32::from_be_bytes) & LABEL)
            };
        }
        if self.has(tunnel_flags::TTL_INHERIT) {
            tunnel.ttl = Ttl::Inherit;
        } else if let Some([ttl]) = ttl {
            tunnel.ttl = Ttl::Fixed(ttl);
        }
        if self.has(tunnel_flags::UDP) {
            let port = self.array(usize::from(self.l4_offset) + 2);
            tunnel.dst_port = port.map_or(0, u16::from_be_bytes);
            tunnel.udp_checksum = self.has(tunnel_flags::UDP_CHECKSUM);
        }
    }

    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..)?.first_chunk().copied()
    }

    /// The sum of the IPv4 header's words, as they lie in memory (RFC 1071, 2.B).
    pub fn ip_sum(&self) -> u32 {
        let l3 = usize::from(self.l3_offset);
        if self.has(tunnel_flags::IPV4) { self.sum_of(l3, l3 + IPV4) } else { 0 }
    }

    /// What the checksum of UDP (RFC 768, RFC 8200 8.1) or GRE (RFC 2784, 2.3) sums up of every packet, in words as they
    /// lie in memory; of the pseudo header, the addresses and the protocol.
    pub fn sum(&self) -> u32 {
        let (l3, l4) = (usize::from(self.l3_offset), usize::from(self.l4_offset));
        let rest = self.sum_of(l4, self.bytes.len());
        if self.has(tunnel_flags::GRE_CHECKSUM) {
            return rest;
        }
        if !self.has(tunnel_flags::UDP_CHECKSUM) {
            return 0;
        }
        let addresses = if self.has(tunnel_flags::IPV4) { l3 + 12 } else { l3 + 8 };
        rest + self.sum_of(addresses, l4) + u32::from(u16::from_ne_bytes([0, IPPROTO_UDP]))
    }

    fn sum_of(&self, start: usize, end: usize) -> u32 {
        let bytes = self.bytes.get(start..end).unwrap_or_default();
        bytes.chunks_exact(2).map(|word| u32::from(u16::from_ne_bytes([word[0], word[1]]))).sum()
    }

    /// The bytes, with room. What does not fit, of a tunnel that no file makes, is cut off.
    pub fn padded(&self) -> [u8; MAX_HEADER] {
        let mut bytes = [0; MAX_HEADER];
        let length = self.bytes.len().min(MAX_HEADER);
        bytes[..length].copy_from_slice(&self.bytes[..length]);
        bytes
    }
}

/// A field of a header: that many bytes from `at` on, as a number. What is not there reads as zero.
pub(super) fn field(bytes: &[u8], at: usize, length: usize) -> u32 {
    let bytes = bytes.get(at..at + length).unwrap_or_default();
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}
