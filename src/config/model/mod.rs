//! What a configuration file means: typed and valid as far as the file alone can tell. What depends on the machine
//! (interfaces, routes, neighbours) is settled later, by `resolve`.

pub mod pattern;
mod tunnel;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

pub use tunnel::{Df, FlowLabel, GeneveOption, Payload, Pcp, SourcePort, Tos, Ttl, Tunnel};

use crate::mac::MacAddr;

/// The name of an interface, tunnel or segment: its identity.
pub type Name = Arc<str>;

/// The segment of what names none.
pub const DEFAULT_SEGMENT: &str = "default";

/// A whole configuration, drop-ins included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// By interface name.
    pub interfaces: BTreeMap<Name, Interface>,
    /// For the devices that a pattern matches, and that have no table of their own.
    pub patterns: BTreeMap<Name, Interface>,
    /// By tunnel name.
    pub tunnels: BTreeMap<Name, Tunnel>,
}

impl Config {
    /// Whether it asks for nothing at all.
    pub fn is_empty(&self) -> bool {
        self.interfaces.is_empty() && self.patterns.is_empty() && self.tunnels.is_empty()
    }
}

/// Where something stands in the file, for errors found after parsing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// As it was opened; `-` is standard input.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
    /// The device for which the table of a pattern stands.
    pub device: Option<Name>,
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
    /// It shares the interface with others, as a part of a dispatcher of libxdp.
    pub dispatcher: bool,
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
