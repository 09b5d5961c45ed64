//! Wrong packets, for every protocol over both families: each is refused for its own reason, and none is forwarded. What
//! a receiver must put up with is here, too.

use std::cell::Cell;
use std::collections::BTreeSet;

use mptm::kernel::Program;
use mptm::reason::Reason;

use crate::common::frame::{Ethernet, Ipv4, Ipv6, TYPE_IPV4, TYPE_IPV6, UDP, udp};
use crate::lab::*;
use crate::oracle::Outcome;
use crate::patched::{damaged, inserted, patched};
use crate::wide::behind6;
use crate::world::{Own, Tunnel};
use crate::wrong;

/// What is wrong, the frame, and what becomes of it.
pub type Case = (&'static str, Vec<u8>, Outcome);

pub fn drop(name: &'static str, frame: Vec<u8>, reason: Reason) -> Case {
    (name, frame, Outcome::Drop(reason))
}

pub fn leave(name: &'static str, frame: Vec<u8>, reason: Reason) -> Case {
    (name, frame, Outcome::Leave(reason))
}

pub fn pass(name: &'static str, frame: Vec<u8>) -> Case {
    (name, frame, Outcome::Pass)
}

/// Makes frames that arrive by one tunnel.
pub struct Sender {
    pub tunnel: Tunnel,
    own_mac: [u8; 6],
    /// GRE's next number: each frame has its own.
    sequence: Cell<u32>,
}

impl Sender {
    fn new(lab: &Lab, id: u8) -> Self {
        Self { tunnel: lab.tunnel(id), own_mac: lab.own_mac(lab.red), sequence: Cell::new(1) }
    }

    pub fn wrap(&self, inner: &[u8]) -> Vec<u8> {
        self.sequence.set(self.sequence.get() + 1);
        let own = Own { port: 40000, sequence: self.sequence.get(), ..Own::default() };
        self.tunnel.arriving_as(inner, own)
    }

    /// An inner frame with this IPv4 header.
    fn inner(&self, change: impl FnOnce(&mut Ipv4)) -> Vec<u8> {
        let mut ip = Ipv4::new(behind(self.tunnel.id as u8), RED_IP, UDP);
        change(&mut ip);
        leaving(TYPE_IPV4).encode(&ip.encode(&udp(1, 2, b"strictly")))
    }

    fn inner_ipv6(&self) -> Vec<u8> {
        let ip = Ipv6::new(behind6(self.tunnel.id as u8), RED_IP6, UDP);
        leaving(TYPE_IPV6).encode(&ip.encode(&udp(1, 2, b"strictly")))
    }

    /// A frame with nothing wrong.
    pub fn good(&self) -> Vec<u8> {
        self.wrap(&self.inner(|_| {}))
    }

    /// The same with an IPv6 packet, and these bytes at an offset.
    pub fn ipv6_with(&self, at: usize, bytes: &[u8]) -> Vec<u8> {
        patched(&self.wrap(&self.inner_ipv6()), at, bytes)
    }

    /// With these bytes at an offset, and right checksums.
    pub fn with(&self, at: usize, bytes: &[u8]) -> Vec<u8> {
        patched(&self.good(), at, bytes)
    }

    /// With some bits turned over.
    pub fn flipped(&self, at: usize, bits: u8) -> Vec<u8> {
        let good = self.good();
        patched(&good, at, &[good[at] ^ bits])
    }

    /// What a frame with nothing wrong becomes.
    pub fn delivered(&self) -> Outcome {
        let routed = self.tunnel.kind.carries_ip();
        let mut frame = self.inner(|ip| ip.ttl -= u8::from(routed));
        frame[..6].copy_from_slice(&RED_MAC);
        if routed {
            frame[6..12].copy_from_slice(&self.own_mac);
        } else if self.tunnel.kind.is_tags() {
            frame[6..12].copy_from_slice(&self.good()[6..12]);
        }
        Outcome::Decapsulated { tunnel: self.tunnel.id, slot: RED, frame }
    }
}

/// Inner packets that nobody may send.
fn inner_cases(sender: &Sender) -> Vec<Case> {
    let id = sender.tunnel.id as u8;
    let changed = |change: fn(&mut Ipv4)| sender.wrap(&sender.inner(change));
    let plain = sender.inner(|_| {});
    let inner = |at: usize, bytes: &[u8]| sender.wrap(&damaged(&plain, at, bytes));
    let ipv6 = sender.inner_ipv6();
    let spoofed = sender.wrap(&sender.inner(|ip| ip.source = behind(id ^ 1)));
    let mut cases = vec![
        drop("another tunnel's source", spoofed, Reason::InnerSource),
        drop("a workload's source", changed(|ip| ip.source = GREEN_IP), Reason::InnerSource),
        drop("its own destination's source", changed(|ip| ip.source = RED_IP), Reason::InnerSource),
        drop("the gateway's source", changed(|ip| ip.source = GATEWAY), Reason::InnerSource),
        drop("no source", changed(|ip| ip.source = [0; 4].into()), Reason::InnerSource),
        drop("unknown destination", changed(|ip| ip.destination = [9; 4].into()), Reason::InnerNoRoute),
        drop("the gateway", changed(|ip| ip.destination = GATEWAY), Reason::InnerNoRoute),
        drop("multicast", changed(|ip| ip.destination = [224, 0, 0, 1].into()), Reason::InnerGroup),
        drop("broadcast", changed(|ip| ip.destination = [255; 4].into()), Reason::InnerGroup),
        drop("inner header too short", inner(14, &[0x44]), Reason::InnerMalformed),
        drop("inner total too long", inner(16, &[0, 37]), Reason::InnerMalformed),
        drop("inner total too short", inner(16, &[0, 19]), Reason::InnerMalformed),
        drop("half an inner header", sender.wrap(&plain[..33]), Reason::InnerMalformed),
        drop("inner IPv6, too long", sender.wrap(&damaged(&ipv6, 18, &[1, 0])), Reason::InnerMalformed),
        drop("inner IPv6, half", sender.wrap(&ipv6[..14 + 39]), Reason::InnerMalformed),
        drop("IPv6 of another's", sender.wrap(&damaged(&ipv6, 37, &[id ^ 1])), Reason::InnerSource),
        drop("IPv6 to a group", sender.wrap(&damaged(&ipv6, 38, &[0xff])), Reason::InnerGroup),
        drop(
            "IPv6 for a link-local one",
            sender.wrap(&damaged(&ipv6, 38, &[0xfe, 0x80])),
            Reason::InnerNoRoute,
        ),
    ];
    if sender.tunnel.kind.carries_ip() {
        for ttl in [0, 1] {
            let frame = sender.wrap(&sender.inner(|ip| ip.ttl = ttl));
            cases.push(drop("no hop left", frame, Reason::Ttl));
        }
    } else {
        let frame = Ethernet::new(FAR_MAC, RED_MAC, 0x88cc).encode(&[1; 46]);
        cases.extend([
            drop("neither IP nor ARP", sender.wrap(&frame), Reason::InnerUnsupported),
            drop("inner version 5", inner(14, &[0x55]), Reason::InnerMalformed),
        ]);
    }
    if !sender.tunnel.kind.is_tags() && !sender.tunnel.kind.carries_ip() {
        cases.push(drop("half an Ethernet header", sender.wrap(&plain[..13]), Reason::InnerMalformed));
        cases.push(drop("to a MAC group", sender.wrap(&damaged(&plain, 0, &[1])), Reason::InnerGroup));
    }
    cases
}

/// Outer IP headers, and what is behind them.
fn ip_cases(sender: &Sender) -> Vec<Case> {
    let tunnel = &sender.tunnel;
    let good = sender.good();
    let stray = Reason::Stray;
    let has_udp = tunnel.kind.has_udp();
    // Where UDP's length does not say the same, the packet inside is what is too short.
    let shorter = if has_udp { Reason::OuterLength } else { Reason::InnerMalformed };
    let mut cases = if tunnel.is_ipv6() {
        let length = u16::from_be_bytes([good[18], good[19]]);
        let with_length = |length: u16| sender.with(18, &length.to_be_bytes());
        let extended = |kind: u8, header: [u8; 8]| {
            let frame = sender.with(20, &[kind]);
            inserted(&frame, 54, &[&[good[20]], &header[1..]].concat())
        };
        vec![
            leave("spoofed outer source", sender.flipped(37, 1), stray),
            leave("another outer destination", sender.flipped(53, 1), stray),
            pass("version 4", sender.with(14, &[0x45])),
            drop("too long", with_length(length + 1), Reason::OuterLength),
            drop("too short", with_length(length - 1), shorter),
            drop("a first fragment", extended(44, [0, 0, 0, 1, 0, 0, 0, 1]), Reason::OuterFragment),
            pass("a later fragment", extended(44, [0, 0, 0, 8, 0, 0, 0, 1])),
            pass("a route that goes on", extended(43, [0, 0, 4, 1, 0, 0, 0, 0])),
            ("a whole fragment", extended(44, [0; 8]), sender.delivered()),
            ("a route that ends here", extended(43, [0, 0, 4, 0, 0, 0, 0, 0]), sender.delivered()),
            ("an encapsulation limit", extended(60, [0, 0, 4, 1, 4, 1, 1, 0]), sender.delivered()),
            ("hop-by-hop options", extended(0, [0, 0, 1, 4, 0, 0, 0, 0]), sender.delivered()),
            ("another hop limit and flow", sender.with(16, &[1, 2]), sender.delivered()),
        ]
    } else {
        let length = u16::from_be_bytes([good[16], good[17]]);
        let with_length = |length: u16| sender.with(16, &length.to_be_bytes());
        vec![
            leave("spoofed outer source", sender.flipped(29, 1), stray),
            leave("another outer destination", sender.flipped(33, 1), stray),
            pass("version 6", sender.with(14, &[0x65])),
            pass("header too short", sender.with(14, &[0x44])),
            drop("header checksum", damaged(&good, 24, &[good[24] ^ 0x80]), Reason::OuterChecksum),
            drop("too long", with_length(length + 1), Reason::OuterLength),
            drop("too short", with_length(length - 1), shorter),
            drop("shorter than its header", with_length(19), Reason::OuterLength),
            drop("a first fragment", sender.with(20, &[0x20, 0]), Reason::OuterFragment),
            pass("a later fragment", sender.with(20, &[0, 1])),
            pass("a last fragment with DF", sender.with(20, &[0x5f, 0xff])),
            ("another TTL, no DF", sender.with(20, &[0, 0, 1]), sender.delivered()),
        ]
    };
    let (at, bits) = if tunnel.is_ipv6() { (15, 0x30) } else { (15, 3) };
    let ce = good[at] | bits;
    cases.push(drop("congested, but not able to say so", sender.with(at, &[ce]), Reason::Ecn));
    cases.push(("padding", [sender.good(), vec![0xee; 20]].concat(), sender.delivered()));
    if has_udp {
        cases.extend(udp_cases(sender));
    }
    cases
}

fn udp_cases(sender: &Sender) -> Vec<Case> {
    let l4 = sender.tunnel.l4_offset();
    let good = sender.good();
    let length = u16::from_be_bytes([good[l4 + 4], good[l4 + 5]]);
    let with_length = |length: u16| sender.with(l4 + 4, &length.to_be_bytes());
    let wants_checksum = sender.tunnel.is_ipv6() && sender.tunnel.udp_checksum;
    let without = damaged(&good, l4 + 6, &[0, 0]);
    vec![
        drop("UDP too long", with_length(length + 1), Reason::OuterLength),
        drop("UDP too short", with_length(length - 1), Reason::OuterLength),
        drop("UDP of no length", with_length(0), Reason::OuterLength),
        drop("wrong UDP checksum", damaged(&good, l4 + 6, &[0x12, 0x34]), Reason::OuterChecksum),
        pass("another port", sender.with(l4 + 2, &[1, 2])),
        if wants_checksum {
            drop("no UDP checksum", without, Reason::OuterChecksum)
        } else {
            ("no UDP checksum", without, sender.delivered())
        },
        ("another source port", sender.with(l4, &[0, 0]), sender.delivered()),
    ]
}

/// A workload's packets: what it must not send, none of which leaves.
#[test]
fn leaving_packets() {
    let Some(mut lab) = Lab::new("strict::leaving_packets") else { return };
    for id in lab.wide.clone() {
        let packet = Ipv4::new(RED_IP, behind(id), UDP).encode(&udp(1, 2, b"strictly"));
        let plain = leaving(TYPE_IPV4).encode(&packet);
        let packet = Ipv6::new(RED_IP6, behind6(id), UDP).encode(&udp(1, 2, b"strictly"));
        let ipv6 = leaving(TYPE_IPV6).encode(&packet);
        for case in [
            drop("spoofed", damaged(&plain, 29, &[9]), Reason::Source),
            drop("another's", damaged(&plain, 29, &[3]), Reason::Source),
            drop("spoofed IPv6", damaged(&ipv6, 37, &[9]), Reason::Source),
            drop("another's IPv6", damaged(&ipv6, 37, &[3]), Reason::Source),
            drop("link-local", damaged(&ipv6, 22, &[0xfe, 0x80]), Reason::Source),
            drop("no source", damaged(&plain, 26, &[0; 4]), Reason::Source),
            drop("no IPv6 source", damaged(&ipv6, 22, &[0; 16]), Reason::Source),
            drop("version 5", damaged(&plain, 14, &[0x55]), Reason::Malformed),
            drop("header too long", damaged(&plain, 14, &[0x4f]), Reason::Malformed),
            drop("too long", damaged(&plain, 16, &[0, 37]), Reason::Malformed),
            drop("too short", damaged(&plain, 16, &[0, 19]), Reason::Malformed),
            drop("IPv6 too long", damaged(&ipv6, 18, &[0, 17]), Reason::Malformed),
            drop("IPv6 version 7", damaged(&ipv6, 14, &[0x70]), Reason::Malformed),
            leave("to a group", damaged(&plain, 30, &[239]), Reason::Group),
            leave("to an IPv6 group", damaged(&ipv6, 38, &[0xff, 2]), Reason::Group),
            leave("to a MAC group", damaged(&plain, 0, &[1]), Reason::Group),
        ] {
            let name = format!("{}, tunnel {id}", case.0);
            lab.node.check(&name, Program::Encap, lab.red, &case.1, &case.2);
        }
    }
}

#[test]
fn arriving_packets() {
    let Some(mut lab) = Lab::new("strict::arriving_packets") else { return };
    let mut reasons = BTreeSet::new();
    for id in lab.wide.clone() {
        let sender = Sender::new(&lab, id);
        let mut cases = wrong::cases(&sender);
        cases.extend(inner_cases(&sender));
        if !sender.tunnel.kind.is_tags() {
            cases.extend(ip_cases(&sender));
        }
        for (name, frame, outcome) in cases {
            if let Outcome::Drop(reason) | Outcome::Leave(reason) = outcome {
                reasons.insert(reason);
            }
            let name = format!("{name}, {:?} {id}", sender.tunnel.kind);
            lab.node.check(&name, Program::Decap, lab.underlay, &frame, &outcome);
        }
        let good = sender.good();
        lab.node.check("the last", Program::Decap, lab.underlay, &good, &sender.delivered());
    }
    // Every reason that mptm_decap gives, but for those that are about this node.
    for reason in Reason::ALL {
        use Reason::*;
        let is_of_others = matches!(
            reason,
            Malformed
                | Source
                | TooBig
                | TooBigNoDf
                | IcmpLimit
                | Group
                | NoTunnel
                | NoNeighbour
                | NoRoom
                | NoDevice
                | NoMac
                | FloodTooBig
                | NotFlooded
        );
        assert!(is_of_others || reasons.contains(reason), "no packet was refused for {reason}");
    }
}

/// A workload whose MAC address nobody knows gets no packet without one.
#[test]
fn without_mac_addresses() {
    let Some(mut lab) = Lab::new("strict::without_mac_addresses") else { return };
    for id in lab.which(|tunnel| !tunnel.kind.is_tags()) {
        let sender = Sender::new(&lab, id);
        let frame = sender.wrap(&sender.inner(|ip| ip.destination = [10, 0, 8, 9].into()));
        let outcome = if sender.tunnel.kind.carries_ip() {
            Outcome::Drop(Reason::NoMac)
        } else {
            let frame = sender.inner(|ip| ip.destination = [10, 0, 8, 9].into());
            Outcome::Decapsulated { tunnel: id.into(), slot: RED, frame }
        };
        lab.node.check(&format!("tunnel {id}"), Program::Decap, lab.underlay, &frame, &outcome);
    }
}
