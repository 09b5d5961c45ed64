//! What must become of a frame, decided from the RFCs and the test's own tables.

use std::net::Ipv4Addr;

use mptm::kernel::Program;
use mptm::reason::Reason;

use crate::common::frame::{self, Mac, TYPE_ARP, TYPE_IPV4, TYPE_QINQ, TYPE_TEB, TYPE_VLAN, UDP};
use crate::world::{GENEVE_PORT, Kind, Target, Tunnel, VXLAN_PORT, World};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// To the host's stack, as it came.
    Pass,
    Drop(Reason),
    /// Redirected without a tunnel.
    Forward {
        slot: u32,
        frame: Vec<u8>,
    },
    /// `inner`, as it is after INNER_MAC, within the tunnel's header.
    Encapsulated {
        tunnel: u32,
        inner: Vec<u8>,
    },
    Decapsulated {
        tunnel: u32,
        slot: u32,
        frame: Vec<u8>,
    },
}

/// What hashes alike: addresses, protocol, ports.
pub type Flow = (Ipv4Addr, Ipv4Addr, u8, [u8; 4]);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inner {
    Other,
    Malformed,
    Ipv4(Flow),
    Arp { sender: Ipv4Addr, target: Ipv4Addr },
}

impl Inner {
    pub fn parse(frame: &[u8]) -> Self {
        let mut at = 12;
        let Some(mut ethertype) = word(frame, at) else { return Self::Malformed };
        for _ in 0..2 {
            if ethertype == TYPE_VLAN || ethertype == TYPE_QINQ {
                at += 4;
                match word(frame, at) {
                    Some(next) => ethertype = next,
                    None => return Self::Malformed,
                }
            }
        }
        let payload = &frame[at + 2..];
        match ethertype {
            TYPE_ARP => Self::parse_arp(payload),
            TYPE_IPV4 if frame[0] & 1 == 0 => Self::parse_ipv4(payload),
            _ => Self::Other,
        }
    }

    fn parse_arp(payload: &[u8]) -> Self {
        let Some(arp) = payload.get(..28) else { return Self::Malformed };
        if arp[..6] != [0, 1, 8, 0, 6, 4] {
            return Self::Other;
        }
        Self::Arp { sender: address(&arp[14..18]), target: address(&arp[24..28]) }
    }

    fn parse_ipv4(payload: &[u8]) -> Self {
        let Some(fixed) = payload.get(..20) else { return Self::Malformed };
        let header = usize::from(fixed[0] & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if fixed[0] >> 4 != 4 || header < 20 || header > total || total > payload.len() {
            return Self::Malformed;
        }
        let (source, destination) = (address(&fixed[12..16]), address(&fixed[16..20]));
        if destination.octets()[0] >= 224 {
            return Self::Other;
        }
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff;
        let mut ports = [0; 4];
        if fragment == 0
            && matches!(fixed[9], 6 | 17 | 132)
            && let Some(bytes) = payload[..total].get(header..header + 4)
        {
            ports.copy_from_slice(bytes);
        }
        Self::Ipv4((source, destination, fixed[9], ports))
    }

    /// Source and destination, or sender and target.
    fn ends(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        match *self {
            Self::Ipv4((source, destination, ..)) => Some((source, destination)),
            Self::Arp { sender, target } => Some((sender, target)),
            Self::Other | Self::Malformed => None,
        }
    }

    fn is_probe(&self) -> bool {
        matches!(self, Self::Arp { sender, .. } if sender.is_unspecified())
    }
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

fn address(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}

fn with_destination(mut frame: Vec<u8>, mac: Mac) -> Vec<u8> {
    if frame[0] & 1 == 0 && mac != [0; 6] {
        frame[..6].copy_from_slice(&mac);
    }
    frame
}

impl World {
    pub fn judge(&self, program: Program, ifindex: u32, frame: &[u8]) -> Outcome {
        match program {
            Program::Encap => self.judge_encap(ifindex, frame),
            Program::Decap => self.judge_decap(ifindex, frame),
            Program::Redirect => match self.interface(ifindex) {
                Some(interface) if interface.role == mptm::kernel::abi::role::REDIRECT => {
                    self.forward(interface.to, frame.to_vec())
                }
                _ => Outcome::Pass,
            },
            Program::Pass => Outcome::Pass,
            Program::Flood => unreachable!("it is tc's"),
        }
    }

    fn forward(&self, slot: u32, frame: Vec<u8>) -> Outcome {
        if self.has_slot(slot) { Outcome::Forward { slot, frame } } else { Outcome::Drop(Reason::NoDevice) }
    }

    /// From a local address's own pairs, or else from its segment.
    fn route_between(&self, local: Option<Target>, table: u32, remote: Ipv4Addr) -> Option<Target> {
        match local {
            Some(Target::Workload { pairs, .. }) if pairs != 0 => self.route(pairs, remote),
            _ => None,
        }
        .or_else(|| self.route(table, remote))
    }

    fn judge_encap(&self, ifindex: u32, frame: &[u8]) -> Outcome {
        let Some(interface) = self.interface(ifindex) else { return Outcome::Pass };
        if interface.role != mptm::kernel::abi::role::WORKLOAD {
            return Outcome::Pass;
        }
        let inner = Inner::parse(frame);
        if inner == Inner::Malformed {
            return Outcome::Drop(Reason::Malformed);
        }
        let Some((source, destination)) = inner.ends() else { return Outcome::Pass };
        let own = self
            .route(interface.table, source)
            .filter(|own| matches!(own, Target::Workload { slot, .. } if *slot == interface.slot));
        let Some(route) = self.route_between(own, interface.table, destination) else { return Outcome::Pass };
        if own.is_none() && !inner.is_probe() {
            return Outcome::Drop(Reason::Source);
        }
        let id = match route {
            Target::Workload { slot, .. } if slot == interface.slot => return Outcome::Pass,
            Target::Workload { slot, mac, .. } => {
                return self.forward(slot, with_destination(frame.to_vec(), mac));
            }
            Target::Tunnel(id) => id,
        };
        let Some(tunnel) = self.tunnel(id) else { return Outcome::Drop(Reason::NoTunnel) };
        if tunnel.unresolved {
            return Outcome::Drop(Reason::NoNeighbour);
        }
        if frame.len() > tunnel.mtu as usize + 14 {
            return Outcome::Drop(Reason::TooBig);
        }
        if !tunnel.stack && !self.has_slot(tunnel.slot) {
            return Outcome::Drop(Reason::NoDevice);
        }
        let inner = with_destination(frame.to_vec(), tunnel.inner_mac.unwrap_or_default());
        Outcome::Encapsulated { tunnel: id, inner }
    }

    fn judge_decap(&self, ifindex: u32, frame: &[u8]) -> Outcome {
        let Some((tunnel, parsed)) = self.outer(ifindex, frame) else { return Outcome::Pass };
        let outer = match parsed {
            Ok(outer) => outer,
            Err(reason) => return Outcome::Drop(reason),
        };
        let inner = Inner::parse(&outer);
        let (source, destination) = match inner.ends() {
            Some(ends) => ends,
            None if inner == Inner::Malformed => return Outcome::Drop(Reason::InnerMalformed),
            None => return Outcome::Drop(Reason::InnerUnsupported),
        };
        let local =
            self.route(tunnel.table, destination).filter(|target| matches!(target, Target::Workload { .. }));
        if !inner.is_probe()
            && self.route_between(local, tunnel.table, source) != Some(Target::Tunnel(tunnel.id))
        {
            return Outcome::Drop(Reason::InnerSource);
        }
        let Some(Target::Workload { slot, mac, .. }) = local else {
            return Outcome::Drop(Reason::InnerNoRoute);
        };
        if !self.has_slot(slot) {
            return Outcome::Drop(Reason::NoDevice);
        }
        Outcome::Decapsulated { tunnel: tunnel.id, slot, frame: with_destination(outer, mac) }
    }

    /// Whose outer frame this is, and the inner one; None: nobody's.
    fn outer(&self, ifindex: u32, frame: &[u8]) -> Option<(&Tunnel, Result<Vec<u8>, Reason>)> {
        match word(frame, 12)? {
            TYPE_VLAN => {
                let id = word(frame, 14)? & 0xfff;
                word(frame, 16)?;
                let tunnel = self
                    .tunnels
                    .iter()
                    .find(|t| t.is_vlan() && t.underlay == ifindex && t.network == u32::from(id))?;
                Some((tunnel, Ok([&frame[..12], &frame[16..]].concat())))
            }
            TYPE_IPV4 => self.outer_ipv4(ifindex, frame),
            _ => None,
        }
    }

    fn outer_ipv4(&self, ifindex: u32, frame: &[u8]) -> Option<(&Tunnel, Result<Vec<u8>, Reason>)> {
        let ip = frame.get(14..)?;
        let fixed = ip.get(..20)?;
        let header = usize::from(fixed[0] & 0xf) * 4;
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
        if fixed[0] >> 4 != 4 || header < 20 || fragment & 0x1fff != 0 || fixed[9] != UDP {
            return None;
        }
        let udp = ip.get(header..)?.get(..8)?;
        let port = u16::from_be_bytes([udp[2], udp[3]]);
        let tunnel_header = ip.get(header + 8..)?.get(..8)?;
        let network = u32::from_be_bytes([0, tunnel_header[4], tunnel_header[5], tunnel_header[6]]);
        let (wrong, options) = match port {
            VXLAN_PORT => ((tunnel_header[0] & 8 == 0).then_some(Reason::TunnelFlags), 0),
            GENEVE_PORT => {
                let is_known = tunnel_header[0] >> 6 == 0;
                if is_known && tunnel_header[1] & 0x80 != 0 {
                    return None;
                }
                let wrong = if !is_known {
                    Some(Reason::TunnelVersion)
                } else if tunnel_header[1] & 0x40 != 0 {
                    Some(Reason::CriticalOption)
                } else if tunnel_header[2..4] != TYPE_TEB.to_be_bytes() {
                    Some(Reason::TunnelPayload)
                } else {
                    None
                };
                (wrong, usize::from(tunnel_header[0] & 0x3f) * 4)
            }
            _ => return None,
        };
        let tunnel = self.tunnels.iter().find(|tunnel| {
            tunnel.port() == port
                && tunnel.network == network
                && tunnel.underlay == ifindex
                && tunnel.remote.1 == address(&fixed[12..16])
                && tunnel.local.1 == address(&fixed[16..20])
                && matches!(tunnel.kind, Kind::Vxlan | Kind::Geneve { .. })
        })?;
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let udp_length = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
        let strip = header + 16 + options;
        let result = if fragment & frame::MORE_FRAGMENTS != 0 {
            Err(Reason::OuterFragment)
        } else if total > ip.len() || total < header || udp_length != total - header {
            Err(Reason::OuterLength)
        } else if let Some(reason) = wrong {
            Err(reason)
        } else if strip > total {
            Err(Reason::OuterLength)
        } else if frame::checksum(&ip[..header]) != 0 {
            Err(Reason::OuterChecksum)
        } else {
            Ok(ip[strip..total].to_vec())
        };
        Some((tunnel, result))
    }
}
