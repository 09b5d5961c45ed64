//! What a tunnel makes of an inner frame, field by field as the RFCs have it.

use std::net::IpAddr;

use super::tunnel::{Df, Kind, Label, Tunnel, number_of};
use crate::common::frame::{
    DO_NOT_FRAGMENT, Ethernet, ICMP, ICMPV6, Ipv4, Ipv6, TCP, TYPE_IPV4, TYPE_IPV6, UDP, checksum, udp,
};
use crate::oracle::inner::{Class, Inner};

/// What each packet has of its own in its outer header, and nothing says what it must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Own {
    /// UDP source port.
    pub port: u16,
    /// GRE sequence number.
    pub sequence: u32,
    /// IPv4 identification, where a packet may be fragmented.
    pub ip_id: u16,
    /// Flow label, where it is a hash.
    pub label: u32,
}

impl Tunnel {
    /// The whole outer frame around an inner one, of which it may carry just the packet.
    pub fn encode(&self, frame: &[u8], own: Own) -> Vec<u8> {
        if self.kind.is_tags() {
            return self.encode_tags(frame);
        }
        let of_frame = Inner::of_frame(frame);
        let (payload, inner) = if self.kind.carries_ip() {
            let payload = packet_of(frame);
            (payload, Inner::of_packet(payload))
        } else {
            (frame, of_frame)
        };
        let ethertype = match payload.first().map(|first| first >> 4) {
            Some(6) => TYPE_IPV6,
            _ => TYPE_IPV4,
        };
        let mut segment = self.wrap(payload, ethertype, own.sequence);
        let header = segment.len() - payload.len();
        let stand_in = [&segment[..header], &stand_in(payload, &inner)].concat();
        if self.has_gre_checksum() {
            let mut covered = stand_in;
            covered[4..6].fill(0);
            segment[4..6].copy_from_slice(&checksum(&covered).to_be_bytes());
        } else if self.kind.has_udp() {
            segment = self.encode_udp(own.port, &segment, &stand_in);
        }
        let ip = self.encode_ip(&segment, self.ip_protocol().unwrap_or(number_of(ethertype)), &inner, own);
        let ethertype = if self.is_ipv6() { TYPE_IPV6 } else { TYPE_IPV4 };
        Ethernet::new(self.remote.0, self.local.0, ethertype).encode(&ip)
    }

    fn encode_tags(&self, frame: &[u8]) -> Vec<u8> {
        let mut out = frame.to_vec();
        if !self.keep_destination {
            out[..6].copy_from_slice(&self.remote.0);
        }
        if !self.keep_source {
            out[6..12].copy_from_slice(&self.local.0);
        }
        let tags = self.tags(Inner::of_frame(frame).pcp);
        out.splice(
            12..12,
            tags.iter().flat_map(|(kind, tci)| [kind.to_be_bytes(), tci.to_be_bytes()].concat()),
        );
        out
    }

    /// The checksum is that of the tunnel header and what stands in for the payload.
    fn encode_udp(&self, port: u16, payload: &[u8], stand_in: &[u8]) -> Vec<u8> {
        let mut out = udp(port, self.port, payload);
        if self.udp_checksum {
            let length = (out.len() as u32).to_be_bytes();
            let pseudo = [&bytes(self.local.1)[..], &bytes(self.remote.1), &[0, UDP], &length].concat();
            let sum = match checksum(&[&pseudo, &out[..8], stand_in].concat()) {
                0 => 0xffff,
                sum => sum,
            };
            out[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        out
    }

    fn encode_ip(&self, payload: &[u8], protocol: u8, inner: &Inner, own: Own) -> Vec<u8> {
        let ttl = self.ttl.unwrap_or(if inner.ttl == 0 { 64 } else { inner.ttl });
        let tos = self.tos.unwrap_or(inner.tos) & 0xfc | inner.tos & 3;
        match (self.local.1, self.remote.1) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                let may_be_fragmented = match self.df {
                    Df::Set => false,
                    Df::Unset => true,
                    Df::Inherit => inner.class == Class::Ipv4 && !inner.df,
                };
                let ip = Ipv4 {
                    tos,
                    id: if may_be_fragmented { own.ip_id } else { 0 },
                    fragment: if may_be_fragmented { 0 } else { DO_NOT_FRAGMENT },
                    ttl,
                    options: self.ip_options.clone(),
                    ..Ipv4::new(local, remote, protocol)
                };
                ip.encode(payload)
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                let flow_label = match self.label {
                    Label::Flow => own.label,
                    Label::Inherit => inner.label,
                    Label::Fixed(label) => label,
                };
                let ip = Ipv6 {
                    traffic_class: tos,
                    hop_limit: ttl,
                    flow_label,
                    ..Ipv6::new(local, remote, protocol)
                };
                ip.encode(payload)
            }
            ends => panic!("{ends:?} are of two families"),
        }
    }

    /// The outer frame as the far end would send it here.
    pub fn arriving(&self, inner: &[u8], source_port: u16) -> Vec<u8> {
        self.arriving_as(inner, Own { port: source_port, ..Own::default() })
    }

    /// The same, with all that is the packet's own.
    pub fn arriving_as(&self, inner: &[u8], own: Own) -> Vec<u8> {
        self.mirrored().encode(inner, own)
    }

    /// What is the packet's own in an outer frame of this tunnel; zero where it has no such field.
    pub fn own(&self, outer: &[u8]) -> Own {
        let word = |at: usize| outer.get(at..at + 2).map_or(0, |word| u16::from_be_bytes([word[0], word[1]]));
        let mut own = Own::default();
        if self.kind.is_tags() {
            return own;
        }
        let l4 = self.l4_offset();
        if self.kind.has_udp() {
            own.port = word(l4);
        }
        if let Kind::Gre { checksum, sequence: true, .. } = self.kind {
            let at = l4 + 4 + if checksum { 4 } else { 0 } + if self.network.is_some() { 4 } else { 0 };
            own.sequence = u32::from(word(at)) << 16 | u32::from(word(at + 2));
        }
        if !self.is_ipv6() && self.df != Df::Set && word(20) == 0 {
            own.ip_id = word(18);
        }
        if self.is_ipv6() && self.label == Label::Flow {
            own.label = (u32::from(word(14)) << 16 | u32::from(word(16))) & 0xf_ffff;
        }
        own
    }
}

/// The IP packet in a frame, without what pads it; what is no packet, as it is.
pub fn packet_of(frame: &[u8]) -> &[u8] {
    let inner = Inner::of_frame(frame);
    if matches!(inner.class, Class::Ipv4 | Class::Ipv6 | Class::Group) && inner.end > inner.l3 {
        return &frame[inner.l3..inner.end];
    }
    &frame[14.min(frame.len())..]
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// What an outer checksum takes the payload for: where the inner packet has a checksum over all the rest, that is taken to
/// be right. Then the rest sums up to the complement of its pseudo header's sum, whatever is in it.
fn stand_in(payload: &[u8], inner: &Inner) -> Vec<u8> {
    let Some(l4) = inner.l4 else { return payload.to_vec() };
    let is_ip = matches!(inner.class, Class::Ipv4 | Class::Ipv6);
    if !is_ip || inner.end != payload.len() || inner.fragment || inner.extended {
        return payload.to_vec();
    }
    let covered = payload.len() - l4;
    let is_covered = match inner.protocol {
        TCP => true,
        UDP => payload.get(l4 + 4..l4 + 8).is_some_and(|rest| {
            rest[2..] != [0, 0] && usize::from(u16::from_be_bytes([rest[0], rest[1]])) == covered
        }),
        ICMPV6 => inner.class == Class::Ipv6,
        // Without a pseudo header, the rest sums up to nothing.
        ICMP if inner.class == Class::Ipv4 => return payload[..l4].to_vec(),
        _ => false,
    };
    if !is_covered {
        return payload.to_vec();
    }
    let length = (covered as u32).to_be_bytes();
    let pseudo =
        [&bytes(inner.source)[..], &bytes(inner.destination), &[0, inner.protocol], &length].concat();
    [&payload[..l4], &checksum(&pseudo).to_be_bytes()].concat()
}
