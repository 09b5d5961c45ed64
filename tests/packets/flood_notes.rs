//! What XDP lets be flooded: which packets it leaves a note with, and for what reasons it does not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mptm::kernel::{DataPlane, Map, Program, abi};
use mptm::reason::Reason;
use zerocopy::{FromBytes, IntoBytes};

use crate::common::frame::{Ethernet, Mac, UDP, group_mac, ip_packet, type_of, udp};
use crate::lab::*;
use crate::node::{Counters, Row, difference};
use crate::wide::behind6;

const PASS: u32 = 2;
const DROP: u32 = 1;
/// Where the EtherType of a frame is.
const TYPE: usize = 12;
/// ETH_P_802_EX1.
const SEALED: [u8; 2] = [0x88, 0xb5];
const ALL: Mac = [0xff; 6];
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3));
const GROUP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x1234));

/// The lab, where VXLAN floods in the segment of red and green.
fn flooding(test: &str) -> Option<Lab> {
    let mut lab = Lab::new(test)?;
    let plane = &mut lab.node.plane;
    let id = u32::from(VXLAN);
    let active = plane.get(Map::Active, id.as_bytes()).unwrap().unwrap()[0];
    let index = 2 * id + u32::from(active) - 1;
    let bytes = plane.get(Map::Tunnels, index.as_bytes()).unwrap().unwrap();
    let mut tunnel = abi::Tunnel::read_from_bytes(&bytes).unwrap();
    tunnel.flags |= abi::tunnel_flags::FLOOD;
    plane.put(Map::Tunnels, index.as_bytes(), tunnel.as_bytes()).unwrap();
    let mut flood = abi::Flood { tunnels: 1, workloads: 2, ..Default::default() };
    let members = [(id, lab.underlay), (RED, lab.red), (GREEN, lab.green)];
    for (member, (id, ifindex)) in flood.members.iter_mut().zip(members) {
        *member = abi::FloodMember { id, ifindex };
    }
    plane.put(Map::Floods, SEGMENT.as_bytes(), flood.as_bytes()).unwrap();
    Some(lab)
}

/// A datagram to several.
fn frame(to: Mac, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let packet = ip_packet(source, destination, UDP, &udp(1, 2, b"to whom it may concern"));
    Ethernet::new(to, RED_MAC, type_of(&packet)).encode(&packet)
}

fn to_group(source: impl Into<IpAddr>, group: IpAddr) -> Vec<u8> {
    frame(group_mac(group), source.into(), group)
}

/// Runs a program, and says what of the frame was left, and which counters moved.
fn run(lab: &Lab, program: Program, ifindex: u32, frame: &[u8]) -> (Vec<u8>, Counters) {
    let before = lab.node.counters();
    let run = lab.node.run(program, ifindex, frame);
    (run.frame, difference(&before, &lab.node.counters()))
}

fn moved(frame: &[u8], rows: &[Row]) -> Counters {
    rows.iter().map(|row| (*row, (1, frame.len() as u64))).collect()
}

#[test]
fn what_workloads_send() {
    let Some(lab) = flooding("flood_notes::what_workloads_send") else { return };
    let link_local: Ipv6Addr = "fe80::1".parse().unwrap();
    for (name, frame) in [
        ("multicast", to_group(RED_IP, GROUP)),
        ("to all", frame(ALL, RED_IP.into(), Ipv4Addr::BROADCAST.into())),
        ("to a subnet", frame(ALL, RED_IP.into(), Ipv4Addr::new(10, 0, 0, 255).into())),
        ("DHCP", frame(ALL, Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into())),
        ("IPv6 multicast", to_group(RED_IP6, GROUP6)),
        ("link-local", to_group(link_local, GROUP6)),
        ("no address yet", to_group(Ipv6Addr::UNSPECIFIED, GROUP6)),
    ] {
        let (left, counters) = run(&lab, Program::Encap, lab.red, &frame);
        assert_eq!(counters, moved(&frame, &[Row::Action(Program::Encap, PASS)]), "{name}");
        // Before the frame, which stays as it is, there is a note with room before it.
        assert_eq!(left.len(), frame.len() + 48, "{name}");
        assert_eq!(left[48..], frame, "{name}");
        let ifindex = u32::from_ne_bytes(left[24..28].try_into().unwrap());
        assert_eq!(ifindex, lab.red, "{name}");
    }
}

#[test]
fn what_is_left_to_the_host() {
    let Some(lab) = flooding("flood_notes::what_is_left_to_the_host") else { return };
    let mapped = RED_IP.to_ipv6_mapped();
    for (name, ifindex, frame) in [
        ("another's source", lab.red, to_group(GREEN_IP, GROUP)),
        ("a source behind a tunnel", lab.red, to_group(behind(VXLAN), GROUP)),
        ("nobody's source", lab.red, to_group(Ipv4Addr::new(192, 0, 2, 1), GROUP)),
        ("another's IPv6 source", lab.red, to_group(GREEN_IP6, GROUP6)),
        ("an IPv4 source in IPv6", lab.red, to_group(mapped, GROUP6)),
        ("no IPv4 source in IPv6", lab.red, to_group(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), GROUP6)),
        ("a frame for one", lab.red, frame(GREEN_MAC, RED_IP.into(), GROUP)),
        ("no IP", lab.red, Ethernet::new([1, 0x80, 0xc2, 0, 0, 0xe], RED_MAC, 0x88cc).encode(&[0; 50])),
        ("a segment without flood", lab.blue, to_group(RED_IP, GROUP)),
    ] {
        let (left, counters) = run(&lab, Program::Encap, ifindex, &frame);
        let rows = [Row::Action(Program::Encap, PASS), Row::Drop(Reason::Group)];
        assert_eq!(counters, moved(&frame, &rows), "{name}");
        assert_eq!(left, frame, "{name}");
    }
}

#[test]
fn what_tunnels_bring() {
    let Some(lab) = flooding("flood_notes::what_tunnels_bring") else { return };
    let tunnel = lab.tunnel(VXLAN);
    for (name, inner) in [
        ("multicast", to_group(behind(VXLAN), GROUP)),
        ("to all", frame(ALL, behind(VXLAN).into(), Ipv4Addr::BROADCAST.into())),
        ("DHCP", frame(ALL, Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into())),
        ("link-local", to_group("fe80::1".parse::<Ipv6Addr>().unwrap(), GROUP6)),
    ] {
        let outer = tunnel.arriving(&inner, 50000);
        let (left, counters) = run(&lab, Program::Decap, lab.underlay, &outer);
        let mut expected = moved(&outer, &[Row::Action(Program::Decap, PASS)]);
        expected.insert(Row::Decap(VXLAN.into()), (1, inner.len() as u64));
        assert_eq!(counters, expected, "{name}");
        // Nobody but mptm_flood would know what to do with it.
        let mut sealed = inner.clone();
        sealed[TYPE..TYPE + 2].copy_from_slice(&SEALED);
        assert_eq!(left[48..], sealed, "{name}");
    }
}

#[test]
fn what_tunnels_may_not_bring() {
    let Some(mut lab) = flooding("flood_notes::what_tunnels_may_not_bring") else { return };
    let no_ip = Ethernet::new([1, 0x80, 0xc2, 0, 0, 0xe], FAR_MAC, 0x88cc).encode(&[0; 50]);
    let refused = |lab: &Lab, name: &str, tunnel: u8, inner: Vec<u8>, reason: Reason| {
        let outer = lab.tunnel(tunnel).arriving(&inner, 50000);
        let (_, counters) = run(lab, Program::Decap, lab.underlay, &outer);
        let rows = [Row::Action(Program::Decap, DROP), Row::Drop(reason)];
        assert_eq!(counters, moved(&outer, &rows), "{name}");
    };
    let good = || to_group(behind(VXLAN), GROUP);
    for (name, tunnel, inner, reason) in [
        ("a workload's source", VXLAN, to_group(RED_IP, GROUP), Reason::InnerSource),
        ("another tunnel's source", VXLAN, to_group(behind(GENEVE), GROUP), Reason::InnerSource),
        ("another tunnel's IPv6 source", VXLAN, to_group(behind6(GENEVE), GROUP6), Reason::InnerSource),
        ("nobody's source", VXLAN, to_group(Ipv4Addr::new(192, 0, 2, 1), GROUP), Reason::InnerSource),
        ("a frame for one", VXLAN, frame(RED_MAC, behind(VXLAN).into(), GROUP), Reason::InnerGroup),
        ("no IP", VXLAN, no_ip, Reason::InnerGroup),
        ("a tunnel without flood", GENEVE, to_group(behind(GENEVE), GROUP), Reason::InnerGroup),
    ] {
        refused(&lab, name, tunnel, inner, reason);
    }
    lab.node.plane.delete(Map::Floods, SEGMENT.as_bytes()).unwrap();
    refused(&lab, "before there is a list, or after", VXLAN, good(), Reason::InnerGroup);
}
