//! What goes in at one end of a tunnel comes out at the other: through every protocol, over both families, with any
//! options that a file may ask for. MPTM_SEED says where to start.

use std::net::IpAddr;

use mptm::kernel::Program;
use mptm::reason::Reason;

use crate::common::frame::{GRE, TYPE_IPV4, TYPE_IPV6, UDP, checksum, transport_checksum};
use crate::frames::{Shape, frame};
use crate::lab::*;
use crate::mutated::number;
use crate::oracle::inner::{Class, Inner};
use crate::oracle::{Outcome, edit};
use crate::random::Random;
use crate::wide::{behind6, randomize};
use crate::world::{Tunnel, packet_of};

/// How many times all tunnels get other options, and how many frames then go through each.
const WORLDS: usize = 60;
const FRAMES: usize = 12;

/// What comes out at the far end: the frame as it went in, but for what is said here.
fn expected(lab: &Lab, tunnel: &Tunnel, sent: &[u8]) -> Vec<u8> {
    let mut out = sent.to_vec();
    let inner = Inner::of_frame(sent);
    if tunnel.mss_clamp {
        edit::clamp(&mut out, &inner, tunnel.mtu);
    }
    if tunnel.kind.carries_ip() {
        // Routed twice, and its Ethernet header is of the far end's own making.
        edit::decrement(&mut out, &inner).expect("a hop");
        let inner = Inner::of_frame(&out);
        edit::decrement(&mut out, &inner).expect("another hop");
        let own = lab.node.world.interfaces.iter().find(|interface| interface.slot == MIRROR);
        let ethertype = if inner.class == Class::Ipv6 { TYPE_IPV6 } else { TYPE_IPV4 };
        let header = [FAR_MAC, own.expect("the mirror").mac].concat();
        return [&header, &ethertype.to_be_bytes()[..], packet_of(&out)].concat();
    }
    if sent[..6] == lab.own_mac(lab.red) {
        edit::decrement(&mut out, &inner).expect("a hop");
    }
    if tunnel.kind.is_tags() && !tunnel.keep_source {
        out[6..12].copy_from_slice(&tunnel.local.0);
    }
    out[..6].copy_from_slice(&FAR_MAC);
    out
}

/// Whether an outer frame's own checksum is right, if it has one.
fn is_right(tunnel: &Tunnel, outer: &[u8]) -> bool {
    let ip_header = if tunnel.is_ipv6() { 0 } else { checksum(&outer[14..34]) };
    let segment = &outer[tunnel.l4_offset().min(outer.len())..];
    let sum = match tunnel.ip_protocol() {
        _ if tunnel.kind.is_tags() => return true,
        Some(GRE) if tunnel.has_gre_checksum() => checksum(segment),
        Some(UDP) if tunnel.udp_checksum => {
            assert_ne!(segment[6..8], [0, 0], "a checksum is filled in");
            transport_checksum(tunnel.local.1, tunnel.remote.1, UDP, segment)
        }
        Some(UDP) => {
            assert_eq!(segment[6..8], [0, 0], "no checksum is filled in");
            0
        }
        _ => 0,
    };
    assert_eq!(ip_header, 0, "the outer IPv4 header's checksum");
    sum == 0
}

/// Whether a packet's own transport checksum says that something in it is wrong.
fn is_damaged(frame: &[u8]) -> bool {
    let inner = Inner::of_frame(frame);
    inner.l4.is_some_and(|l4| {
        matches!(inner.protocol, 1 | 6 | 17 | 58)
            && transport_checksum(inner.source, inner.destination, inner.protocol, &frame[l4..inner.end]) != 0
    })
}

fn pass(lab: &mut Lab, tunnel: &Tunnel, sent: &[u8]) {
    let name = format!("{tunnel:?}\n{sent:02x?}");
    let outcome = lab.node.world.judge(Program::Encap, lab.red, sent);
    assert!(matches!(outcome, Outcome::Encapsulated { .. }), "{outcome:?}: {name}");
    let there = lab.node.run(Program::Encap, lab.red, sent);
    lab.node.tally_run(&name, Program::Encap, lab.red, sent, &outcome, &there);

    let back = lab.node.run(Program::Decap, lab.far, &there.frame);
    let outcome = if is_right(tunnel, &there.frame) {
        let frame = expected(lab, tunnel, sent);
        Outcome::Decapsulated { tunnel: MIRRORS + tunnel.id, slot: MIRROR, frame }
    } else {
        // The outer checksum is derived from the inner one: what would be dropped at its end is dropped here.
        assert!(is_damaged(sent), "the outer checksum is wrong: {name}");
        let is_gre = tunnel.has_gre_checksum();
        Outcome::Drop(if is_gre { Reason::TunnelChecksum } else { Reason::OuterChecksum })
    };
    lab.node.tally_run(&name, Program::Decap, lab.far, &there.frame, &outcome, &back);
}

#[test]
fn what_goes_in_comes_out() {
    let Some(mut lab) = Lab::new("roundtrip::what_goes_in_comes_out") else { return };
    let seed = number("MPTM_SEED").unwrap_or(1);
    println!("MPTM_SEED={seed}");
    let mut random = Random(seed);
    let own = lab.own_mac(lab.red);
    for world in 0..WORLDS {
        // The first world has everything's default.
        if world > 0 {
            lab.change_tunnels(|tunnel| randomize(&mut random, tunnel));
        }
        for id in lab.wide.clone() {
            let tunnel = lab.tunnel(id);
            let mtu = tunnel.mtu as usize;
            for _ in 0..FRAMES {
                let to = *random.choose(&[FAR_MAC, FAR_MAC, own]);
                let shape = Shape { macs: (to, RED_MAC), mtu, ttl: 3 };
                let (source, destination): (IpAddr, IpAddr) = if random.below(2) == 0 {
                    (RED_IP.into(), behind(id).into())
                } else {
                    (RED_IP6.into(), behind6(id).into())
                };
                let sent = frame(&mut random, &shape, source, destination);
                pass(&mut lab, &tunnel, &sent);
            }
        }
        lab.node.check_tally();
    }
}

/// Over Ethernet, whatever is not IP goes through as it is.
#[test]
fn resolution_goes_through() {
    let Some(mut lab) = Lab::new("roundtrip::resolution_goes_through") else { return };
    for id in lab.wide.clone() {
        let tunnel = lab.tunnel(id);
        if tunnel.kind.carries_ip() {
            continue;
        }
        for sent in crate::samples::resolution(id) {
            let outcome = Outcome::Encapsulated { tunnel: id.into(), inner: sent.clone() };
            let there = lab.node.run(Program::Encap, lab.red, &sent);
            lab.node.tally_run(&id, Program::Encap, lab.red, &sent, &outcome, &there);
            let mut out = sent.clone();
            if tunnel.kind.is_tags() {
                out[..12].copy_from_slice(&there.frame[..12]);
            }
            edit::address(&mut out, FAR_MAC);
            let back = lab.node.run(Program::Decap, lab.far, &there.frame);
            let outcome = Outcome::Decapsulated { tunnel: MIRRORS + tunnel.id, slot: MIRROR, frame: out };
            lab.node.tally_run(&id, Program::Decap, lab.far, &there.frame, &outcome, &back);
        }
    }
    lab.node.check_tally();
}
