//! A tunnel, as the file means it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Location, Name};
use crate::mac::MacAddr;
use crate::protocol::Protocol;

/// `[tunnel.NAME]`, with `[defaults]` put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Where its table begins.
    pub at: Location,
    /// What the outer header is.
    pub protocol: Protocol,
    /// VNI, VLAN id, TEID or GRE key, in the protocol's range. None for protocols without, and for GRE without a key.
    pub id: Option<u32>,
    /// The id that received packets bear, where that is not `id`: GRE's input key, the local TEID.
    pub local_id: Option<u32>,
    /// QinQ: the VLAN id of the S-tag.
    pub service_id: Option<u32>,
    /// What the tunnel carries. Only GENEVE has a choice.
    pub payload: Payload,
    /// The segment that it belongs to.
    pub segment: Name,
    /// An interface of the file, of role underlay.
    pub underlay: Name,
    /// The far end's outer address. None for protocols without an outer IP header, and only for those.
    pub remote: Option<IpAddr>,
    /// This end's outer address; left out: what the route to `remote` prefers.
    pub local: Option<IpAddr>,
    /// Outer source MAC address; left out: the underlay's. VLAN: left out, the inner frame's stays.
    pub local_mac: Option<MacAddr>,
    /// Outer destination MAC address; left out: the next hop's. VLAN: left out, the inner frame's stays.
    pub remote_mac: Option<MacAddr>,
    /// What lives behind the far end. Sorted, host bits zero, none twice, not empty.
    pub inner: Vec<IpNet>,
    /// The local sources that may take it; empty: all. Sorted, host bits zero, none twice.
    pub from: Vec<IpNet>,
    /// UDP source port. `Flow` for protocols without.
    pub src_port: SourcePort,
    /// UDP destination port; the protocol's own if left out. 0 for protocols without.
    pub dst_port: u16,
    /// Outer TTL or hop limit.
    pub ttl: Ttl,
    /// Outer DSCP; the two bits of ECN are always those of RFC 6040.
    pub tos: Tos,
    /// Don't Fragment of an outer IPv4 header. `Set` for IPv6.
    pub df: Df,
    /// Flow label of an outer IPv6 header. `Flow` for IPv4.
    pub flow_label: FlowLabel,
    /// Whether the outer UDP checksum is filled in; left out: over IPv6 only. None for protocols without UDP.
    pub udp_checksum: Option<bool>,
    /// VLAN, QinQ: the priority of the tags.
    pub pcp: Pcp,
    /// VXLAN: the group policy id of what is sent (draft-smith-vxlan-group-policy).
    pub gbp: Option<u16>,
    /// GENEVE: the options of what is sent.
    pub options: Vec<GeneveOption>,
    /// GRE: checksum (RFC 2784), sent and wanted.
    pub checksum: bool,
    /// GRE: sequence number (RFC 2890), sent and wanted.
    pub sequence: bool,
    /// GUE: 0, with a header of its own, or 1, IP directly in UDP. Either is taken.
    pub variant: u8,
    /// GTP-U: the QoS flow of a PDU session container, 0 to 63; left out: no such extension header.
    pub qfi: Option<u8>,
    /// GTP-U: the PDU session container is of type UL, not DL.
    pub uplink: bool,
    /// Rewrites the inner destination MAC address of what enters the tunnel.
    pub inner_mac: Option<MacAddr>,
    /// The largest inner IP packet, in bytes; left out: what the underlay leaves.
    pub mtu: Option<u32>,
    /// Lowers the MSS option of TCP SYNs, both ways, to what the MTU leaves.
    pub mss_clamp: bool,
    /// Copies multicast and broadcast of the segment's workloads into the tunnel, and those that arrive by it to the
    /// workloads. Ethernet payloads only.
    pub flood: bool,
    /// False: hand the outer packet to the host's stack instead of sending it out of the underlay.
    pub redirect: bool,
    /// Report each packet to `mptm monitor`.
    pub debug: bool,
}

/// `src_port`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourcePort {
    /// `"flow"`: a hash of the inner flow over 49152-65535 (RFC 7348, 5; RFC 8926, 3.3; RFC 6335).
    #[default]
    Flow,
    /// `"MIN-MAX"`: the same over another range.
    Range(u16, u16),
    /// One port for all.
    Fixed(u16),
}

impl SourcePort {
    /// First and last port.
    pub fn range(self) -> (u16, u16) {
        match self {
            Self::Flow => (49152, 65535),
            Self::Range(min, max) => (min, max),
            Self::Fixed(port) => (port, port),
        }
    }

    /// The shortest way to write a range.
    pub fn from_range(min: u16, max: u16) -> Self {
        match (min, max) {
            (49152, 65535) => Self::Flow,
            (min, max) if min == max => Self::Fixed(min),
            (min, max) => Self::Range(min, max),
        }
    }
}

/// `payload`: what follows the tunnel header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payload {
    /// A whole Ethernet frame.
    Ethernet,
    /// An IPv4 or IPv6 packet.
    Ip,
}

impl Payload {
    /// As the file spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ethernet => "ethernet",
            Self::Ip => "ip",
        }
    }
}

/// `ttl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// 1 to 255.
    Fixed(u8),
    /// That of the inner packet; 64 if it is no IP packet.
    Inherit,
}

impl Default for Ttl {
    /// RFC 1700's recommendation, and what Linux sends.
    fn default() -> Self {
        Self::Fixed(64)
    }
}

/// `tos`: the upper six bits, with the lower two zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tos {
    /// The byte, of which only the DSCP counts.
    Fixed(u8),
    /// That of the inner packet; 0 if it is no IP packet.
    Inherit,
}

impl Default for Tos {
    fn default() -> Self {
        Self::Fixed(0)
    }
}

/// `df`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Df {
    /// Routers drop what is too big, and say so.
    #[default]
    Set,
    /// Routers may fragment.
    Unset,
    /// That of the inner IPv4 packet; set for anything else.
    Inherit,
}

impl Df {
    /// As the file spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Unset => "unset",
            Self::Inherit => "inherit",
        }
    }
}

/// `flow_label`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FlowLabel {
    /// A hash of the inner flow (RFC 6438).
    #[default]
    Flow,
    /// 0 to 0xfffff.
    Fixed(u32),
    /// That of the inner IPv6 packet; 0 for anything else.
    Inherit,
}

/// `pcp`: the priority code point of VLAN tags (IEEE 802.1Q, 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pcp {
    /// 0 to 7.
    Fixed(u8),
    /// That of the inner frame's own tag; without one, the upper three bits of its DSCP; else 0.
    Inherit,
}

impl Default for Pcp {
    fn default() -> Self {
        Self::Fixed(0)
    }
}

/// One option of a GENEVE header (RFC 8926, 3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneveOption {
    /// Its namespace.
    pub class: u16,
    /// Its type; the highest bit says that it is critical.
    pub kind: u8,
    /// Its data: a multiple of 4 bytes, at most 124.
    pub data: Vec<u8>,
}
