//! Tunnels as the tests declare them: every protocol, and every option of the outer header.

use std::net::{IpAddr, Ipv4Addr};

use crate::common::frame::{
    GRE, Geneve, Gre, Gtpu, Gue, Mac, TYPE_IPV4, TYPE_IPV6, TYPE_QINQ, TYPE_TEB, TYPE_VLAN, UDP, Vxlan,
};

pub const VXLAN_PORT: u16 = 4789;
pub const GENEVE_PORT: u16 = 6081;

/// Class, type, data.
pub type GeneveOption = (u16, u8, Vec<u8>);

/// The tunnel header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Vlan,
    Qinq { service: u16 },
    Vxlan { group: Option<u16> },
    Geneve { options: Vec<GeneveOption>, ip: bool },
    Gre { ethernet: bool, checksum: bool, sequence: bool },
    Ipip,
    Gue { variant: u8 },
    Fou,
    Gtpu { flow: Option<(bool, u8)> },
}

impl Kind {
    pub const GENEVE: Self = Self::Geneve { options: Vec::new(), ip: false };
    pub const VXLAN: Self = Self::Vxlan { group: None };

    /// enum mptm_protocol.
    pub fn protocol(&self) -> u16 {
        match self {
            Self::Vlan => 1,
            Self::Vxlan { .. } => 2,
            Self::Geneve { .. } => 3,
            Self::Qinq { .. } => 4,
            Self::Gre { ethernet: false, .. } => 5,
            Self::Gre { ethernet: true, .. } => 6,
            Self::Ipip => 7,
            Self::Gue { .. } => 8,
            Self::Fou => 9,
            Self::Gtpu { .. } => 10,
        }
    }

    pub fn is_tags(&self) -> bool {
        matches!(self, Self::Vlan | Self::Qinq { .. })
    }

    pub fn has_udp(&self) -> bool {
        self.port() != 0
    }

    /// The usual UDP destination port; 0: there is no UDP.
    pub fn port(&self) -> u16 {
        match self {
            Self::Vxlan { .. } => VXLAN_PORT,
            Self::Geneve { .. } => GENEVE_PORT,
            Self::Gue { .. } => 6080,
            Self::Fou => 5555,
            Self::Gtpu { .. } => 2152,
            Self::Vlan | Self::Qinq { .. } | Self::Gre { .. } | Self::Ipip => 0,
        }
    }

    /// Whether it carries IP packets, and not Ethernet frames.
    pub fn carries_ip(&self) -> bool {
        match self {
            Self::Vlan | Self::Qinq { .. } | Self::Vxlan { .. } => false,
            Self::Geneve { ip, .. } => *ip,
            Self::Gre { ethernet, .. } => !ethernet,
            Self::Ipip | Self::Gue { .. } | Self::Fou | Self::Gtpu { .. } => true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Df {
    Set,
    Unset,
    Inherit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    Flow,
    Inherit,
    Fixed(u32),
}

#[derive(Debug, Clone)]
pub struct Tunnel {
    pub id: u32,
    pub kind: Kind,
    /// VNI, VLAN id, GRE key or TEID.
    pub network: Option<u32>,
    /// That of received packets, where it is another.
    pub received: Option<u32>,
    pub local: (Mac, IpAddr),
    pub remote: (Mac, IpAddr),
    /// The outer MAC addresses are the inner frame's.
    pub keep_destination: bool,
    pub keep_source: bool,
    /// The first source port, and how many.
    pub ports: (u16, u32),
    pub port: u16,
    /// None: inherited. So are the other two.
    pub ttl: Option<u8>,
    pub tos: Option<u8>,
    pub pcp: Option<u8>,
    pub df: Df,
    pub label: Label,
    pub udp_checksum: bool,
    pub mss_clamp: bool,
    pub flood: bool,
    pub mtu: u32,
    pub table: u32,
    /// The underlay's slot.
    pub slot: u32,
    /// And its index: where the tunnel's packets arrive.
    pub underlay: u32,
    pub inner_mac: Option<Mac>,
    /// The outer IPv4 header's options.
    pub ip_options: Vec<u8>,
    pub stack: bool,
    pub unresolved: bool,
    pub debug: bool,
}

impl Tunnel {
    /// Over IPv4, with the documentation's addresses, and nothing out of the ordinary.
    pub fn new(id: u32, kind: Kind, network: Option<u32>) -> Self {
        Self {
            id,
            port: kind.port(),
            kind,
            network,
            received: None,
            local: ([2, 0x10, 0, 0, 0, 1], Ipv4Addr::new(192, 0, 2, 1).into()),
            remote: ([2, 0x20, 0, 0, 0, id as u8], Ipv4Addr::new(192, 0, 2, 100 + id as u8).into()),
            keep_destination: false,
            keep_source: false,
            ports: (49152, 16384),
            ttl: Some(61),
            tos: Some(0x28),
            pcp: Some(0),
            df: Df::Set,
            label: Label::Flow,
            udp_checksum: false,
            mss_clamp: false,
            flood: false,
            mtu: 9000,
            table: 0,
            slot: 0,
            underlay: 0,
            inner_mac: None,
            ip_options: Vec::new(),
            stack: false,
            unresolved: false,
            debug: false,
        }
    }

    /// The same tunnel as its far end sees it.
    pub fn mirrored(&self) -> Self {
        Self {
            local: self.remote,
            remote: self.local,
            network: self.received.or(self.network),
            received: self.received.and(self.network),
            ..self.clone()
        }
    }

    pub fn is_ipv6(&self) -> bool {
        self.local.1.is_ipv6()
    }

    pub fn has_sequence(&self) -> bool {
        matches!(self.kind, Kind::Gre { sequence: true, .. })
    }

    pub fn has_gre_checksum(&self) -> bool {
        matches!(self.kind, Kind::Gre { checksum: true, .. })
    }

    /// Where the header behind the outer IP header is.
    pub fn l4_offset(&self) -> usize {
        if self.is_ipv6() { 54 } else { 34 + self.ip_options.len() }
    }

    /// The outer IP header's protocol, or the payload's.
    pub fn ip_protocol(&self) -> Option<u8> {
        match self.kind {
            Kind::Gre { .. } => Some(GRE),
            Kind::Ipip => None,
            _ => Some(UDP),
        }
    }

    /// The VLAN tags: type and id, and what is in their upper four bits.
    pub fn tags(&self, pcp: u8) -> Vec<(u16, u16)> {
        let tci = |id: u16| u16::from(self.pcp.unwrap_or(pcp)) << 13 | id;
        let own = tci(self.network.unwrap_or(0) as u16);
        match self.kind {
            Kind::Qinq { service } => vec![(TYPE_QINQ, tci(service)), (TYPE_VLAN, own)],
            _ => vec![(TYPE_VLAN, own)],
        }
    }

    /// The tunnel header with its payload, which is of this EtherType; a GRE checksum is not in it yet.
    pub fn wrap(&self, payload: &[u8], ethertype: u16, sequence: u32) -> Vec<u8> {
        let network = self.network.unwrap_or(0);
        match &self.kind {
            Kind::Vlan | Kind::Qinq { .. } => unreachable!("tags are within the frame"),
            Kind::Vxlan { group } => Vxlan { vni: network, group: *group }.encode(payload),
            Kind::Geneve { options, ip } => {
                let start =
                    Geneve { protocol: if *ip { ethertype } else { TYPE_TEB }, ..Geneve::new(network) };
                let all = options
                    .iter()
                    .fold(start, |geneve, (class, kind, data)| geneve.option(*class, *kind, data));
                all.encode(payload)
            }
            Kind::Gre { ethernet, checksum, sequence: has_sequence } => {
                let gre = Gre {
                    protocol: if *ethernet { TYPE_TEB } else { ethertype },
                    checksum: *checksum,
                    key: self.network,
                    sequence: has_sequence.then_some(sequence),
                };
                gre.encode(payload)
            }
            Kind::Gue { variant: 0 } => Gue::new(number_of(ethertype)).encode(payload),
            Kind::Gtpu { flow: Some((uplink, qfi)) } => {
                Gtpu::new(network).pdu_session(*uplink, *qfi).encode(payload)
            }
            Kind::Gtpu { flow: None } => Gtpu::new(network).encode(payload),
            Kind::Ipip | Kind::Gue { .. } | Kind::Fou => payload.to_vec(),
        }
    }
}

/// The IP protocol number of a payload of this EtherType.
pub fn number_of(ethertype: u16) -> u8 {
    match ethertype {
        TYPE_IPV4 => 4,
        TYPE_IPV6 => 41,
        // No IP packet, in a test of just that.
        _ => 0,
    }
}
