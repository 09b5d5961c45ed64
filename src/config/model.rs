//! What a configuration file means: typed and valid as far as the file alone can tell. What depends on the machine
//! (interfaces, routes, neighbours) is settled later, by `resolve`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::mac::MacAddr;
use crate::protocol::Protocol;

/// The name of an interface, tunnel or segment: its identity.
pub type Name = Arc<str>;

/// The segment of what names none.
pub const DEFAULT_SEGMENT: &str = "default";

/// A whole configuration, drop-ins included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// By interface name.
    pub interfaces: BTreeMap<Name, Interface>,
    /// By tunnel name.
    pub tunnels: BTreeMap<Name, Tunnel>,
}

/// Where something stands in the file, for errors found after parsing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// As it was opened; `-` is standard input.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// `[interface.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Where its table begins.
    pub at: Location,
    /// Which program is attached to it, and what that needs.
    pub role: Role,
    /// How the program is attached.
    pub mode: Mode,
    /// The other end of a veth.
    pub peer: PeerSpec,
    /// Which settings of it and of its peer mptm may change.
    pub manage: Manage,
}

/// `role`, with the keys that only this role has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Outer packets arrive here: mptm_decap.
    Underlay,
    /// Inner packets arrive here: mptm_encap.
    Workload {
        /// The segment that it belongs to.
        segment: Name,
        /// What lives behind it.
        addresses: Addresses,
        /// The MAC address behind it; else the peer's, else what the neighbour table has, else the frame's own.
        mac: Option<MacAddr>,
        /// Addresses that mptm answers ARP and neighbour solicitations for, with the interface's own MAC address: the
        /// next hops of what lives behind it. Sorted, none twice.
        gateway: Vec<IpAddr>,
    },
    /// A patch cable: everything goes out of interface `to`: mptm_redirect.
    Redirect {
        /// Another interface of the file.
        to: Name,
    },
    /// Nothing but a counter: mptm_pass.
    Pass,
}

impl Role {
    /// As the file spells it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Underlay => "underlay",
            Self::Workload { .. } => "workload",
            Self::Redirect { .. } => "redirect",
            Self::Pass => "pass",
        }
    }
}

/// `addresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addresses {
    /// `"peer"`: those that the peer's interface has.
    Peer,
    /// Addresses and prefixes; sorted, host bits zero, none twice.
    List(Vec<IpNet>),
}

/// `mode`: how the program is attached. Never another than asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver.
    #[default]
    Native,
    /// In the network stack, for drivers without XDP: slow.
    Generic,
    /// In the network card.
    Offload,
}

impl Mode {
    /// As the file spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offload => "offload",
        }
    }
}

/// `peer`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PeerSpec {
    /// Left out: looked for, where the role wants one.
    #[default]
    Find,
    /// `false`: the far end is left alone.
    None,
    /// Written down.
    At {
        /// `netns`; left out: mptm's own namespace.
        netns: Option<NetnsRef>,
        /// The interface's name there.
        name: Name,
    },
}

/// A network namespace, as a file names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetnsRef {
    /// As `ip netns` lists it: a file in /run/netns.
    Name(Arc<str>),
    /// An absolute path of a namespace file.
    Path(Arc<str>),
    /// `pid:N`: that of process N.
    Pid(u32),
}

impl NetnsRef {
    /// The file to open.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Name(name) => PathBuf::from(format!("/run/netns/{name}")),
            Self::Path(path) => PathBuf::from(&**path),
            Self::Pid(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
        }
    }
}

impl fmt::Display for NetnsRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Path(path) => f.write_str(path),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
        }
    }
}

impl Serialize for NetnsRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text names no network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a network namespace: a name as in `ip netns`, an absolute path, or pid:N")]
pub struct ParseNetnsError;

impl FromStr for NetnsRef {
    type Err = ParseNetnsError;

    fn from_str(text: &str) -> Result<Self, ParseNetnsError> {
        // What mptm records of it has 128 bytes of room.
        if text.is_empty() || text.len() > 127 || text.contains(|c: char| c.is_control()) {
            return Err(ParseNetnsError);
        }
        if let Some(pid) = text.strip_prefix("pid:") {
            return match pid.parse() {
                Ok(pid) if pid > 0 => Ok(Self::Pid(pid)),
                _ => Err(ParseNetnsError),
            };
        }
        if text.starts_with('/') {
            return Ok(Self::Path(text.into()));
        }
        if text.contains('/') || text == "." || text == ".." {
            return Err(ParseNetnsError);
        }
        Ok(Self::Name(text.into()))
    }
}

/// `manage`: the settings that mptm may change on the interface and its peer. All of them, if left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manage {
    /// `"offloads"`: checksum offload and GRO at the peer, VLAN stripping on an underlay.
    pub offloads: bool,
    /// `"mtu"`: at the workload and its peer.
    pub mtu: bool,
    /// `"promisc"`: on the underlay of VLAN tunnels, whose frames bear the workloads' MAC addresses.
    pub promisc: bool,
    /// `"sysctls"`: on workloads of tunnels with `redirect = false`: forwarding, accept_local and rp_filter.
    pub sysctls: bool,
}

impl Default for Manage {
    fn default() -> Self {
        Self { offloads: true, mtu: true, promisc: true, sysctls: true }
    }
}

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
