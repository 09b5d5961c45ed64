//! Multicast and broadcast, as far as XDP goes: who may have it flooded, and what mptm_flood is left with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mptm::kernel::Program;
use mptm::reason::Reason;

use crate::common::frame::{
    BROADCAST, Ethernet, Ipv4, Ipv6, TYPE_IPV4, TYPE_IPV6, TYPE_VLAN, UDP, group_mac, udp,
};
use crate::lab::*;
use crate::oracle::Outcome;
use crate::patched::patched;
use crate::wide::behind6;
use crate::world::Own;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 1, 2);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x51);

/// To a group, from anybody.
fn group(source: IpAddr) -> Vec<u8> {
    let payload = udp(5353, 5353, b"to all");
    match source {
        IpAddr::V4(source) => {
            let mac = Ethernet::new(group_mac(GROUP.into()), RED_MAC, TYPE_IPV4);
            mac.encode(&Ipv4::new(source, GROUP, UDP).encode(&payload))
        }
        IpAddr::V6(source) => {
            let mac = Ethernet::new(group_mac(GROUP6.into()), RED_MAC, TYPE_IPV6);
            mac.encode(&Ipv6::new(source, GROUP6, UDP).encode(&payload))
        }
    }
}

fn flooding(test: &str) -> Option<Lab> {
    let mut lab = Lab::new(test)?;
    lab.change_tunnels(|tunnel| tunnel.flood = !tunnel.kind.carries_ip() && tunnel.id % 4 != 0);
    Some(lab)
}

#[test]
fn out() {
    let Some(mut lab) = flooding("flood::out") else { return };
    let (red, blue) = (lab.red, lab.blue);
    let noted = |frame: &[u8]| Outcome::Noted { tunnel: None, frame: frame.to_vec() };
    let left = Outcome::Leave(Reason::Group);
    let mut check = |name: &str, ifindex: u32, frame: &[u8], outcome: &Outcome| {
        lab.node.check(name, Program::Encap, ifindex, frame, outcome);
    };
    let nobody = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into(), LINK_LOCAL.into()];
    for source in [RED_IP.into(), RED_PAIR_IP.into(), RED_IP6.into()].into_iter().chain(nobody) {
        let frame = group(source);
        check(&format!("from {source}"), red, &frame, &noted(&frame));
        check("of a segment that does not flood", blue, &frame, &left);
    }
    let mapped = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
    for source in [GREEN_IP.into(), behind(GENEVE).into(), GREEN_IP6.into(), mapped.into(), GATEWAY6.into()] {
        check(&format!("spoofed {source}"), red, &group(source), &left);
    }
    let ip = Ipv4::new(RED_IP, Ipv4Addr::BROADCAST, UDP).encode(&udp(68, 67, b"to all"));
    let broadcast = Ethernet::new(BROADCAST, RED_MAC, TYPE_IPV4);
    let frame = broadcast.encode(&ip);
    check("broadcast", red, &frame, &noted(&frame));
    let frame = [broadcast.clone().tag(TYPE_VLAN, 5).encode(&ip), vec![0; 9]].concat();
    check("with a tag, padded", red, &frame, &noted(&frame));
    let ip = Ipv4::new(RED_IP, behind(GENEVE), UDP).encode(&udp(68, 67, b"to one"));
    let frame = broadcast.encode(&ip);
    check("to one in a frame to all", red, &frame, &noted(&frame));
    check("to all in a frame to one", red, &leaving(TYPE_IPV4).encode(&group(RED_IP.into())[14..]), &left);
    check("no IP", red, &Ethernet::new(BROADCAST, RED_MAC, 0x88cc).encode(&[1; 46]), &left);
    let frame = [group(RED_IP.into()), vec![7; 5000]].concat();
    check("in several buffers", red, &frame, &noted(&frame));
}

#[test]
fn back() {
    let Some(mut lab) = flooding("flood::back") else { return };
    let underlay = lab.underlay;
    for id in lab.which(|tunnel| !tunnel.kind.carries_ip()) {
        let tunnel = lab.tunnel(id);
        let mut sequence = 0;
        let mut arriving = |source: IpAddr| {
            sequence += 1;
            tunnel.arriving_as(&group(source), Own { sequence, port: 7, ..Own::default() })
        };
        let keeps = !tunnel.kind.is_tags() || tunnel.keep_destination;
        let noted = |arriving: &[u8], source: IpAddr| {
            let mut frame = group(source);
            if tunnel.kind.is_tags() {
                frame[..12].copy_from_slice(&arriving[..12]);
            }
            frame[12..14].copy_from_slice(&[0x88, 0xb5]);
            Outcome::Noted { tunnel: Some(id.into()), frame }
        };
        let own: [IpAddr; 4] =
            [behind(id).into(), behind6(id).into(), LINK_LOCAL.into(), Ipv4Addr::UNSPECIFIED.into()];
        for source in own {
            let frame = arriving(source);
            let outcome =
                if tunnel.flood && keeps { noted(&frame, source) } else { Outcome::Drop(Reason::InnerGroup) };
            lab.node.check(
                &format!("from {source}, tunnel {id}"),
                Program::Decap,
                underlay,
                &frame,
                &outcome,
            );
        }
        if !tunnel.flood || !keeps {
            continue;
        }
        for source in [behind(id ^ 1).into(), behind6(id ^ 1).into(), RED_IP.into(), GREEN_IP6.into()] {
            let outcome = Outcome::Drop(Reason::InnerSource);
            let name = format!("spoofed {source}, tunnel {id}");
            lab.node.check(&name, Program::Decap, underlay, &arriving(source), &outcome);
        }
        if !tunnel.kind.is_tags() {
            let frame = arriving(behind(id).into());
            let congested = patched(&frame, 15, &[frame[15] | if tunnel.is_ipv6() { 0x30 } else { 3 }]);
            let outcome = Outcome::Drop(Reason::Ecn);
            lab.node.check("congested", Program::Decap, underlay, &congested, &outcome);
        }
    }
}
