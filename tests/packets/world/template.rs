//! A tunnel as an entry of the map `tunnels`: its header is that of some packet, without what each packet fills in.

use std::net::IpAddr;

use mptm::kernel::abi::{self, tunnel_flags as flag};

use super::tunnel::{Df, Kind, Label, Tunnel};
use super::{Own, mapped};
use crate::common::frame::{Ethernet, IPV4_IN_IP, Ipv4, TYPE_IPV4};

impl Tunnel {
    /// What goes into the map.
    pub fn template(&self) -> abi::Tunnel {
        let header = self.header();
        let (l3, l4) = if self.kind.is_tags() { (0, 0) } else { (14, self.l4_offset()) };
        let mut tunnel = abi::Tunnel {
            header_len: header.len() as u16,
            pop: if self.kind.is_tags() { 12 } else { 0 },
            l3_offset: l3 as u16,
            l4_offset: l4 as u16,
            type_offset: self.type_offset() as u16,
            mtu: self.mtu,
            flags: self.flags(),
            device: self.slot,
            table: self.table,
            port_min: self.ports.0,
            port_count: self.ports.1,
            protocol: self.kind.protocol(),
            inner_mac: self.inner_mac.unwrap_or_default(),
            tos: self.tos.unwrap_or(0),
            ttl: self.ttl.unwrap_or(64),
            has_local_id: self.received.is_some().into(),
            local_id: self.received.unwrap_or(0),
            ..Default::default()
        };
        tunnel.header[..header.len()].copy_from_slice(&header);
        if self.has_sequence() {
            tunnel.sequence_offset = tunnel.header_len - 4;
        }
        if !self.kind.is_tags() && !self.is_ipv6() {
            tunnel.ip_sum = sum(&header[l3..l4]);
        }
        if self.has_gre_checksum() {
            tunnel.sum = sum(&header[l4..]);
        } else if self.kind.has_udp() && self.udp_checksum {
            let addresses = if self.is_ipv6() { 22..54 } else { 26..34 };
            tunnel.sum = sum(&header[addresses]) + sum(&[0, 17]) + sum(&header[l4..]);
        }
        if let Kind::Geneve { options, .. } = &self.kind {
            let critical = options.iter().filter(|option| option.1 & 0x80 != 0);
            for (slot, (class, kind, _)) in tunnel.critical.iter_mut().zip(critical) {
                *slot = u32::from(*class) << 8 | u32::from(*kind);
            }
        }
        tunnel
    }

    /// Of a packet of no bytes.
    fn header(&self) -> Vec<u8> {
        let packet = Ipv4::new([0; 4].into(), [0; 4].into(), IPV4_IN_IP).encode(&[]);
        let frame = Ethernet::new([0; 6], [0; 6], TYPE_IPV4).encode(&packet);
        let mut header = self.encode(&frame, Own::default());
        let payload = if self.kind.is_tags() {
            frame.len() - 12
        } else if self.kind.carries_ip() {
            packet.len()
        } else {
            frame.len()
        };
        header.truncate(header.len() - payload);
        if self.unresolved || self.keep_destination {
            header[..6].fill(0);
        }
        if self.keep_source {
            header[6..12].fill(0);
        }
        for range in self.filled_in() {
            header[range].fill(0);
        }
        if !self.kind.is_tags() && self.is_ipv6() {
            // The traffic class lies across two bytes.
            header[14] &= 0xf0;
            header[15] &= 0x0f;
        }
        if self.kind.is_tags() && self.pcp.is_none() {
            for at in (14..header.len()).step_by(4) {
                header[at] &= 0x0f;
            }
        }
        header
    }

    /// The bytes of the header that are each packet's own. (Less than a byte is not here: a tag's priority,
    /// the traffic class.)
    fn filled_in(&self) -> Vec<std::ops::Range<usize>> {
        let mut ranges = Vec::new();
        if self.kind.is_tags() {
            return ranges;
        }
        let l4 = self.l4_offset();
        if self.is_ipv6() {
            // Fixed flow labels are the only thing in the first word that is not.
            if !matches!(self.label, Label::Fixed(_)) {
                ranges.push(15..18);
            }
            ranges.push(18..20);
            if self.ttl.is_none() {
                ranges.push(21..22);
            }
        } else {
            ranges.extend([15..18, 24..26]);
            if self.df != Df::Set {
                ranges.push(18..22);
            }
            if self.ttl.is_none() {
                ranges.push(22..23);
            }
        }
        match self.kind {
            Kind::Ipip => ranges.push(self.type_offset()..self.type_offset() + 1),
            Kind::Gre { .. } if self.kind.carries_ip() => ranges.push(l4 + 2..l4 + 4),
            Kind::Geneve { ip: true, .. } => ranges.push(l4 + 10..l4 + 12),
            Kind::Gue { variant: 0 } => ranges.push(l4 + 9..l4 + 10),
            Kind::Gtpu { .. } => ranges.push(l4 + 10..l4 + 12),
            _ => {}
        }
        if self.has_gre_checksum() {
            ranges.push(l4 + 4..l4 + 6);
        }
        if self.kind.has_udp() {
            ranges.extend([l4..l4 + 2, l4 + 4..l4 + 8]);
        }
        ranges
    }

    fn type_offset(&self) -> usize {
        let l4 = self.l4_offset();
        match self.kind {
            Kind::Ipip if self.is_ipv6() => 20,
            Kind::Ipip => 23,
            Kind::Gre { ethernet: false, .. } => l4 + 2,
            Kind::Geneve { ip: true, .. } => l4 + 10,
            Kind::Gue { variant: 0 } => l4 + 9,
            _ => 0,
        }
    }

    fn flags(&self) -> u32 {
        let over_ip = !self.kind.is_tags();
        let (ipv4, ipv6) = (over_ip && !self.is_ipv6(), over_ip && self.is_ipv6());
        [
            (ipv4, flag::IPV4),
            (ipv6, flag::IPV6),
            (self.kind.has_udp(), flag::UDP),
            (self.kind.has_udp() && self.udp_checksum, flag::UDP_CHECKSUM),
            (self.kind.carries_ip(), flag::IP_PAYLOAD),
            (over_ip && self.ttl.is_none(), flag::TTL_INHERIT),
            (over_ip && self.tos.is_none(), flag::TOS_INHERIT),
            (ipv4 && self.df == Df::Inherit, flag::DF_INHERIT),
            (ipv4 && self.df == Df::Unset, flag::DF_UNSET),
            (ipv6 && self.label == Label::Flow, flag::LABEL_FLOW),
            (ipv6 && self.label == Label::Inherit, flag::LABEL_INHERIT),
            (self.has_gre_checksum(), flag::GRE_CHECKSUM),
            (self.has_sequence(), flag::SEQUENCE),
            (
                matches!(self.kind, Kind::Gre { ethernet: false, .. } | Kind::Geneve { ip: true, .. }),
                flag::ETHERTYPE,
            ),
            (matches!(self.kind, Kind::Ipip | Kind::Gue { variant: 0 }), flag::IP_PROTOCOL),
            (matches!(self.kind, Kind::Gtpu { .. }), flag::GTPU_LENGTH),
            (!over_ip && self.pcp.is_none(), flag::PCP_INHERIT),
            (self.keep_destination, flag::KEEP_DESTINATION),
            (self.keep_source, flag::KEEP_SOURCE),
            (self.inner_mac.is_some(), flag::INNER_MAC),
            (self.mss_clamp, flag::MSS_CLAMP),
            (self.flood, flag::FLOOD),
            (self.stack, flag::STACK),
            (self.unresolved, flag::UNRESOLVED),
            (self.debug, flag::DEBUG),
        ]
        .into_iter()
        .fold(0, |flags, (on, flag)| if on { flags | flag } else { flags })
    }

    /// The keys of `endpoints`: its own, and that of its far end's other ids.
    pub fn endpoints(&self) -> Vec<abi::Endpoint> {
        let address = |address: IpAddr| if self.kind.is_tags() { [0; 16] } else { mapped(address) };
        let received = self.received.or(self.network);
        let own = abi::Endpoint {
            remote: address(self.remote.1),
            local: address(self.local.1),
            id: match self.kind {
                Kind::Qinq { service } => u32::from(service) << 12 | received.unwrap_or(0),
                _ => received.unwrap_or(0),
            },
            ifindex: self.underlay,
            port: match self.kind {
                Kind::Gre { .. } => received.is_some().into(),
                _ => self.port,
            },
            protocol: self.kind.protocol(),
        };
        let any_id = |protocol: u16, port| abi::Endpoint { id: 0, port, protocol: protocol | 0x8000, ..own };
        match self.kind {
            Kind::Gre { .. } => vec![own, any_id(5, 0)],
            Kind::Gtpu { .. } => vec![own, any_id(10, self.port)],
            _ => vec![own],
        }
    }
}

/// Of 16-bit words, as they are in memory.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|word| u32::from(u16::from_ne_bytes([word[0], word[1]]))).sum()
}
