//! Outer headers, as the RFCs have them.

use std::net::IpAddr;

use mptm::reason::Reason;

use super::inner::{ipv4_at, ipv6_at, word};
use crate::common::frame::{GRE, TYPE_IPV4, TYPE_IPV6, TYPE_QINQ, TYPE_TEB, TYPE_VLAN, UDP, checksum};
use crate::world::World;

/// What the header says that it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    Ethernet,
    Ipv4,
    Ipv6,
    /// Either.
    Ip,
}

/// An outer header of a protocol that mptm speaks. Offsets are from the frame's beginning.
#[derive(Debug, Clone)]
pub struct Outer {
    /// enum mptm_protocol.
    pub protocol: u16,
    /// Source and destination; None: there is no IP header.
    pub ends: Option<(IpAddr, IpAddr)>,
    /// VNI, key, TEID; VLAN id.
    pub id: Option<u32>,
    /// QinQ's other id.
    pub service: Option<u16>,
    /// UDP destination port.
    pub port: u16,
    /// The first thing that is wrong with it.
    pub wrong: Option<Reason>,
    pub l4: usize,
    /// The header behind UDP.
    pub tunnel: usize,
    /// Where the payload begins, if nothing follows that is to be looked at: options are within, extensions are not.
    pub payload_at: usize,
    pub payload: Payload,
    /// Behind all that the IP header says is there.
    pub end: usize,
    pub ecn: u8,
    pub is_control: bool,
    pub is_echo: bool,
    /// GENEVE: bytes of options before the payload, and whether some are critical, it says.
    pub options: usize,
    pub is_critical: bool,
    pub has_checksum: bool,
    pub sequence: Option<u32>,
}

/// How many IPv6 extension headers may come before.
const EXTENSIONS: usize = 4;
/// Where a header that begins later is no more looked for.
pub const FARTHEST: usize = 0x1ff;

impl Outer {
    fn new() -> Self {
        Self {
            protocol: 0,
            ends: None,
            id: None,
            service: None,
            port: 0,
            wrong: None,
            l4: 0,
            tunnel: 0,
            payload_at: 0,
            payload: Payload::Ethernet,
            end: 0,
            ecn: 0,
            is_control: false,
            is_echo: false,
            options: 0,
            is_critical: false,
            has_checksum: false,
            sequence: None,
        }
    }

    /// None: no header of a tunnel protocol, or not all of it.
    pub fn parse(world: &World, frame: &[u8]) -> Option<Self> {
        let mut outer = Self::new();
        match word(frame, 12)? {
            kind @ (TYPE_VLAN | TYPE_QINQ) => outer.tags(kind, frame)?,
            TYPE_IPV4 => {
                let protocol = outer.ipv4(frame)?;
                outer.transport(world, protocol, frame)?;
            }
            TYPE_IPV6 => {
                let protocol = outer.ipv6(frame)?;
                outer.transport(world, protocol, frame)?;
            }
            _ => return None,
        }
        Some(outer)
    }

    fn note(&mut self, is_wrong: bool, reason: Reason) {
        if is_wrong {
            self.wrong.get_or_insert(reason);
        }
    }

    fn tags(&mut self, kind: u16, frame: &[u8]) -> Option<()> {
        let first = word(frame, 14)? & 0xfff;
        let next = word(frame, 16)?;
        self.end = frame.len();
        if kind == TYPE_VLAN {
            (self.protocol, self.id, self.payload_at) = (1, Some(first.into()), 16);
            return Some(());
        }
        if next != TYPE_VLAN {
            return None;
        }
        let second = word(frame, 18)? & 0xfff;
        word(frame, 20)?;
        (self.protocol, self.id, self.service, self.payload_at) = (4, Some(second.into()), Some(first), 20);
        Some(())
    }

    fn ipv4(&mut self, frame: &[u8]) -> Option<u8> {
        let ip = &frame[14..];
        let fixed = ip.get(..20)?;
        let header = usize::from(fixed[0] & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
        if fixed[0] >> 4 != 4 || header < 20 || fragment & 0x1fff != 0 {
            return None;
        }
        self.note(fragment & 0x2000 != 0, Reason::OuterFragment);
        self.note(total > ip.len() || total < header, Reason::OuterLength);
        self.ends = Some((ipv4_at(&fixed[12..]), ipv4_at(&fixed[16..])));
        self.ecn = fixed[1] & 3;
        (self.l4, self.end) = (14 + header, 14 + total);
        Some(fixed[9])
    }

    fn ipv6(&mut self, frame: &[u8]) -> Option<u8> {
        let fixed = frame[14..].get(..40)?;
        if fixed[0] >> 4 != 6 {
            return None;
        }
        let total = 40 + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        self.note(14 + total > frame.len(), Reason::OuterLength);
        self.ends = Some((ipv6_at(&fixed[8..]), ipv6_at(&fixed[24..])));
        self.ecn = fixed[1] >> 4 & 3;
        (self.l4, self.end) = (54, 14 + total);
        let mut next = fixed[6];
        for _ in 0..=EXTENSIONS {
            if !matches!(next, 0 | 43 | 44 | 60) {
                return Some(next);
            }
            let header = frame.get(self.l4..self.l4 + 8)?;
            if next == 44 {
                let offset = u16::from_be_bytes([header[2], header[3]]);
                if offset & 0xfff8 != 0 {
                    return None;
                }
                self.note(offset & 1 != 0, Reason::OuterFragment);
                self.l4 += 8;
            } else {
                if next == 43 && header[3] != 0 {
                    return None;
                }
                self.l4 += (usize::from(header[1]) + 1) * 8;
            }
            next = header[0];
        }
        None
    }

    fn transport(&mut self, world: &World, protocol: u8, frame: &[u8]) -> Option<()> {
        match protocol {
            4 | 41 => {
                self.protocol = 7;
                self.payload = if protocol == 4 { Payload::Ipv4 } else { Payload::Ipv6 };
                self.payload_at = self.l4;
                Some(())
            }
            GRE if self.l4 <= FARTHEST => self.gre(frame),
            UDP if self.l4 <= FARTHEST => self.udp(world, frame),
            _ => None,
        }
    }

    fn gre(&mut self, frame: &[u8]) -> Option<()> {
        let (flags, kind) = (word(frame, self.l4)?, word(frame, self.l4 + 2)?);
        (self.protocol, self.payload) = match kind {
            TYPE_TEB => (6, Payload::Ethernet),
            TYPE_IPV4 => (5, Payload::Ipv4),
            TYPE_IPV6 => (5, Payload::Ipv6),
            _ => return None,
        };
        self.note(flags & 7 != 0, Reason::TunnelVersion);
        // Routing, strict source route, and the last of those bits that must be zero (RFC 2784, 2.2).
        self.note(flags & 0x4c00 != 0, Reason::TunnelFlags);
        let mut at = self.l4 + 4;
        self.has_checksum = flags & 0x8000 != 0;
        if self.has_checksum {
            at += 4;
        }
        let mut field = |flag: u16| {
            (flags & flag != 0).then(|| {
                at += 4;
                Some(u32::from(word(frame, at - 4)?) << 16 | u32::from(word(frame, at - 2)?))
            })
        };
        self.id = field(0x2000).map_or(Some(None), |key| key.map(Some))?;
        self.sequence = field(0x1000).map_or(Some(None), |sequence| sequence.map(Some))?;
        (self.tunnel, self.payload_at) = (self.l4, at);
        Some(())
    }

    fn udp(&mut self, world: &World, frame: &[u8]) -> Option<()> {
        let udp = frame.get(self.l4..self.l4 + 8)?;
        self.port = u16::from_be_bytes([udp[2], udp[3]]);
        let kind = world.tunnels.iter().find(|tunnel| tunnel.port == self.port && self.port != 0)?;
        self.protocol = kind.kind.protocol();
        let length = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
        self.note(self.l4 + length != self.end, Reason::OuterLength);
        let at = self.l4 + 8;
        (self.tunnel, self.payload_at) = (at, at);
        match self.protocol {
            2 => self.vxlan(frame.get(at..at + 8)?),
            3 => self.geneve(frame.get(at..at + 8)?),
            8 => self.gue(frame.get(at..at + 4)?),
            10 => self.gtpu(frame.get(at..at + 8)?),
            _ => self.payload = Payload::Ip,
        }
        Some(())
    }

    /// RFC 7348, 5.
    fn vxlan(&mut self, header: &[u8]) {
        self.note(header[0] & 8 == 0, Reason::TunnelFlags);
        self.id = Some(u32::from_be_bytes([0, header[4], header[5], header[6]]));
        self.payload_at += 8;
    }

    /// RFC 8926, 3.4.
    fn geneve(&mut self, header: &[u8]) {
        let is_known = header[0] >> 6 == 0;
        self.note(!is_known, Reason::TunnelVersion);
        self.is_control = is_known && header[1] & 0x80 != 0;
        self.is_critical = header[1] & 0x40 != 0;
        match u16::from_be_bytes([header[2], header[3]]) {
            TYPE_TEB => {}
            TYPE_IPV4 => self.payload = Payload::Ipv4,
            TYPE_IPV6 => self.payload = Payload::Ipv6,
            _ => self.note(true, Reason::TunnelPayload),
        }
        self.id = Some(u32::from_be_bytes([0, header[4], header[5], header[6]]));
        self.options = usize::from(header[0] & 0x3f) * 4;
        self.payload_at += 8 + self.options;
    }

    /// draft-ietf-intarea-gue, 3.
    fn gue(&mut self, header: &[u8]) {
        self.payload = Payload::Ip;
        match header[0] >> 6 {
            1 => return,
            0 if header[0] & 0x20 != 0 => self.is_control = true,
            0 => self.note(header[2..4] != [0, 0], Reason::TunnelFlags),
            _ => self.note(true, Reason::TunnelVersion),
        }
        match header[1] {
            4 => self.payload = Payload::Ipv4,
            41 => self.payload = Payload::Ipv6,
            _ => self.note(true, Reason::TunnelPayload),
        }
        self.payload_at += 4 + usize::from(header[0] & 0x1f) * 4;
    }

    /// 3GPP TS 29.281, 5.1.
    fn gtpu(&mut self, header: &[u8]) {
        self.payload = Payload::Ip;
        let is_known = header[0] & 0xf0 == 0x30;
        self.note(!is_known, Reason::TunnelVersion);
        self.is_control = is_known && header[1] != 255;
        self.is_echo = header[1] == 1;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        self.note(self.tunnel + 8 + length != self.end, Reason::TunnelLength);
        self.id = Some(u32::from_be_bytes([header[4], header[5], header[6], header[7]]));
        self.payload_at += if header[0] & 7 == 0 { 8 } else { 12 };
    }

    /// Whether the IPv4 header's checksum is right. An IPv6 header has none.
    pub fn header_is_right(&self, frame: &[u8]) -> bool {
        !matches!(self.ends, Some((IpAddr::V4(_), _)))
            || frame.get(14..self.l4).is_some_and(|header| checksum(header) == 0)
    }
}
