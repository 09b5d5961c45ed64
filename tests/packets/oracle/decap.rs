//! What arrives on an underlay.

use std::net::IpAddr;

use mptm::reason::Reason;

use super::answer::Answer;
use super::inner::{Class, Inner, is_link_local};
use super::outer::{FARTHEST, Outer, Payload};
use super::{Outcome, answer, edit};
use crate::common::frame::{TYPE_IPV4, TYPE_IPV6, UDP, checksum, transport_checksum};
use crate::world::{Kind, Target, Tunnel, World};

/// How many extension headers of GTP-U are walked over.
const GTPU_EXTENSIONS: usize = 4;

impl World {
    pub(super) fn judge_decap(&mut self, ifindex: u32, frame: &[u8]) -> Outcome {
        let Some(mut outer) = Outer::parse(self, frame) else { return Outcome::Pass };
        let Some(tunnel) = self.tunnels.iter().find(|tunnel| is_whose(tunnel, &outer, ifindex)).cloned()
        else {
            return self.stray(ifindex, &outer, frame);
        };
        if outer.is_control {
            return Outcome::Leave(Reason::Oam);
        }
        if let Some(reason) = check(&mut outer, &tunnel, frame) {
            return Outcome::Drop(reason);
        }
        let (mut bytes, inner) = if outer.ends.is_none() {
            let bytes = [&frame[..12], &frame[outer.payload_at..]].concat();
            let inner = Inner::of_frame(&bytes);
            (bytes, inner)
        } else {
            let bytes = frame[outer.payload_at..outer.end].to_vec();
            let inner =
                if tunnel.kind.carries_ip() { Inner::of_packet(&bytes) } else { Inner::of_frame(&bytes) };
            (bytes, inner)
        };
        let (slot, mac) = match self.deliver(&tunnel, &outer, &inner) {
            Ok(Some(to)) => to,
            Ok(None) => return self.flood_in(&tunnel, &outer, &inner, bytes),
            Err(reason) => return Outcome::Drop(reason),
        };
        if tunnel.mss_clamp {
            edit::clamp(&mut bytes, &inner, tunnel.mtu);
        }
        if outer.ends.is_some() && edit::join_ecn(&mut bytes, &inner, outer.ecn).is_none() {
            return Outcome::Drop(Reason::Ecn);
        }
        if tunnel.kind.carries_ip() {
            if mac == [0; 6] {
                return Outcome::Drop(Reason::NoMac);
            }
            if edit::decrement(&mut bytes, &inner).is_none() {
                return Outcome::Drop(Reason::Ttl);
            }
        }
        if !self.is_in_sequence(&tunnel, &outer) {
            return Outcome::Drop(Reason::TunnelSequence);
        }
        if tunnel.kind.carries_ip() {
            let own = self.interfaces.iter().find(|interface| interface.slot == slot);
            let own = own.map_or([0; 6], |interface| interface.mac);
            let ethertype = if inner.class == Class::Ipv6 { TYPE_IPV6 } else { TYPE_IPV4 };
            bytes = [&mac[..], &own, &ethertype.to_be_bytes(), &bytes].concat();
        } else {
            edit::address(&mut bytes, mac);
        }
        if !self.has_slot(slot) {
            return Outcome::Drop(Reason::NoDevice);
        }
        Outcome::Decapsulated { tunnel: tunnel.id, slot, frame: bytes }
    }

    /// Of a tunnel protocol, but no tunnel's.
    fn stray(&self, ifindex: u32, outer: &Outer, frame: &[u8]) -> Outcome {
        if outer.ends.is_none() {
            return Outcome::Pass;
        }
        let is_gre = |protocol: u16| protocol == 5 || protocol == 6;
        let is_far_end = self.tunnels.iter().any(|tunnel| {
            let protocol = tunnel.kind.protocol();
            is_at(tunnel, outer, ifindex)
                && if is_gre(outer.protocol) {
                    is_gre(protocol)
                } else {
                    protocol == 10 && outer.protocol == 10 && tunnel.port == outer.port
                }
        });
        if is_far_end && is_gre(outer.protocol) {
            return Outcome::Drop(Reason::TunnelId);
        }
        if is_far_end && outer.is_echo {
            let slot = self.interface(ifindex).map_or(u32::MAX, |interface| interface.slot);
            return self.answer(slot, echo(outer, frame));
        }
        Outcome::Leave(if outer.is_control { Reason::Oam } else { Reason::Stray })
    }

    /// The workload's slot and MAC address. None: it is for several.
    fn deliver(
        &mut self,
        tunnel: &Tunnel,
        outer: &Outer,
        inner: &Inner,
    ) -> Result<Option<(u32, [u8; 6])>, Reason> {
        match (inner.class, outer.payload) {
            (Class::Malformed, _) => return Err(Reason::InnerMalformed),
            (Class::Group, _) if !(tunnel.flood && inner.flood) => return Err(Reason::InnerGroup),
            (Class::Group, _) => {
                let is_behind = self.route(tunnel.table, inner.source) == Some(Target::Tunnel(tunnel.id));
                return if is_behind || inner.has_no_address() { Ok(None) } else { Err(Reason::InnerSource) };
            }
            (Class::Other, _) => return Err(Reason::InnerUnsupported),
            (Class::Ipv4, Payload::Ipv6) | (Class::Ipv6, Payload::Ipv4) => return Err(Reason::TunnelPayload),
            _ => {}
        }
        let local =
            self.way(None, tunnel.table, inner).filter(|target| matches!(target, Target::Workload { .. }));
        let back =
            self.route_between(local, tunnel.table, inner.source).filter(|_| !is_link_local(inner.source));
        let here = Target::Tunnel(tunnel.id);
        let is_known = self.is_known_there(tunnel.table, inner, |target| target == here);
        if !inner.may_be_anybody() && !is_known && back != Some(here) {
            return Err(Reason::InnerSource);
        }
        let Some(Target::Workload { slot, mac, .. }) = local else { return Err(Reason::InnerNoRoute) };
        self.remember(tunnel.table, inner, Target::Tunnel(tunnel.id));
        Ok(Some((slot, mac)))
    }

    /// To all workloads of the segment.
    fn flood_in(&mut self, tunnel: &Tunnel, outer: &Outer, inner: &Inner, mut frame: Vec<u8>) -> Outcome {
        if tunnel.mss_clamp {
            edit::clamp(&mut frame, inner, tunnel.mtu);
        }
        if outer.ends.is_some() && edit::join_ecn(&mut frame, inner, outer.ecn).is_none() {
            return Outcome::Drop(Reason::Ecn);
        }
        if !self.is_in_sequence(tunnel, outer) {
            return Outcome::Drop(Reason::TunnelSequence);
        }
        // IEEE 802's first local experimental one.
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        Outcome::Noted { tunnel: Some(tunnel.id), frame }
    }

    /// RFC 2890, 2.2: what could be delivered otherwise is the last one from now on.
    fn is_in_sequence(&mut self, tunnel: &Tunnel, outer: &Outer) -> bool {
        let Some(sequence) = outer.sequence.filter(|_| tunnel.has_sequence()) else { return true };
        let last = self.received.get(&tunnel.id);
        // The same again is not, either. Numbers wrap.
        if last.is_some_and(|last| !(1..1 << 31).contains(&sequence.wrapping_sub(*last))) {
            return false;
        }
        self.received.insert(tunnel.id, sequence);
        true
    }
}

/// Whether a tunnel has this far end, and is on this underlay.
fn is_at(tunnel: &Tunnel, outer: &Outer, ifindex: u32) -> bool {
    let ends = (!tunnel.kind.is_tags()).then_some((tunnel.remote.1, tunnel.local.1));
    ends == outer.ends && tunnel.underlay == ifindex
}

fn is_whose(tunnel: &Tunnel, outer: &Outer, ifindex: u32) -> bool {
    let service = match tunnel.kind {
        Kind::Qinq { service } => Some(service),
        _ => None,
    };
    tunnel.kind.protocol() == outer.protocol
        && is_at(tunnel, outer, ifindex)
        && tunnel.received.or(tunnel.network) == outer.id
        && service == outer.service
        && tunnel.port == outer.port
}

/// What is wrong with a packet of a tunnel; may find its payload farther on.
fn check(outer: &mut Outer, tunnel: &Tunnel, frame: &[u8]) -> Option<Reason> {
    if outer.wrong.is_some() {
        return outer.wrong;
    }
    outer.ends?;
    if outer.payload_at > outer.end || outer.payload_at > FARTHEST {
        return Some(Reason::OuterLength);
    }
    if !outer.header_is_right(frame) {
        return Some(Reason::OuterChecksum);
    }
    if tunnel.kind.carries_ip() != (outer.payload != Payload::Ethernet) {
        return Some(Reason::TunnelPayload);
    }
    match &tunnel.kind {
        Kind::Geneve { options, .. } => {
            let own: Vec<(u16, u8)> = options.iter().map(|(class, kind, _)| (*class, *kind)).collect();
            let received = &frame[outer.payload_at - outer.options..outer.payload_at];
            check_options(received, outer.is_critical, &own).or_else(|| check_udp(outer, tunnel, frame))
        }
        Kind::Gtpu { .. } => skip_extensions(outer, frame).or_else(|| check_udp(outer, tunnel, frame)),
        Kind::Gre { checksum: wants_checksum, sequence, .. } => {
            if outer.has_checksum {
                if checksum(&frame[outer.l4..outer.end]) != 0 {
                    return Some(Reason::TunnelChecksum);
                }
            } else if *wants_checksum {
                return Some(Reason::TunnelChecksum);
            }
            (*sequence && outer.sequence.is_none()).then_some(Reason::TunnelSequence)
        }
        Kind::Ipip => None,
        _ => check_udp(outer, tunnel, frame),
    }
}

/// RFC 8926, 3.5.
fn check_options(mut rest: &[u8], is_critical: bool, own: &[(u16, u8)]) -> Option<Reason> {
    while !rest.is_empty() {
        let length = 4 + usize::from(rest[3] & 0x1f) * 4;
        if length > rest.len() {
            return Some(Reason::TunnelOption);
        }
        let option = (u16::from_be_bytes([rest[0], rest[1]]), rest[2]);
        if is_critical && option.1 & 0x80 != 0 && !own.contains(&option) {
            return Some(Reason::CriticalOption);
        }
        rest = &rest[length..];
    }
    None
}

/// 3GPP TS 29.281, 5.2.1.
fn skip_extensions(outer: &mut Outer, frame: &[u8]) -> Option<Reason> {
    if frame[outer.tunnel] & 4 == 0 {
        return None;
    }
    for _ in 0..=GTPU_EXTENSIONS {
        let next = frame[outer.payload_at - 1];
        match next {
            0 => return None,
            0x85 | 0xc0 => {}
            // Those that must be understood (figure 5.2.1-2).
            0x80.. => return Some(Reason::CriticalOption),
            _ => {}
        }
        let units = frame[..outer.end].get(outer.payload_at).copied().unwrap_or(0);
        outer.payload_at += usize::from(units) * 4;
        if units == 0 || outer.payload_at > outer.end || outer.payload_at > FARTHEST {
            return Some(Reason::TunnelOption);
        }
    }
    Some(Reason::TunnelOption)
}

fn check_udp(outer: &Outer, tunnel: &Tunnel, frame: &[u8]) -> Option<Reason> {
    let wants_checksum = tunnel.is_ipv6() && tunnel.udp_checksum;
    is_wrong_udp(outer, frame, wants_checksum).then_some(Reason::OuterChecksum)
}

/// RFC 768, RFC 6935.
fn is_wrong_udp(outer: &Outer, frame: &[u8], wants_checksum: bool) -> bool {
    let segment = &frame[outer.l4..outer.end];
    let (source, destination): (IpAddr, IpAddr) = outer.ends.expect("UDP is in IP");
    if segment[6..8] == [0, 0] {
        return wants_checksum;
    }
    transport_checksum(source, destination, UDP, segment) != 0
}

/// An echo request of a far end.
fn echo(outer: &Outer, frame: &[u8]) -> Answer {
    if outer.l4 != if frame[14] >> 4 == 4 { 34 } else { 54 } {
        return Answer::None(Outcome::Leave(Reason::Oam));
    }
    if let Some(reason) = outer.wrong {
        return Answer::None(Outcome::Drop(reason));
    }
    if outer.payload_at > outer.end {
        return Answer::None(Outcome::Drop(Reason::TunnelLength));
    }
    if is_wrong_udp(outer, frame, false) || !outer.header_is_right(frame) {
        return Answer::None(Outcome::Drop(Reason::OuterChecksum));
    }
    Answer::Frame(answer::echo(frame, outer.l4), None)
}
