//! What is too big for its tunnel: who is told, and how.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::thread::available_parallelism;
use std::time::Instant;

use mptm::kernel::Program;
use mptm::reason::Reason;

use crate::common::frame::{
    ArpOperation, BROADCAST, DO_NOT_FRAGMENT, Ethernet, Extension, ICMP, ICMPV6, Ipv4, Ipv6, MORE_FRAGMENTS,
    TYPE_ARP, TYPE_IPV4, TYPE_IPV6, TYPE_QINQ, TYPE_VLAN, UDP, arp, icmp, icmp_fragmentation_needed, icmpv6,
    icmpv6_packet_too_big, udp,
};
use crate::lab::*;
use crate::node::{REDIRECT, Row};
use crate::oracle::Outcome;
use crate::wide::behind6;
use crate::world::Kind;

/// One tunnel that carries frames, and one that carries packets.
fn tunnels(lab: &Lab) -> [u8; 2] {
    let of = |is_it: fn(&Kind) -> bool| lab.which(|tunnel| is_it(&tunnel.kind))[0];
    [of(|kind| matches!(kind, Kind::Vxlan { .. })), of(|kind| *kind == Kind::Ipip)]
}

/// The frame that goes back: tags and all, to where it came from.
fn back(frame: &[u8], l3: usize, packet: &[u8]) -> Vec<u8> {
    [&RED_MAC[..], &FAR_MAC, &frame[12..l3], packet].concat()
}

fn too_big(frame: Vec<u8>, reason: Reason) -> Outcome {
    Outcome::Answer { slot: RED, frame, reason: Some(reason) }
}

fn answer_ipv4(destination: Ipv4Addr, mtu: u16, quote: &[u8]) -> Vec<u8> {
    let ip = Ipv4 { tos: 0xc0, id: 0, fragment: DO_NOT_FRAGMENT, ..Ipv4::new(destination, RED_IP, ICMP) };
    ip.encode(&icmp_fragmentation_needed(mtu, quote))
}

fn answer_ipv6(destination: Ipv6Addr, mtu: u32, quote: &[u8]) -> Vec<u8> {
    Ipv6::new(destination, RED_IP6, ICMPV6).encode(&icmpv6_packet_too_big((destination, RED_IP6), mtu, quote))
}

/// Next-hop MTUs, and how much is quoted: no more than fits into what everybody takes.
#[test]
fn exact_answers() {
    let Some(mut lab) = Lab::new("icmp::exact_answers") else { return };
    let ids = tunnels(&lab);
    for (mtu, mtu4, mtu6) in [(8000, 8000, 8000), (1400, 1400, 1400), (1000, 1000, 1280), (500, 576, 1280)] {
        lab.change_tunnels(|tunnel| tunnel.mtu = mtu);
        for id in ids {
            let carries_ip = lab.tunnel(id).kind.carries_ip();
            for tags in 0..3 {
                // An IP packet leaves its tags behind; of a frame, they are part.
                let spare = if carries_ip { 0 } else { 4 * tags as u32 };
                let mut ethernet = Ethernet::new(FAR_MAC, RED_MAC, TYPE_IPV4);
                ethernet.tags = [(TYPE_QINQ, 7), (TYPE_VLAN, 0x2008)][2 - tags..].to_vec();
                let l3 = 14 + 4 * tags;
                for (fragment, reason) in [
                    (DO_NOT_FRAGMENT, Reason::TooBig),
                    (0, Reason::TooBigNoDf),
                    (MORE_FRAGMENTS, Reason::TooBigNoDf),
                ] {
                    let ip = Ipv4 { fragment, ..Ipv4::new(RED_IP, behind(id), UDP) };
                    let payload = vec![7; (mtu - spare) as usize + 1 - 28];
                    let packet = ip.encode(&udp(1, 2, &payload));
                    let frame = ethernet.encode(&packet);
                    let told = (mtu4 - spare).max(576) as u16;
                    let quote = &packet[..packet.len().min(548)];
                    let answer = back(&frame, l3, &answer_ipv4(behind(id), told, quote));
                    assert!(answer.len() <= l3 + 576);
                    let name = format!("IPv4, tunnel {id}, mtu {mtu}, {tags} tags, {reason:?}");
                    lab.node.check(&name, Program::Encap, lab.red, &frame, &too_big(answer, reason));
                }
                ethernet.ethertype = TYPE_IPV6;
                let payload = vec![7; (mtu - spare) as usize + 1 - 48];
                let packet = Ipv6::new(RED_IP6, behind6(id), UDP).encode(&udp(1, 2, &payload));
                let frame = ethernet.encode(&packet);
                let quote = &packet[..packet.len().min(1232)];
                let told = (mtu6 - spare).max(1280);
                let answer = back(&frame, l3, &answer_ipv6(behind6(id), told, quote));
                assert!(answer.len() <= l3 + 1280);
                let name = format!("IPv6, tunnel {id}, mtu {mtu}, {tags} tags");
                lab.node.check(&name, Program::Encap, lab.red, &frame, &too_big(answer, Reason::TooBig));
            }
        }
    }
}

/// Errors are not answered, nor is what has no header of its own to tell by (RFC 1122, 3.2.2; RFC 4443, 2.4).
#[test]
fn who_is_not_told() {
    let Some(mut lab) = Lab::new("icmp::who_is_not_told") else { return };
    lab.change_tunnels(|tunnel| tunnel.mtu = 1300);
    let red = lab.red;
    let ids = tunnels(&lab);
    let mut check = |name: &str, frame: Vec<u8>, is_told: bool, reason| {
        let outcome = lab.node.world.clone().judge(Program::Encap, red, &frame);
        match &outcome {
            Outcome::Answer { reason: Some(given), .. } => assert!(is_told && *given == reason, "{name}"),
            other => assert!(!is_told && *other == Outcome::Drop(reason), "{name}: {other:?}"),
        }
        lab.node.check(name, Program::Encap, red, &frame, &outcome);
    };
    let payload = vec![7; 1400];
    for id in ids {
        let ip4 = Ipv4 { fragment: DO_NOT_FRAGMENT, ..Ipv4::new(RED_IP, behind(id), ICMP) };
        for (kind, is_told) in [
            (0, true),
            (3, false),
            (4, false),
            (5, false),
            (8, true),
            (11, false),
            (12, false),
            (13, true),
            (14, true),
        ] {
            let frame = leaving(TYPE_IPV4).encode(&ip4.encode(&icmp(kind, 0, 0, &payload)));
            check(&format!("ICMP type {kind}"), frame, is_told, Reason::TooBig);
        }
        let later = Ipv4 { fragment: 100, ..ip4.clone() }.encode(&payload);
        check("a later fragment", leaving(TYPE_IPV4).encode(&later), false, Reason::TooBigNoDf);
        let later = Ipv4 { fragment: DO_NOT_FRAGMENT | 100, ..ip4 }.encode(&payload);
        check("a later fragment with DF", leaving(TYPE_IPV4).encode(&later), false, Reason::TooBig);

        let ip6 = Ipv6::new(RED_IP6, behind6(id), ICMPV6);
        for (kind, is_told) in
            [(1, false), (2, false), (3, false), (4, false), (127, false), (128, true), (129, true)]
        {
            let message = icmpv6((RED_IP6, behind6(id)), kind, 0, 0, &payload);
            let frame = leaving(TYPE_IPV6).encode(&ip6.encode(&message));
            check(&format!("ICMPv6 type {kind}"), frame, is_told, Reason::TooBig);
            let extended = ip6.clone().extension(Extension::DestinationOptions(vec![0; 4])).encode(&message);
            let name = format!("ICMPv6 type {kind} behind an extension");
            check(&name, leaving(TYPE_IPV6).encode(&extended), is_told, Reason::TooBig);
        }
        for (offset, is_told) in [(0, true), (100, false)] {
            let fragment = Extension::Fragment { offset, more: true, id: 1 };
            let packet = Ipv6 { protocol: UDP, ..ip6.clone() }.extension(fragment).encode(&payload);
            check(
                &format!("fragment at {offset}"),
                leaving(TYPE_IPV6).encode(&packet),
                is_told,
                Reason::TooBig,
            );
        }
    }
    let request = arp(ArpOperation::Request, (RED_MAC, RED_IP), ([0; 6], behind(ids[0])));
    let padded = [Ethernet::new(BROADCAST, RED_MAC, TYPE_ARP).encode(&request), vec![0; 1300]].concat();
    check("ARP with much padding", padded, false, Reason::TooBig);
}

/// A CPU answers 50 in one go, and then 1000 in a second.
#[test]
fn no_more_than_a_thousand_in_a_second() {
    const FRAMES: u64 = 1000;
    let Some(lab) = Lab::new("icmp::no_more_than_a_thousand_in_a_second") else { return };
    let frame = datagram(RED_IP, behind(NARROW), 2000);
    let start = Instant::now();
    let answers = (0..FRAMES)
        .filter(|_| lab.node.run(Program::Encap, lab.red, &frame).action == REDIRECT)
        .count() as u64;
    let elapsed = start.elapsed().as_millis() as u64;
    let cpus = available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    assert!((50..=cpus * (50 + elapsed + 1)).contains(&answers), "{answers} answers within {elapsed} ms");
    let counters = lab.node.counters();
    let packets = |reason| counters.get(&Row::Drop(reason)).map_or(0, |count| count.0);
    assert_eq!(packets(Reason::TooBigNoDf), answers);
    assert_eq!(packets(Reason::IcmpLimit), FRAMES - answers);
}
