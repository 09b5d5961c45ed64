//! What the data plane is, or should be: desired and actual are the same type, ordered maps keyed by identity.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::model::{Df, FlowLabel, GeneveOption, Manage, Mode, Name, Payload, Pcp, Tos, Ttl};
use crate::kernel::{Build, Netns, Program, Setting, Sizes, Via};
use crate::mac::MacAddr;
use crate::protocol::Protocol;

/// A whole data plane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The pinned maps and programs; None: there are none.
    pub data_plane: Option<DataPlane>,
    /// The CPUs on which outer packets can be handed to the host's stack.
    pub stack_cpus: BTreeSet<u32>,
    /// Settings of devices that mptm changes.
    pub settings: BTreeMap<SettingKey, SavedSetting>,
    /// Where packets come in by and go out of, by name.
    pub interfaces: BTreeMap<Name, Interface>,
    /// Which protocol has a UDP port.
    pub ports: BTreeMap<u16, Protocol>,
    /// By name.
    pub tunnels: BTreeMap<Name, Tunnel>,
    /// The tables of the segments, by the segments' names.
    pub segments: BTreeMap<Name, BTreeMap<IpNet, Route>>,
    /// Which tunnel an outer packet belongs to.
    pub endpoints: BTreeMap<Endpoint, Name>,
    /// Where multicast and broadcast of a segment go, by segment.
    pub floods: BTreeMap<Name, Flood>,
    /// Where mptm_flood is attached, by interface.
    pub flood_links: BTreeMap<Name, FloodLink>,
    /// The attached programs of XDP, by interface.
    pub links: BTreeMap<Name, Attachment>,
}

/// The pinned maps and programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataPlane {
    /// Which build of the programs.
    pub build: Build,
    /// The cookie of the namespace that it is for.
    pub netns: u64,
    /// The layout of the maps. With an older one nothing else of the data plane is known but settings and links.
    pub layout: u32,
    /// How large the maps are.
    pub sizes: Sizes,
}

/// A setting's identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SettingKey {
    /// Where the device is.
    pub netns: Netns,
    /// The device's name.
    pub device: Name,
    /// What of it.
    pub setting: Setting,
}

/// A setting that mptm changes, or has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedSetting {
    /// The device that this is about: index, and cookie of its namespace.
    pub ifindex: u32,
    /// See there.
    pub netns_cookie: u64,
    /// What it was before mptm, and will be again.
    pub before: u64,
    /// What mptm makes it.
    pub value: u64,
    /// What it is now; None: the device is gone.
    pub current: Option<u64>,
}

/// An interface of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub ifindex: u32,
    /// What the program on it does.
    pub role: Role,
    /// Its own MAC address; zero if it has none.
    pub mac: MacAddr,
    /// The index that frames for it are redirected to; None: they can't be.
    pub device: Option<u32>,
    /// The other end of a veth.
    pub peer: Option<Peer>,
    /// What may be set on it.
    pub manage: Manage,
    /// Its program is to run in the driver, which decides how packets reach the host's stack.
    pub native: bool,
}

/// The other end of a veth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where.
    pub netns: Netns,
    /// Its name there.
    pub name: Name,
}

/// What the program on an interface does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// mptm_decap.
    Underlay,
    /// mptm_encap.
    Workload {
        /// Whose table it uses.
        segment: Name,
    },
    /// mptm_redirect.
    Redirect {
        /// Where to.
        to: Name,
    },
    /// mptm_pass.
    Pass,
}

impl Role {
    /// The program that does it.
    pub fn program(&self) -> Program {
        match self {
            Self::Underlay => Program::Decap,
            Self::Workload { .. } => Program::Encap,
            Self::Redirect { .. } => Program::Redirect,
            Self::Pass => Program::Pass,
        }
    }

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

/// A tunnel: everything that its outer header says, and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// What the outer header is.
    pub protocol: Protocol,
    /// VNI, VLAN id, TEID, GRE key.
    pub id: Option<u32>,
    /// The id that received packets bear, where that is not `id`.
    pub local_id: Option<u32>,
    /// QinQ: the S-tag's VLAN id.
    pub service_id: Option<u32>,
    /// What it carries.
    pub payload: Payload,
    /// Whose table its inner packets use.
    pub segment: Name,
    /// Where it leaves by.
    pub underlay: Name,
    /// Outer source address, where there is one.
    pub local: Option<IpAddr>,
    /// Outer destination address, where there is one.
    pub remote: Option<IpAddr>,
    /// Outer source MAC address; None: the inner frame's.
    pub local_mac: Option<MacAddr>,
    /// Outer destination MAC address.
    pub remote_mac: RemoteMac,
    /// Whose MAC address that is, where it had to be looked up.
    pub next_hop: Option<IpAddr>,
    /// First and last UDP source port; zero where there is no UDP.
    pub src_ports: (u16, u16),
    /// UDP destination port; zero where there is no UDP.
    pub dst_port: u16,
    /// Outer TTL or hop limit.
    pub ttl: Ttl,
    /// Outer DSCP.
    pub tos: Tos,
    /// Outer Don't Fragment.
    pub df: Df,
    /// Outer flow label.
    pub flow_label: FlowLabel,
    /// Fill in the UDP checksum; false where there is no UDP.
    pub udp_checksum: bool,
    /// Priority of VLAN tags.
    pub pcp: Pcp,
    /// VXLAN group policy id.
    pub gbp: Option<u16>,
    /// GENEVE options.
    pub options: Vec<GeneveOption>,
    /// GRE checksum.
    pub checksum: bool,
    /// GRE sequence number.
    pub sequence: bool,
    /// GUE variant.
    pub variant: u8,
    /// GTP-U QoS flow.
    pub qfi: Option<u8>,
    /// GTP-U PDU type UL.
    pub uplink: bool,
    /// Written over the inner destination MAC address.
    pub inner_mac: Option<MacAddr>,
    /// Largest inner packet: bytes after the inner Ethernet header.
    pub mtu: u32,
    /// Lower the MSS of TCP SYNs.
    pub mss_clamp: bool,
    /// Take multicast and broadcast.
    pub flood: bool,
    /// False: to the host's stack.
    pub redirect: bool,
    /// Report packets.
    pub debug: bool,
    /// What the kernel holds is what these fields make. False only of a live tunnel that something else wrote to.
    pub intact: bool,
}

impl Tunnel {
    /// One with nothing set but what it must have.
    pub fn new(protocol: Protocol, segment: Name, underlay: Name) -> Self {
        Self {
            protocol,
            id: None,
            local_id: None,
            service_id: None,
            payload: protocol.payload(),
            segment,
            underlay,
            local: None,
            remote: None,
            local_mac: None,
            remote_mac: RemoteMac::Inner,
            next_hop: None,
            src_ports: (0, 0),
            dst_port: 0,
            ttl: Ttl::default(),
            tos: Tos::default(),
            df: Df::default(),
            flow_label: FlowLabel::default(),
            udp_checksum: false,
            pcp: Pcp::default(),
            gbp: None,
            options: Vec::new(),
            checksum: false,
            sequence: false,
            variant: 0,
            qfi: None,
            uplink: false,
            inner_mac: None,
            mtu: 0,
            mss_clamp: false,
            flood: false,
            redirect: true,
            debug: false,
            intact: true,
        }
    }
}

/// The outer destination MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteMac {
    /// This one.
    Known(MacAddr),
    /// The inner frame's.
    Inner,
    /// The next hop has not answered yet.
    Unresolved,
}

/// Whose an outer packet is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// What the outer header is.
    pub protocol: Protocol,
    /// The index of the underlay.
    pub ifindex: u32,
    /// VNI, TEID, GRE key; VLAN id, with QinQ's service id 12 bits higher.
    pub id: Option<u32>,
    /// It is no tunnel's, but that of all packets of a far end: what else it sends in this protocol.
    pub any_id: bool,
    /// Outer source.
    pub remote: Option<IpAddr>,
    /// Outer destination.
    pub local: Option<IpAddr>,
    /// UDP destination port.
    pub port: u16,
}

/// Where an inner address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Behind a workload of this node.
    Workload {
        /// Which.
        interface: Name,
        /// Its MAC address; None: leave the frame's.
        mac: Option<MacAddr>,
        /// The tunnels that only this address may take, by destination; asked before the segment's table. Few have any, and
        /// there may be a million routes.
        pairs: Box<BTreeMap<IpNet, Name>>,
    },
    /// Behind a tunnel.
    Tunnel(Name),
    /// A next hop of the segment's workloads, that mptm answers for.
    Gateway,
}

/// Where multicast and broadcast of a segment go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flood {
    /// Tunnels, in the order of how much longer they make a frame.
    pub tunnels: Vec<FloodMember>,
    /// Workloads.
    pub workloads: Vec<FloodMember>,
    /// Some tunnel has a checksum over what it carries.
    pub sum: bool,
}

/// Where a copy goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FloodMember {
    /// The tunnel or the workload.
    pub name: Name,
    /// The index of the underlay, or its own.
    pub ifindex: u32,
}

/// mptm_flood, attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloodLink {
    /// Where; 0: nowhere, it was detached or the device is gone.
    pub ifindex: u32,
    /// It is the pinned program, and not one of an earlier build.
    pub current: bool,
}

/// An attached program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment {
    /// Where; 0: nowhere, the device is gone.
    pub ifindex: u32,
    /// Which; None: one of an earlier build.
    pub program: Option<Program>,
    /// In which mode; None: it is attached no more.
    pub mode: Option<Mode>,
    /// By a link of its own, or in a dispatcher.
    pub via: Via,
}
