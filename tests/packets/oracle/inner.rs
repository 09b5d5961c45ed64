//! What is in a frame of a workload, or in a tunnel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::common::frame::{ICMPV6, SCTP, TCP, TYPE_ARP, TYPE_IPV4, TYPE_IPV6, TYPE_QINQ, TYPE_VLAN, UDP};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Other,
    Malformed,
    /// For several.
    Group,
    Ipv4,
    Ipv6,
    Arp,
    /// Neighbour discovery: its destination is the target.
    Solicitation,
    /// Its source is the target.
    Advertisement,
}

/// Offsets are from the frame's or the packet's beginning.
#[derive(Debug, Clone)]
pub struct Inner {
    pub class: Class,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Behind IPv6 extension headers.
    pub protocol: u8,
    /// Zero for fragments, and where there are none.
    pub ports: [u8; 4],
    pub label: u32,
    pub ttl: u8,
    pub tos: u8,
    pub pcp: u8,
    pub df: bool,
    pub fragment: bool,
    /// Not a datagram's first one.
    pub later: bool,
    /// It has IPv6 extension headers.
    pub extended: bool,
    pub l3: usize,
    pub l4: Option<usize>,
    /// Behind the IP packet.
    pub end: usize,
    /// Bytes of VLAN tags.
    pub tags: usize,
    /// It is an IP packet in a frame to a group.
    pub flood: bool,
}

/// What hashes alike: addresses, protocol, ports.
pub type Flow = (IpAddr, IpAddr, u8, [u8; 4]);

/// How many extension headers are looked behind.
const EXTENSIONS: usize = 6;

impl Inner {
    fn new(class: Class) -> Self {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            class,
            source: any,
            destination: any,
            protocol: 0,
            ports: [0; 4],
            label: 0,
            ttl: 0,
            tos: 0,
            pcp: 0,
            df: false,
            fragment: false,
            later: false,
            extended: false,
            l3: 0,
            l4: None,
            end: 0,
            tags: 0,
            flood: false,
        }
    }

    /// An Ethernet frame.
    pub fn of_frame(frame: &[u8]) -> Self {
        let mut at = 12;
        let mut inner = Self::new(Class::Malformed);
        let Some(mut ethertype) = word(frame, at) else { return inner };
        at += 2;
        let mut pcp = None;
        for _ in 0..2 {
            if ethertype == TYPE_VLAN || ethertype == TYPE_QINQ {
                let (Some(tci), Some(next)) = (word(frame, at), word(frame, at + 2)) else { return inner };
                pcp.get_or_insert((tci >> 13) as u8);
                ethertype = next;
                at += 4;
            }
        }
        let is_group = frame[0] & 1 != 0;
        inner = match ethertype {
            TYPE_ARP => Self::arp(frame, at),
            TYPE_IPV4 => Self::ipv4(frame, at),
            TYPE_IPV6 => Self::ipv6(frame, at, true),
            _ if is_group => Self::new(Class::Group),
            _ => Self::new(Class::Other),
        };
        let is_packet = inner.end > inner.l3 && inner.class == Class::Group;
        inner.flood = is_group && (inner.is_ip() || is_packet);
        if inner.flood {
            inner.class = Class::Group;
        }
        inner.tags = at - 14;
        inner.pcp = pcp.unwrap_or(inner.tos >> 5);
        inner
    }

    /// An IP packet.
    pub fn of_packet(packet: &[u8]) -> Self {
        match packet.first().map(|first| first >> 4) {
            Some(4) => Self::ipv4(packet, 0),
            Some(6) => Self::ipv6(packet, 0, false),
            _ => Self::new(Class::Malformed),
        }
    }

    pub fn is_ip(&self) -> bool {
        matches!(self.class, Class::Ipv4 | Class::Ipv6)
    }

    /// ARP and solicitations, from who has no address yet or one that only counts on its link.
    pub fn may_be_anybody(&self) -> bool {
        matches!(self.class, Class::Arp | Class::Solicitation)
            && (self.source.is_unspecified() || is_link_local(self.source))
    }

    /// Who has no address yet, or one that only counts on its link, and asks everybody.
    pub fn has_no_address(&self) -> bool {
        self.source.is_unspecified() || is_link_local(self.source)
    }

    pub fn flow(&self) -> Flow {
        // Of a datagram's fragments, only the first has all of its headers.
        let protocol = if self.fragment { 0 } else { self.protocol };
        (self.source, self.destination, protocol, self.ports)
    }

    fn arp(frame: &[u8], at: usize) -> Self {
        let Some(arp) = frame.get(at..at + 28) else { return Self::new(Class::Malformed) };
        if arp[..6] != [0, 1, 8, 0, 6, 4] {
            return Self::new(Class::Other);
        }
        let mut inner = Self::new(Class::Arp);
        (inner.source, inner.destination) = (ipv4_at(&arp[14..]), ipv4_at(&arp[24..]));
        (inner.l3, inner.end) = (at, frame.len());
        inner
    }

    fn ipv4(frame: &[u8], l3: usize) -> Self {
        let malformed = Self::new(Class::Malformed);
        let packet = &frame[l3..];
        let Some(fixed) = packet.get(..20) else { return malformed };
        let header = usize::from(fixed[0] & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if fixed[0] >> 4 != 4 || header < 20 || header > total || total > packet.len() {
            return malformed;
        }
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
        let is_group = fixed[16] >= 224;
        let later = fragment & 0x1fff != 0;
        let mut inner = Self {
            source: ipv4_at(&fixed[12..]),
            destination: ipv4_at(&fixed[16..]),
            protocol: fixed[9],
            ttl: fixed[8],
            tos: fixed[1],
            df: fragment & 0x4000 != 0,
            fragment: fragment & 0x3fff != 0,
            later,
            l3,
            l4: (!later).then_some(l3 + header),
            end: l3 + total,
            ..Self::new(if is_group { Class::Group } else { Class::Ipv4 })
        };
        inner.find_ports(frame);
        inner
    }

    /// Neighbour discovery is told from the rest only within Ethernet.
    fn ipv6(frame: &[u8], l3: usize, has_neighbours: bool) -> Self {
        let malformed = Self::new(Class::Malformed);
        let packet = &frame[l3..];
        let Some(fixed) = packet.get(..40) else { return malformed };
        let total = 40 + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        if fixed[0] >> 4 != 6 || total > packet.len() {
            return malformed;
        }
        let first = u32::from_be_bytes([fixed[0], fixed[1], fixed[2], fixed[3]]);
        let mut inner = Self {
            source: ipv6_at(&fixed[8..]),
            destination: ipv6_at(&fixed[24..]),
            protocol: fixed[6],
            ttl: fixed[7],
            tos: (first >> 20) as u8,
            label: first & 0xf_ffff,
            l3,
            end: l3 + total,
            ..Self::new(if fixed[24] == 0xff { Class::Group } else { Class::Ipv6 })
        };
        if inner.protocol == ICMPV6 && has_neighbours {
            inner.l4 = Some(l3 + 40);
            inner.find_neighbour(&packet[40..total]);
            return inner;
        }
        if !inner.skip_extensions(frame) {
            return malformed;
        }
        inner.find_ports(frame);
        inner
    }

    /// RFC 8200, 4. False: one of them is not all there.
    fn skip_extensions(&mut self, frame: &[u8]) -> bool {
        let mut at = self.l3 + 40;
        for _ in 0..EXTENSIONS {
            if !matches!(self.protocol, 0 | 43 | 44 | 51 | 60) {
                self.l4 = Some(at);
                return true;
            }
            let Some(header) = frame[..self.end].get(at..at + 8) else { return false };
            self.extended = true;
            let units = usize::from(header[1]);
            let length = match self.protocol {
                44 => 8,
                51 => (units + 2) * 4,
                _ => (units + 1) * 8,
            };
            if self.protocol == 44 {
                let offset = u16::from_be_bytes([header[2], header[3]]);
                self.fragment |= offset & 0xfff9 != 0;
                self.later = offset & 0xfff8 != 0;
            }
            self.protocol = header[0];
            if self.later {
                return true;
            }
            at += length;
            if at > self.end {
                return false;
            }
        }
        true
    }

    fn find_ports(&mut self, frame: &[u8]) {
        let Some(l4) = self.l4.filter(|_| !self.fragment) else { return };
        if matches!(self.protocol, TCP | UDP | SCTP)
            && let Some(ports) = frame[..self.end].get(l4..l4 + 4)
        {
            self.ports.copy_from_slice(ports);
        }
    }

    /// RFC 4861, 4.3 and 4.4; 7.1: what has been forwarded is none.
    fn find_neighbour(&mut self, message: &[u8]) {
        let Some(message) = message.get(..24) else { return };
        if self.ttl != 255 || message[1] != 0 {
            return;
        }
        let target = ipv6_at(&message[8..]);
        match message[0] {
            135 => (self.class, self.destination) = (Class::Solicitation, target),
            136 if self.class == Class::Ipv6 => (self.class, self.source) = (Class::Advertisement, target),
            _ => {}
        }
    }
}

/// fe80::/10.
pub fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfe80)
}

pub fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

pub fn ipv4_at(bytes: &[u8]) -> IpAddr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()
}

pub fn ipv6_at(bytes: &[u8]) -> IpAddr {
    let octets: [u8; 16] = bytes[..16].try_into().expect("16 bytes");
    Ipv6Addr::from(octets).into()
}
