//! GRE: sequence numbers, checksums and keys (RFC 2784, RFC 2890).

use mptm::kernel::Program;
use mptm::reason::Reason;

use crate::common::frame::{Ipv4, TYPE_IPV4, UDP, udp};
use crate::lab::*;
use crate::oracle::Outcome;
use crate::patched::{damaged, mend, patched};
use crate::world::{Kind, Own, Tunnel};

fn tunnels(lab: &Lab, is_one: impl Fn(bool, bool, bool) -> bool) -> Vec<Tunnel> {
    let ids = lab.which(|tunnel| match tunnel.kind {
        Kind::Gre { checksum, sequence, .. } => is_one(checksum, sequence, tunnel.network.is_some()),
        _ => false,
    });
    ids.into_iter().map(|id| lab.tunnel(id)).collect()
}

/// What arrives, and what is to come of it.
fn arriving(lab: &Lab, tunnel: &Tunnel, sequence: u32) -> (Vec<u8>, Outcome) {
    let id = tunnel.id as u8;
    let packet = |ttl| Ipv4 { ttl, ..Ipv4::new(behind(id), RED_IP, UDP) }.encode(&udp(1, 2, b"gre"));
    let inner = leaving(TYPE_IPV4).encode(&packet(64));
    let outer = tunnel.arriving_as(&inner, Own { sequence, ..Own::default() });
    let mut frame = inner;
    if tunnel.kind.carries_ip() {
        frame = leaving(TYPE_IPV4).encode(&packet(63));
        frame[6..12].copy_from_slice(&lab.own_mac(lab.red));
    }
    frame[..6].copy_from_slice(&RED_MAC);
    (outer, Outcome::Decapsulated { tunnel: tunnel.id, slot: RED, frame })
}

/// RFC 2890, 2.2: from 0 on, each its own, whatever else goes by.
#[test]
fn numbers_that_are_sent() {
    let Some(lab) = Lab::new("gre::numbers_that_are_sent") else { return };
    let tunnels = tunnels(&lab, |_, sequence, _| sequence);
    assert_eq!(tunnels.len(), 8);
    for round in 0..5 {
        for tunnel in &tunnels {
            let frame = datagram(RED_IP, behind(tunnel.id as u8), 10);
            let run = lab.node.run(Program::Encap, lab.red, &frame);
            assert_eq!(tunnel.own(&run.frame).sequence, round, "tunnel {}", tunnel.id);
            let too_big = datagram(RED_IP, behind(tunnel.id as u8), 9500);
            lab.node.run(Program::Encap, lab.red, &too_big);
        }
    }
}

#[test]
fn numbers_that_arrive() {
    let Some(mut lab) = Lab::new("gre::numbers_that_arrive") else { return };
    let old = Outcome::Drop(Reason::TunnelSequence);
    for tunnel in tunnels(&lab, |_, sequence, _| sequence) {
        for (sequence, is_new) in [
            (7, true),
            (7, false),
            (6, false),
            (8, true),
            (100, true),
            (9, false),
            (0x8000_0000, true),
            (0xffff_fff0, true),
            (0x8000_0001, false),
            (0xffff_ffff, true),
            (0, true),
            (0xffff_ffff, false),
            (1, true),
        ] {
            let (frame, delivered) = arriving(&lab, &tunnel, sequence);
            let outcome = if is_new { &delivered } else { &old };
            let name = format!("{sequence}, tunnel {}", tunnel.id);
            lab.node.check(&name, Program::Decap, lab.underlay, &frame, outcome);
        }
        // What is dropped for another reason does not count.
        let spoofed = Tunnel { id: tunnel.id - 1, ..tunnel.clone() };
        let (frame, _) = arriving(&lab, &spoofed, 1000);
        let outcome = Outcome::Drop(Reason::InnerSource);
        lab.node.check("spoofed", Program::Decap, lab.underlay, &frame, &outcome);
        let (mut frame, _) = arriving(&lab, &tunnel, 1000);
        frame[15] |= if tunnel.is_ipv6() { 0x30 } else { 3 };
        mend(&mut frame);
        let outcome = Outcome::Drop(Reason::Ecn);
        lab.node.check("congested", Program::Decap, lab.underlay, &frame, &outcome);
        let (frame, delivered) = arriving(&lab, &tunnel, 2);
        lab.node.check("the next", Program::Decap, lab.underlay, &frame, &delivered);
        let Kind::Gre { ethernet, checksum, .. } = tunnel.kind else { unreachable!() };
        let without = Tunnel { kind: Kind::Gre { ethernet, checksum, sequence: false }, ..tunnel.clone() };
        let (frame, _) = arriving(&lab, &without, 0);
        lab.node.check("none", Program::Decap, lab.underlay, &frame, &old);
    }
    // Who does not ask for numbers does not mind them.
    for tunnel in tunnels(&lab, |_, sequence, _| !sequence) {
        let Kind::Gre { ethernet, checksum, .. } = tunnel.kind else { unreachable!() };
        let with = Tunnel { kind: Kind::Gre { ethernet, checksum, sequence: true }, ..tunnel.clone() };
        for sequence in [5, 5, 4] {
            let (frame, delivered) = arriving(&lab, &with, sequence);
            lab.node.check("not asked for", Program::Decap, lab.underlay, &frame, &delivered);
        }
    }
}

#[test]
fn checksums() {
    let Some(mut lab) = Lab::new("gre::checksums") else { return };
    let wrong = Outcome::Drop(Reason::TunnelChecksum);
    for tunnel in tunnels(&lab, |_, sequence, _| !sequence) {
        let Kind::Gre { ethernet, checksum, .. } = tunnel.kind else { unreachable!() };
        for has_checksum in [false, true] {
            let kind = Kind::Gre { ethernet, checksum: has_checksum, sequence: false };
            let (frame, delivered) = arriving(&lab, &Tunnel { kind, ..tunnel.clone() }, 0);
            let name = format!("tunnel {}, wanted: {checksum}, there: {has_checksum}", tunnel.id);
            let outcome = if checksum && !has_checksum { &wrong } else { &delivered };
            lab.node.check(&name, Program::Decap, lab.underlay, &frame, outcome);
            if has_checksum {
                // Checked, asked for or not; the reserved half and the last byte are covered, and padding is not.
                let l4 = tunnel.l4_offset();
                for at in [l4 + 4, l4 + 7, frame.len() - 1] {
                    let damaged = damaged(&frame, at, &[frame[at] ^ 0x10]);
                    lab.node.check(&name, Program::Decap, lab.underlay, &damaged, &wrong);
                }
                let mended = patched(&frame, l4 + 6, &[0x12, 0x34]);
                lab.node.check(&name, Program::Decap, lab.underlay, &mended, &delivered);
                let padded = [frame, vec![0xee; 9]].concat();
                lab.node.check(&name, Program::Decap, lab.underlay, &padded, &delivered);
            }
        }
    }
}

/// A key that no tunnel of the far end has is a drop, and so is none where there must be one; what comes from elsewhere is
/// not ours. Each end may have its own.
#[test]
fn keys() {
    let Some(mut lab) = Lab::new("gre::keys") else { return };
    lab.change_tunnels(|tunnel| {
        tunnel.received = tunnel.network.map(|key| key ^ 0xff00_00ff).filter(|_| tunnel.id % 2 == 0);
    });
    let unknown = Outcome::Drop(Reason::TunnelId);
    let underlay = lab.underlay;
    let all = tunnels(&lab, |_, sequence, _| !sequence);
    assert!(all.iter().any(|tunnel| tunnel.received.is_some()));
    for tunnel in all {
        let mut check = |key: Option<u32>, outcome: &Outcome| {
            let (frame, _) = arriving(&lab, &Tunnel { network: key, received: None, ..tunnel.clone() }, 0);
            let name = format!("key {key:?}, tunnel {}", tunnel.id);
            lab.node.check(&name, Program::Decap, underlay, &frame, outcome);
        };
        for key in [None, Some(0), Some(0xdead_beef), tunnel.network] {
            if key != tunnel.received.or(tunnel.network) {
                check(key, &unknown);
            }
        }
        let (frame, delivered) = arriving(&lab, &tunnel, 0);
        lab.node.check("its own", Program::Decap, underlay, &frame, &delivered);
        let Kind::Gre { ethernet, checksum, sequence } = tunnel.kind else { unreachable!() };
        let other = Kind::Gre { ethernet: !ethernet, checksum, sequence };
        let (frame, _) = arriving(&lab, &Tunnel { kind: other, ..tunnel.clone() }, 0);
        lab.node.check("the other payload", Program::Decap, underlay, &frame, &unknown);
        let elsewhere = Tunnel { remote: tunnel.local, network: Some(3), received: None, ..tunnel };
        let (frame, _) = arriving(&lab, &elsewhere, 0);
        let stray = Outcome::Leave(Reason::Stray);
        lab.node.check("from elsewhere", Program::Decap, underlay, &frame, &stray);
    }
}
