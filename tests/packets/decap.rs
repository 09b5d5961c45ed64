//! What arrives on the underlay.

use std::net::Ipv4Addr;

use mptm::kernel::Program;
use mptm::reason::Reason;

use crate::common::frame::{
    ArpOperation, BROADCAST, DO_NOT_FRAGMENT, Ethernet, ICMP, Ipv4, MORE_FRAGMENTS, TYPE_ARP, TYPE_IPV4,
    TYPE_IPV6, TYPE_QINQ, TYPE_VLAN, UDP, arp, checksum, udp,
};
use crate::lab::*;
use crate::oracle::Outcome;
use crate::world::{Kind, Tunnel};

/// Name, outer frame, outcome.
type Case = (&'static str, Vec<u8>, Outcome);

/// From a far end's workload.
fn arriving(ethertype: u16) -> Ethernet {
    Ethernet::new([2, 0, 0, 0, 8, 8], FAR_MAC, ethertype)
}

fn inner(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    arriving(TYPE_IPV4).encode(&Ipv4::new(source, destination, UDP).encode(&udp(53, 54, b"an inner payload")))
}

fn out_of(tunnel: u8, slot: u32, mac: [u8; 6], inner: &[u8]) -> Outcome {
    let frame = [&mac, &inner[6..]].concat();
    Outcome::Decapsulated { tunnel: tunnel.into(), slot, frame }
}

fn to_red(tunnel: u8, inner: &[u8]) -> Outcome {
    out_of(tunnel, RED, RED_MAC, inner)
}

fn check(lab: &mut Lab, cases: Vec<Case>) {
    for (name, frame, outcome) in cases {
        lab.node.check(name, Program::Decap, lab.underlay, &frame, &outcome);
    }
}

/// Writes bytes into a frame, and the outer IPv4 checksum again.
fn patched(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    let header = 14..14 + usize::from(frame[14] & 0xf) * 4;
    frame[24..26].fill(0);
    let sum = checksum(&frame[header]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn dropped(name: &'static str, frame: Vec<u8>, reason: Reason) -> Case {
    (name, frame, Outcome::Drop(reason))
}

#[test]
fn tunnels() {
    let Some(mut lab) = Lab::new("decap::tunnels") else { return };
    let mut cases = Vec::new();
    for (name, id) in [
        ("geneve", GENEVE),
        ("vxlan", VXLAN),
        ("vlan", VLAN),
        ("geneve with options", GENEVE_OPTIONS),
        ("vlan with own addresses", VLAN_OWN_MACS),
        ("IPv4 options", OUTER_OPTIONS),
        ("debug", DEBUG),
        ("a tunnel that can't send", UNRESOLVED),
    ] {
        let inner = inner(behind(id), RED_IP);
        let frame = lab.tunnel(id).arriving(&inner, 40000);
        let left = match lab.tunnel(id).kind {
            // The outer addresses are all that it has.
            Kind::Vlan => [&frame[..12], &inner[12..]].concat(),
            _ => inner,
        };
        cases.push((name, frame, to_red(id, &left)));
    }
    let mut add = |name, id: u8, source, destination, outcome: fn(u8, &[u8]) -> Outcome| {
        let inner = inner(source, destination);
        cases.push((name, lab.tunnel(id).arriving(&inner, 1), outcome(id, &inner)));
    };
    add("another workload", GENEVE, behind(GENEVE), GREEN_IP, |id, inner| {
        out_of(id, GREEN, GREEN_MAC, inner)
    });
    add("another segment", BLUE_GENEVE, behind(GENEVE), RED_IP, |id, inner| {
        out_of(id, BLUE, BLUE_MAC, inner)
    });
    add("a workload behind a prefix", GENEVE, behind(GENEVE), Ipv4Addr::new(10, 0, 8, 9), |id, inner| {
        out_of(id, RED, [2, 0, 0, 0, 8, 8], inner)
    });
    add("a pair", PAIR, behind(GENEVE), RED_PAIR_IP, to_red);
    add("a source of a prefix", VXLAN, Ipv4Addr::new(10, 2, 3, 4), RED_IP, to_red);
    let drop = |reason: Reason| Outcome::Drop(reason);
    let mut refuse = |name, id: u8, source, destination, reason| {
        cases.push((name, lab.tunnel(id).arriving(&inner(source, destination), 1), drop(reason)));
    };
    refuse(
        "a pair's source by the segment's tunnel",
        GENEVE,
        behind(GENEVE),
        RED_PAIR_IP,
        Reason::InnerSource,
    );
    refuse("a pair's tunnel to another workload", PAIR, behind(GENEVE), GREEN_IP, Reason::InnerSource);
    refuse("another tunnel's source", GENEVE, behind(VXLAN), RED_IP, Reason::InnerSource);
    refuse("a more specific source", GENEVE, Ipv4Addr::new(10, 2, 3, 4), RED_IP, Reason::InnerSource);
    refuse("a workload's source", GENEVE, GREEN_IP, RED_IP, Reason::InnerSource);
    refuse("an unknown source", GENEVE, Ipv4Addr::new(203, 0, 113, 1), RED_IP, Reason::InnerSource);
    refuse("an unspecified source", GENEVE, Ipv4Addr::UNSPECIFIED, RED_IP, Reason::InnerSource);
    refuse("a destination behind a tunnel", GENEVE, behind(GENEVE), behind(VXLAN), Reason::InnerNoRoute);
    refuse(
        "an unknown destination",
        GENEVE,
        behind(GENEVE),
        Ipv4Addr::new(203, 0, 113, 1),
        Reason::InnerNoRoute,
    );
    refuse("a workload that is gone", GENEVE, behind(GENEVE), Ipv4Addr::new(10, 0, 9, 1), Reason::NoDevice);
    refuse("multicast", GENEVE, behind(GENEVE), Ipv4Addr::new(224, 0, 0, 1), Reason::InnerGroup);
    refuse("broadcast", VXLAN, behind(VXLAN), Ipv4Addr::BROADCAST, Reason::InnerGroup);
    check(&mut lab, cases);
}

#[test]
fn inner_frames() {
    let Some(mut lab) = Lab::new("decap::inner_frames") else { return };
    let tunnel = lab.tunnel(GENEVE);
    let put = |name, inner: Vec<u8>| (name, tunnel.arriving(&inner, 7), to_red(GENEVE, &inner));
    let group =
        |name, inner: Vec<u8>| (name, tunnel.arriving(&inner, 7), out_of(GENEVE, RED, BROADCAST, &inner));
    let refuse = |name, inner: &[u8], reason| dropped(name, tunnel.arriving(inner, 7), reason);
    let arp_frame = |destination, operation, sender, target| {
        Ethernet::new(destination, FAR_MAC, TYPE_ARP).encode(&arp(
            operation,
            (FAR_MAC, sender),
            ([0; 6], target),
        ))
    };
    let request = |sender, target| arp_frame(BROADCAST, ArpOperation::Request, sender, target);
    let ip = Ipv4::new(behind(GENEVE), RED_IP, UDP);
    let packet = ip.encode(&udp(1, 2, b"payload"));
    let plain = arriving(TYPE_IPV4).encode(&packet);
    let with = |at: usize, byte: u8| {
        let mut frame = plain.clone();
        frame[at] = byte;
        frame
    };
    let fragment = Ipv4 { fragment: MORE_FRAGMENTS | 100, ..ip.clone() }.encode(&[1; 64]);
    let options = Ipv4 { options: vec![1; 40], ..ip.clone() }.encode(&udp(1, 2, b"payload"));
    let short_icmp = Ipv4 { protocol: ICMP, ..ip.clone() }.encode(&[8]);
    check(
        &mut lab,
        vec![
            group("ARP request", request(behind(GENEVE), RED_IP)),
            group("ARP probe", request(Ipv4Addr::UNSPECIFIED, RED_IP)),
            put("ARP reply", arp_frame([2; 6], ArpOperation::Reply, behind(GENEVE), RED_IP)),
            put("one tag", arriving(TYPE_IPV4).tag(TYPE_VLAN, 0x2007).encode(&packet)),
            put("two tags", arriving(TYPE_IPV4).tag(TYPE_QINQ, 7).tag(TYPE_VLAN, 8).encode(&packet)),
            put("IPv4 options", arriving(TYPE_IPV4).encode(&options)),
            put("a fragment", arriving(TYPE_IPV4).encode(&fragment)),
            put("its own padding", [&arriving(TYPE_IPV4).encode(&short_icmp)[..], &[0; 25]].concat()),
            refuse("ARP of another's", &request(behind(VXLAN), RED_IP), Reason::InnerSource),
            refuse("ARP for nobody", &request(behind(GENEVE), behind(GENEVE)), Reason::InnerNoRoute),
            refuse(
                "a probe for nobody",
                &request(Ipv4Addr::UNSPECIFIED, behind(VXLAN)),
                Reason::InnerNoRoute,
            ),
            refuse("half of ARP", &request(behind(GENEVE), RED_IP)[..30], Reason::InnerMalformed),
            refuse("three tags", &with(12, 0x81)[..14].repeat(3), Reason::InnerUnsupported),
            refuse(
                "IPv6 of another length",
                &arriving(TYPE_IPV6).encode(&[0x60; 60]),
                Reason::InnerMalformed,
            ),
            refuse("an unknown type", &arriving(0x88cc).encode(&[1; 40]), Reason::InnerUnsupported),
            refuse("IPv4 to a group", &with(0, 1), Reason::InnerGroup),
            refuse("nothing", &[], Reason::InnerMalformed),
            refuse("addresses only", &plain[..12], Reason::InnerMalformed),
            refuse("half a type", &plain[..13], Reason::InnerMalformed),
            refuse("Ethernet only", &plain[..14], Reason::InnerMalformed),
            refuse("half of IPv4", &plain[..24], Reason::InnerMalformed),
            refuse("truncated", &plain[..plain.len() - 1], Reason::InnerMalformed),
            refuse("version 5", &with(14, 0x55), Reason::InnerMalformed),
            refuse("header too short", &with(14, 0x44), Reason::InnerMalformed),
            refuse("header too long", &with(14, 0x4f), Reason::InnerMalformed),
        ],
    );
}

#[test]
fn whose_it_is_not() {
    let Some(mut lab) = Lab::new("decap::whose_it_is_not") else { return };
    let (geneve, vxlan, vlan) = (lab.tunnel(GENEVE), lab.tunnel(VXLAN), lab.tunnel(VLAN));
    let inner = inner(behind(GENEVE), RED_IP);
    let other = Ipv4Addr::new(192, 0, 2, 250);
    let good = geneve.arriving(&inner, 7);
    let later = patched(&good, 20, &[0, 1]);
    let oam = patched(&good, 43, &[0x80]);
    check(
        &mut lab,
        [
            ("wrong VLAN id", Tunnel { network: Some(101), ..vlan.clone() }.arriving(&inner, 7)),
            ("priority tag", Tunnel { network: Some(0), ..vlan.clone() }.arriving(&inner, 7)),
            ("provider tag", patched(&vlan.arriving(&inner, 7), 12, &TYPE_QINQ.to_be_bytes())),
            ("wrong port", patched(&good, 36, &[1, 2])),
            ("not UDP", patched(&good, 23, &[6])),
            ("not IPv4", patched(&good, 14, &[0x65])),
            ("IPv6", patched(&good, 12, &TYPE_IPV6.to_be_bytes())),
            ("ARP", patched(&good, 12, &TYPE_ARP.to_be_bytes())),
            ("a later fragment", later),
            ("a last fragment", patched(&good, 20, &[0x1f, 0xff])),
            ("Ethernet only", good[..14].to_vec()),
            ("no UDP header", good[..41].to_vec()),
            ("no GENEVE header", good[..49].to_vec()),
            ("half a tag", vlan.arriving(&inner, 7)[..17].to_vec()),
        ]
        .map(|(name, frame)| (name, frame, Outcome::Pass))
        .into(),
    );
    check(
        &mut lab,
        [
            (
                "wrong remote",
                Tunnel { remote: (FAR_MAC, other.into()), ..geneve.clone() }.arriving(&inner, 7),
            ),
            ("wrong local", Tunnel { local: (OWN_MAC, other.into()), ..geneve.clone() }.arriving(&inner, 7)),
            ("wrong VNI", Tunnel { network: Some(43), ..geneve.clone() }.arriving(&inner, 7)),
            ("wrong VNI, vxlan", Tunnel { network: Some(43), ..vxlan.clone() }.arriving(&inner, 7)),
            ("vxlan's port", patched(&good, 36, &4789_u16.to_be_bytes())),
        ]
        .map(|(name, frame)| (name, frame, Outcome::Leave(Reason::Stray)))
        .into(),
    );
    check(&mut lab, vec![("OAM", oam, Outcome::Leave(Reason::Oam))]);
    for (name, frame, outcome) in [
        ("geneve", good, Outcome::Leave(Reason::Stray)),
        ("vxlan", vxlan.arriving(&inner, 7), Outcome::Leave(Reason::Stray)),
        ("vlan", vlan.arriving(&inner, 7), Outcome::Pass),
    ] {
        let name = format!("{name} by another underlay");
        lab.node.check(&name, Program::Decap, lab.end, &frame, &outcome);
    }
}

#[test]
fn outer_headers() {
    let Some(mut lab) = Lab::new("decap::outer_headers") else { return };
    let (geneve, vxlan, vlan) = (lab.tunnel(GENEVE), lab.tunnel(VXLAN), lab.tunnel(VLAN));
    let with_options = |options| Tunnel { kind: Kind::Geneve { options, ip: false }, ..geneve.clone() };
    let most = || vec![(1, 2, vec![3; 124]), (4, 5, vec![6; 120])];
    let inner = inner(behind(GENEVE), RED_IP);
    let inner_vxlan = self::inner(behind(VXLAN), RED_IP);
    let good = geneve.arriving(&inner, 7);
    let total = (good.len() - 14) as u16;
    let set_total = |total: u16| patched(&good, 16, &total.to_be_bytes());
    let set_udp = |length: u16| patched(&good, 38, &length.to_be_bytes());
    let both = |total: u16| patched(&set_total(total), 38, &(total - 20).to_be_bytes());
    let mut wrong_sum = good.clone();
    wrong_sum[24] ^= 1;
    let mut wrong_option = lab.tunnel(OUTER_OPTIONS).arriving(&inner, 7);
    wrong_option[73] ^= 2;
    let long_ip = Tunnel { ip_options: vec![1; 40], ..with_options(most()) };
    let mut vlan_frame = vlan.arriving(&self::inner(behind(VLAN), RED_IP), 7);
    vlan_frame[14] |= 0xf0;
    let vlan_left = [&vlan_frame[..12], &vlan_frame[16..]].concat();
    let vxlan_frame = vxlan.arriving(&inner_vxlan, 7);
    let udp_sum = patched(&good, 40, &[0x12, 0x34]);
    let accepted = |name, frame| (name, frame, to_red(GENEVE, &inner));
    check(
        &mut lab,
        vec![
            accepted("padding", [&good[..], &[0xee; 30]].concat()),
            accepted("DF", patched(&good, 20, &DO_NOT_FRAGMENT.to_be_bytes())),
            accepted("no DF", patched(&good, 20, &[0, 0])),
            accepted("another TTL and TOS", patched(&patched(&good, 22, &[1]), 15, &[0xfc])),
            accepted("critical options that are not there", patched(&good, 43, &[0x40])),
            accepted("reserved GENEVE bits", patched(&patched(&good, 43, &[0x3f]), 49, &[0xff])),
            accepted("one option", with_options(vec![(1, 2, Vec::new())]).arriving(&inner, 7)),
            accepted("as many options as there can be", with_options(most()).arriving(&inner, 7)),
            accepted("the longest header", long_ip.arriving(&inner, 7)),
            (
                "reserved VXLAN bits",
                patched(&patched(&vxlan_frame, 42, &[0xff, 0xff, 0xff, 0xff]), 49, &[0xff]),
                to_red(VXLAN, &inner_vxlan),
            ),
            ("VLAN priority", vlan_frame.clone(), to_red(VLAN, &vlan_left)),
            dropped("total length too long", set_total(total + 1), Reason::OuterLength),
            dropped("total length of 65535", set_total(65535), Reason::OuterLength),
            dropped("total length too short for UDP", set_total(total - 1), Reason::OuterLength),
            dropped("total length shorter than its header", set_total(19), Reason::OuterLength),
            dropped("no total length", set_total(0), Reason::OuterLength),
            dropped("UDP length too long", set_udp(total - 19), Reason::OuterLength),
            dropped("UDP length too short", set_udp(total - 21), Reason::OuterLength),
            dropped("UDP length of 0", set_udp(0), Reason::OuterLength),
            dropped("the GENEVE header beyond the packet", both(35), Reason::OuterLength),
            dropped("nothing behind the GENEVE header", both(36), Reason::InnerMalformed),
            dropped("ARP beyond the packet", arp_beyond_the_packet(&geneve), Reason::InnerMalformed),
            dropped("checksum", wrong_sum, Reason::OuterChecksum),
            dropped("checksum with options", wrong_option, Reason::OuterChecksum),
            dropped(
                "a first fragment",
                patched(&good, 20, &MORE_FRAGMENTS.to_be_bytes()),
                Reason::OuterFragment,
            ),
            dropped("no I flag", patched(&vxlan_frame, 42, &[0xf7]), Reason::TunnelFlags),
            dropped("GENEVE version 1", patched(&good, 42, &[0x40]), Reason::TunnelVersion),
            dropped("GENEVE version 3, OAM", patched(&good, 42, &[0xc0, 0x80]), Reason::TunnelVersion),
            dropped("a UDP checksum that nobody computed", udp_sum, Reason::OuterChecksum),
            dropped("IPv4 in GENEVE", patched(&good, 44, &TYPE_IPV4.to_be_bytes()), Reason::TunnelPayload),
            dropped("options beyond the packet", patched(&good, 42, &[0x3f]), Reason::OuterLength),
            dropped("options that eat the inner header", patched(&good, 42, &[14]), Reason::TunnelOption),
        ],
    );
}

/// An ARP request whose outer packet ends in its middle; the rest of it is in the frame's padding.
fn arp_beyond_the_packet(tunnel: &Tunnel) -> Vec<u8> {
    let request = arp(ArpOperation::Request, (FAR_MAC, behind(GENEVE)), ([0; 6], RED_IP));
    let whole = Ethernet::new(BROADCAST, FAR_MAC, TYPE_ARP).encode(&request);
    let cut = tunnel.arriving(&whole[..24], 7);
    [&cut[..], &whole[24..]].concat()
}

#[test]
fn sizes() {
    let Some(mut lab) = Lab::new("decap::sizes") else { return };
    let mut cases = Vec::new();
    // From where a frame just fits into one buffer, to where it takes several; the padding ends in one or several.
    for size in [3000, 3400, 3500, 3600, 4096, 8000, 9000] {
        for (id, padding) in
            [(GENEVE, 0), (GENEVE, 1), (VXLAN, 700), (VXLAN, 6000), (OUTER_OPTIONS, 4096), (VLAN, 0)]
        {
            let payload = udp(1, 2, &vec![9; size - 28]);
            let inner = arriving(TYPE_IPV4).encode(&Ipv4::new(behind(id), RED_IP, UDP).encode(&payload));
            let frame = lab.tunnel(id).arriving(&inner, 7);
            let left = if id == VLAN { [&frame[..12], &inner[12..]].concat() } else { inner };
            cases.push(("jumbo", [frame, vec![0xee; padding]].concat(), to_red(id, &left)));
        }
    }
    check(&mut lab, cases);
}
