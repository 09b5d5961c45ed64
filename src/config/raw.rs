//! What the file says, key by key: each value has its type, but nothing is known of how they go together.

use std::net::IpAddr;

use ipnet::IpNet;

use super::diagnostic::Span;
use super::model::{
    Df, FlowLabel, GeneveOption, Manage, Mode, Name, NetnsRef, Payload, Pcp, SourcePort, Tos, Ttl,
};
use crate::mac::MacAddr;
use crate::protocol::Protocol;

/// A value and where it stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct At<T> {
    pub value: T,
    pub span: Span,
}

/// A key of a table.
#[derive(Debug, Clone, Default)]
pub(super) enum Field<T> {
    /// Left out.
    #[default]
    Missing,
    /// Written, but wrong, which has been reported: nothing more is to be said about it.
    Bad,
    /// Written.
    Given(At<T>),
}

impl<T> Field<T> {
    pub fn given(&self) -> Option<&At<T>> {
        match self {
            Self::Given(at) => Some(at),
            Self::Missing | Self::Bad => None,
        }
    }

    pub fn value(&self) -> Option<&T> {
        self.given().map(|at| &at.value)
    }

    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }
}

impl<T> From<Option<At<T>>> for Field<T> {
    fn from(read: Option<At<T>>) -> Self {
        read.map_or(Self::Bad, Self::Given)
    }
}

/// All files.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub interfaces: Vec<RawInterface>,
    pub tunnels: Vec<RawTunnel>,
    pub defaults: Option<RawTunnel>,
}

/// `role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RoleName {
    Underlay,
    Workload,
    Redirect,
    Pass,
}

impl RoleName {
    pub const ALL: [Self; 4] = [Self::Underlay, Self::Workload, Self::Redirect, Self::Pass];

    pub fn name(self) -> &'static str {
        match self {
            Self::Underlay => "underlay",
            Self::Workload => "workload",
            Self::Redirect => "redirect",
            Self::Pass => "pass",
        }
    }
}

/// `addresses`.
#[derive(Debug, Clone)]
pub(super) enum RawAddresses {
    Peer,
    List(Vec<At<IpNet>>),
}

/// `peer`.
#[derive(Debug, Clone)]
pub(super) enum RawPeer {
    /// `false`.
    None,
    At {
        netns: Option<At<NetnsRef>>,
        name: At<Name>,
    },
}

/// `[interface.NAME]`.
#[derive(Debug, Clone, Default)]
pub(super) struct RawInterface {
    pub name: At<Name>,
    /// Each key that it has, known keys only.
    pub keys: Vec<(&'static str, Span)>,
    pub role: Field<RoleName>,
    pub mode: Field<Mode>,
    pub dispatcher: Field<bool>,
    pub segment: Field<Name>,
    pub addresses: Field<RawAddresses>,
    pub mac: Field<MacAddr>,
    pub gateway: Field<Vec<At<IpAddr>>>,
    pub to: Field<Name>,
    pub peer: Field<RawPeer>,
    pub manage: Field<Manage>,
}

impl RawInterface {
    pub fn new(name: At<Name>) -> Self {
        Self { name, ..Self::default() }
    }
}

/// `[tunnel.NAME]`, or `[defaults]`, which has the same keys.
#[derive(Debug, Clone, Default)]
pub(super) struct RawTunnel {
    pub name: At<Name>,
    /// Each key that it has, known keys only.
    pub keys: Vec<(&'static str, Span)>,
    pub protocol: Field<Protocol>,
    /// Its range depends on the protocol, as that of the next.
    pub id: Field<i128>,
    pub local_id: Field<i128>,
    pub service_id: Field<u32>,
    pub payload: Field<Payload>,
    pub segment: Field<Name>,
    pub underlay: Field<Name>,
    pub remote: Field<IpAddr>,
    pub local: Field<IpAddr>,
    pub local_mac: Field<MacAddr>,
    pub remote_mac: Field<MacAddr>,
    pub inner: Field<Vec<At<IpNet>>>,
    pub from: Field<Vec<At<IpNet>>>,
    pub src_port: Field<SourcePort>,
    pub dst_port: Field<u16>,
    pub ttl: Field<Ttl>,
    pub tos: Field<Tos>,
    pub df: Field<Df>,
    pub flow_label: Field<FlowLabel>,
    pub udp_checksum: Field<bool>,
    pub pcp: Field<Pcp>,
    pub gbp: Field<u16>,
    pub options: Field<Vec<GeneveOption>>,
    pub checksum: Field<bool>,
    pub sequence: Field<bool>,
    pub variant: Field<u8>,
    pub qfi: Field<u8>,
    pub uplink: Field<bool>,
    pub inner_mac: Field<MacAddr>,
    pub mtu: Field<u32>,
    pub mss_clamp: Field<bool>,
    pub flood: Field<bool>,
    pub redirect: Field<bool>,
    pub debug: Field<bool>,
}

impl RawTunnel {
    pub fn new(name: At<Name>) -> Self {
        Self { name, ..Self::default() }
    }

    /// Whether it has a key of its own, not only one of `[defaults]`.
    pub fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|(name, _)| *name == key)
    }
}
