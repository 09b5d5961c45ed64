//! ARP and neighbour discovery: answered for gateways and for what is behind IP payloads, forwarded over Ethernet.

use std::net::{Ipv4Addr, Ipv6Addr};

use mptm::kernel::Program;
use mptm::reason::Reason;

use crate::common::frame::{
    ArpOperation, BROADCAST, Ethernet, ICMPV6, Ipv6, Mac, NA_OVERRIDE, NA_ROUTER, NA_SOLICITED,
    SOURCE_LINK_LAYER, TARGET_LINK_LAYER, TYPE_ARP, TYPE_IPV6, TYPE_VLAN, UDP, arp, group_mac,
    link_layer_option, neighbour_advertisement, neighbour_solicitation, solicited_node, udp,
};
use crate::lab::*;
use crate::oracle::Outcome;
use crate::samples::{advertisement, solicitation};
use crate::wide::behind6;
use crate::world::{Route, Target, Tunnel};

const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x51);

fn is_ethernet_over_ip(tunnel: &Tunnel) -> bool {
    !tunnel.kind.is_tags() && !tunnel.kind.carries_ip()
}

fn request(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    Ethernet::new(BROADCAST, RED_MAC, TYPE_ARP).encode(&arp(
        ArpOperation::Request,
        (RED_MAC, sender),
        ([0; 6], target),
    ))
}

fn reply(own: Mac, target: Ipv4Addr, asker: Ipv4Addr) -> Vec<u8> {
    Ethernet::new(RED_MAC, own, TYPE_ARP).encode(&arp(ArpOperation::Reply, (own, target), (RED_MAC, asker)))
}

fn answer(frame: Vec<u8>) -> Outcome {
    Outcome::Answer { slot: RED, frame, reason: None }
}

fn advertised(own: Mac, to: (Mac, Ipv6Addr), target: Ipv6Addr, flags: u32) -> Vec<u8> {
    let option = link_layer_option(TARGET_LINK_LAYER, own);
    let message = neighbour_advertisement((target, to.1), flags, target, &option);
    let ip = Ipv6 { hop_limit: 255, ..Ipv6::new(target, to.1, ICMPV6) };
    Ethernet::new(to.0, own, TYPE_IPV6).encode(&ip.encode(&message))
}

/// A solicitation in a frame to somebody, with these options.
fn solicit(frame: Ethernet, source: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let to = if frame.destination[0] & 1 == 0 { target } else { solicited_node(target) };
    let ip = Ipv6 { hop_limit: 255, ..Ipv6::new(source, to, ICMPV6) };
    frame.encode(&ip.encode(&neighbour_solicitation((source, to), target, options)))
}

#[test]
fn arp_is_answered() {
    let Some(mut lab) = Lab::new("neighbours::arp_is_answered") else { return };
    let (red, own) = (lab.red, lab.own_mac(lab.red));
    let behind_ip = lab.which(|tunnel| tunnel.kind.carries_ip()).into_iter().map(behind);
    let targets: Vec<Ipv4Addr> = [GATEWAY].into_iter().chain(behind_ip).collect();
    for target in targets {
        let mut check = |name: &str, frame: Vec<u8>, outcome: Outcome| {
            lab.node.check(&format!("{name}, {target}"), Program::Encap, red, &frame, &outcome);
        };
        check("request", request(RED_IP, target), answer(reply(own, target, RED_IP)));
        let padded = [request(RED_IP, target), vec![0; 18]].concat();
        check("padded", padded, answer([reply(own, target, RED_IP), vec![0; 18]].concat()));
        let nobody = Ipv4Addr::UNSPECIFIED;
        check("probe", request(nobody, target), answer(reply(own, target, nobody)));
        let arp_to = |operation| arp(operation, (RED_MAC, RED_IP), ([0; 6], target));
        let tagged = Ethernet::new(own, RED_MAC, TYPE_ARP).tag(TYPE_VLAN, 0x6005);
        let right = Ethernet::new(RED_MAC, own, TYPE_ARP).tag(TYPE_VLAN, 0x6005);
        check(
            "unicast, tagged",
            tagged.encode(&arp_to(ArpOperation::Request)),
            answer(right.encode(&arp(ArpOperation::Reply, (own, target), (RED_MAC, RED_IP)))),
        );
        check("a reply", leaving(TYPE_ARP).encode(&arp_to(ArpOperation::Reply)), Outcome::Pass);
        check("of another's", request(GREEN_IP, target), Outcome::Drop(Reason::Source));
    }
    let ping = datagram(RED_IP, GATEWAY, 10);
    lab.node.check("a packet for the gateway", Program::Encap, red, &ping, &Outcome::Pass);
}

#[test]
fn solicitations_are_answered() {
    let Some(mut lab) = Lab::new("neighbours::solicitations_are_answered") else { return };
    let (red, own) = (lab.red, lab.own_mac(lab.red));
    let behind_ip = lab.which(|tunnel| tunnel.kind.carries_ip()).into_iter().map(behind6);
    let targets: Vec<Ipv6Addr> = [GATEWAY6, LINK_GATEWAY6].into_iter().chain(behind_ip).collect();
    let own_option = link_layer_option(SOURCE_LINK_LAYER, RED_MAC);
    for target in targets {
        let router = if [GATEWAY6, LINK_GATEWAY6].contains(&target) { NA_ROUTER } else { 0 };
        let mut check = |name: &str, frame: Vec<u8>, outcome: Outcome| {
            lab.node.check(&format!("{name}, {target}"), Program::Encap, red, &frame, &outcome);
        };
        let group = Ethernet::new(group_mac(solicited_node(target).into()), RED_MAC, TYPE_IPV6);
        for source in [RED_IP6, LINK_LOCAL] {
            let right = advertised(own, (RED_MAC, source), target, router | NA_SOLICITED | NA_OVERRIDE);
            check("solicitation", solicit(group.clone(), source, target, &own_option), answer(right.clone()));
            check("without option", solicit(group.clone(), source, target, &[]), answer(right.clone()));
            let more = [&own_option[..], &[14, 1, 0, 0, 0, 0, 0, 0]].concat();
            check(
                "with another option",
                solicit(group.clone(), source, target, &more),
                answer(right.clone()),
            );
            let unicast = Ethernet::new(own, RED_MAC, TYPE_IPV6);
            check("unicast", solicit(unicast, source, target, &own_option), answer(right));
            let mut tagged = advertised(own, (RED_MAC, source), target, router | NA_SOLICITED | NA_OVERRIDE);
            tagged.splice(12..12, [0x81, 0, 0, 5]);
            let question = solicit(group.clone().tag(TYPE_VLAN, 5), source, target, &own_option);
            check("tagged", question, answer(tagged));
        }
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let right = advertised(own, ([0x33, 0x33, 0, 0, 0, 1], all_nodes), target, router | NA_OVERRIDE);
        check(
            "whether it is free",
            solicit(group.clone(), Ipv6Addr::UNSPECIFIED, target, &[]),
            answer(right),
        );
        let mut wrong = solicit(group.clone(), RED_IP6, target, &own_option);
        wrong[56] ^= 1;
        check("wrong checksum", wrong, Outcome::Drop(Reason::Malformed));
        let spoofed = solicit(group.clone(), GREEN_IP6, target, &own_option);
        check("of another's", spoofed, Outcome::Drop(Reason::Source));
        let mapped = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
        check("of ::ffff:0.0.0.0", solicit(group, mapped, target, &[]), Outcome::Drop(Reason::Source));
        let outcome = Outcome::Pass;
        check("an advertisement", advertisement(RED_IP6, target), outcome);
    }
    let hello = Ipv6::new(RED_IP6, GATEWAY6, UDP).encode(&udp(1, 2, b"hello"));
    let hello = leaving(TYPE_IPV6).encode(&hello);
    lab.node.check("a packet for the gateway", Program::Encap, red, &hello, &Outcome::Pass);
}

/// Over Ethernet a solicitation goes where its target is, and an advertisement to whom it is for.
#[test]
fn forwarded_by_target() {
    let Some(mut lab) = Lab::new("neighbours::forwarded_by_target") else { return };
    let (red, underlay) = (lab.red, lab.underlay);
    for id in lab.which(|tunnel| !tunnel.kind.carries_ip()) {
        let tunnel = lab.tunnel(id);
        let into = |frame: &[u8]| Outcome::Encapsulated { tunnel: id.into(), inner: frame.to_vec() };
        let out = |frame: Vec<u8>| Outcome::Decapsulated { tunnel: id.into(), slot: RED, frame };
        for source in [RED_IP6, LINK_LOCAL, Ipv6Addr::UNSPECIFIED] {
            let frame = solicitation(source, behind6(id));
            lab.node.check(&format!("from {source}"), Program::Encap, red, &frame, &into(&frame));
        }
        let frame = advertisement(RED_IP6, behind6(id));
        lab.node.check("advertisement", Program::Encap, red, &frame, &into(&frame));
        let spoofed = advertisement(GREEN_IP6, behind6(id));
        let outcome = Outcome::Drop(Reason::Source);
        lab.node.check("advertisement of another's", Program::Encap, red, &spoofed, &outcome);
        if tunnel.has_sequence() || tunnel.kind.is_tags() {
            continue;
        }
        for source in [behind6(id), LINK_LOCAL, Ipv6Addr::UNSPECIFIED] {
            let frame = solicitation(source, RED_IP6);
            let arriving = tunnel.arriving(&frame, 7);
            lab.node.check(&format!("from {source}"), Program::Decap, underlay, &arriving, &out(frame));
        }
        let mut frame = advertisement(behind6(id), RED_IP6);
        let arriving = tunnel.arriving(&frame, 7);
        frame[..6].copy_from_slice(&RED_MAC);
        lab.node.check("advertisement", Program::Decap, underlay, &arriving, &out(frame));
        let spoofed = tunnel.arriving(&advertisement(behind6(id - 1), RED_IP6), 7);
        let outcome = Outcome::Drop(Reason::InnerSource);
        lab.node.check("advertisement of another's", Program::Decap, underlay, &spoofed, &outcome);
        let elsewhere = tunnel.arriving(&solicitation(behind6(id), behind6(id)), 7);
        let outcome = Outcome::Drop(Reason::InnerNoRoute);
        lab.node.check("for nobody here", Program::Decap, underlay, &elsewhere, &outcome);
    }
}

/// What answers a link-local address finds the way back, and nothing else of that address goes anywhere.
#[test]
fn link_local_sources_are_learned() {
    let Some(mut lab) = Lab::new("neighbours::link_local_sources_are_learned") else { return };
    let (red, underlay) = (lab.red, lab.underlay);
    let ids = lab.which(is_ethernet_over_ip);
    let (one, other) = (ids[0], ids[1]);
    // A default route is no way for link-local addresses.
    let default = (Ipv6Addr::UNSPECIFIED.into(), 0);
    lab.node.world.routes.push(Route {
        table: SEGMENT,
        prefix: default,
        target: Target::Tunnel(other.into()),
    });
    lab.node.install();
    let out = |id: u8, frame: Vec<u8>| Outcome::Decapsulated { tunnel: id.into(), slot: RED, frame };

    let answer = advertisement(RED_IP6, LINK_LOCAL);
    lab.node.check("nobody asked", Program::Encap, red, &answer, &Outcome::Pass);
    for id in [one, other] {
        let question = solicitation(LINK_LOCAL, RED_IP6);
        let arriving = lab.tunnel(id).arriving(&question, 7);
        lab.node.check("a question", Program::Decap, underlay, &arriving, &out(id, question));
        let into = Outcome::Encapsulated { tunnel: id.into(), inner: answer.clone() };
        lab.node.check("its answer", Program::Encap, red, &answer, &into);
    }
    let anybody = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
    for (source, is_let_in) in [(anybody, true), (LINK_LOCAL, false)] {
        let hello = Ipv6::new(source, RED_IP6, UDP).encode(&udp(1, 2, b"hello"));
        let mut hello = leaving(TYPE_IPV6).encode(&hello);
        let arriving = lab.tunnel(other).arriving(&hello, 7);
        hello[..6].copy_from_slice(&RED_MAC);
        let outcome = if is_let_in { out(other, hello) } else { Outcome::Drop(Reason::InnerSource) };
        lab.node.check("a packet from it", Program::Decap, underlay, &arriving, &outcome);
    }
    let hello = Ipv6::new(RED_IP6, LINK_LOCAL, UDP).encode(&udp(1, 2, b"hello"));
    let hello = leaving(TYPE_IPV6).encode(&hello);
    lab.node.check("a packet", Program::Encap, red, &hello, &Outcome::Pass);
    // Whether it is still there: that goes where it was heard of last, too, and so does the answer.
    let question = solicitation(RED_IP6, LINK_LOCAL);
    let into = Outcome::Encapsulated { tunnel: other.into(), inner: question.clone() };
    lab.node.check("a question to it", Program::Encap, red, &question, &into);
    let unknown = solicitation(RED_IP6, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99));
    lab.node.check("a question to another", Program::Encap, red, &unknown, &Outcome::Pass);
    let mut here = advertisement(LINK_LOCAL, RED_IP6);
    here[..6].copy_from_slice(&RED_MAC);
    let arriving = lab.tunnel(other).arriving(&here, 7);
    lab.node.check("here it is", Program::Decap, underlay, &arriving, &out(other, here.clone()));
    let spoofed = lab.tunnel(one).arriving(&here, 7);
    let outcome = Outcome::Drop(Reason::InnerSource);
    lab.node.check("here it is not", Program::Decap, underlay, &spoofed, &outcome);

    // And the other way round.
    let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x52);
    let mut answer = advertisement(behind6(one), own);
    let arriving = lab.tunnel(one).arriving(&answer, 7);
    let outcome = Outcome::Drop(Reason::InnerNoRoute);
    lab.node.check("nobody asked", Program::Decap, underlay, &arriving, &outcome);
    let question = solicitation(own, behind6(one));
    let into = Outcome::Encapsulated { tunnel: one.into(), inner: question.clone() };
    lab.node.check("a question", Program::Encap, red, &question, &into);
    answer[..6].copy_from_slice(&RED_MAC);
    lab.node.check("its answer", Program::Decap, underlay, &arriving, &out(one, answer));
    let mut probe = solicitation(behind6(one), own);
    let arriving = lab.tunnel(one).arriving(&probe, 7);
    lab.node.check("it is probed", Program::Decap, underlay, &arriving, &out(one, probe));
    let here = advertisement(own, behind6(one));
    let into = Outcome::Encapsulated { tunnel: one.into(), inner: here.clone() };
    lab.node.check("and answers", Program::Encap, red, &here, &into);
    lab.node.check("for itself only", Program::Encap, lab.green, &here, &Outcome::Drop(Reason::Source));
    let spoofed = lab.tunnel(other).arriving(&advertisement(behind6(one), own), 7);
    let outcome = Outcome::Drop(Reason::InnerSource);
    lab.node.check("an answer of another's", Program::Decap, underlay, &spoofed, &outcome);
}

/// Between two workloads of a node it is the same.
#[test]
fn between_workloads() {
    let Some(mut lab) = Lab::new("neighbours::between_workloads") else { return };
    let (red, green) = (lab.red, lab.green);
    let to = |slot, mac: Option<Mac>, frame: &[u8]| {
        let mut frame = frame.to_vec();
        if let Some(mac) = mac {
            frame[..6].copy_from_slice(&mac);
        }
        Outcome::Forward { slot, frame }
    };
    let answer = advertisement(GREEN_IP6, LINK_LOCAL);
    lab.node.check("nobody asked", Program::Encap, green, &answer, &Outcome::Pass);
    for source in [RED_IP6, Ipv6Addr::UNSPECIFIED, LINK_LOCAL] {
        let question = solicitation(source, GREEN_IP6);
        let outcome = to(GREEN, None, &question);
        lab.node.check(&format!("from {source}"), Program::Encap, red, &question, &outcome);
    }
    lab.node.check("an answer", Program::Encap, green, &answer, &to(RED, Some(RED_MAC), &answer));
    let answer = advertisement(GREEN_IP6, RED_IP6);
    lab.node.check("an answer", Program::Encap, green, &answer, &to(RED, Some(RED_MAC), &answer));
    let own = solicitation(Ipv6Addr::UNSPECIFIED, RED_IP6);
    lab.node.check("whether its own is free", Program::Encap, red, &own, &Outcome::Pass);
}
