//! Whoever is known to send, and whatever headers a far end is known to have: that says nothing of other packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mptm::kernel::Program;
use mptm::reason::Reason;

use crate::common::frame::{Ipv6, TYPE_IPV6, UDP, udp};
use crate::lab::*;
use crate::oracle::Outcome;
use crate::world::{Route, Target};

/// Addresses of many, or of nobody in particular.
const GROUPS: [Ipv4Addr; 3] = [Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::new(240, 0, 0, 1), Ipv4Addr::BROADCAST];
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 2);

fn add_route(lab: &mut Lab, address: IpAddr, bits: u32, target: Target) {
    lab.node.world.routes.push(Route { table: SEGMENT, prefix: (address, bits), target });
}

fn from_red6(destination: Ipv6Addr) -> Vec<u8> {
    leaving(TYPE_IPV6).encode(&Ipv6::new(RED_IP6, destination, UDP).encode(&udp(1, 2, b"hello")))
}

/// A default route is no way for them, though the frame is for one MAC address and its sender is known.
#[test]
fn groups_are_behind_no_default_route() {
    let Some(mut lab) = Lab::new("known::groups_are_behind_no_default_route") else { return };
    for address in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
        add_route(&mut lab, address, 0, Target::Tunnel(GENEVE.into()));
    }
    lab.node.install();
    let (anybody, anybody6) = (Ipv4Addr::new(203, 0, 113, 7), Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 7));
    for _ in 0..2 {
        for frame in [datagram(RED_IP, anybody, 20), from_red6(anybody6)] {
            let into = Outcome::Encapsulated { tunnel: GENEVE.into(), inner: frame.clone() };
            lab.node.check("for anybody", Program::Encap, lab.red, &frame, &into);
        }
        let frames = GROUPS.map(|group| datagram(RED_IP, group, 20)).into_iter().chain([from_red6(GROUP6)]);
        for frame in frames {
            let left = Outcome::Leave(Reason::Group);
            lab.node.check("for many", Program::Encap, lab.red, &frame, &left);
        }
    }
}

/// Nor is a workload's prefix, whatever it says.
#[test]
fn groups_are_no_workloads() {
    let Some(mut lab) = Lab::new("known::groups_are_no_workloads") else { return };
    let red = || Target::Workload { slot: RED, mac: RED_MAC, pairs: 0 };
    add_route(&mut lab, Ipv4Addr::new(224, 0, 0, 0).into(), 3, red());
    lab.node.install();
    let tunnel = lab.tunnel(GENEVE);
    for _ in 0..2 {
        let good = datagram(behind(GENEVE), RED_IP, 20);
        let arriving = tunnel.arriving(&good, 7);
        let run = lab.node.run(Program::Decap, lab.underlay, &arriving);
        assert_eq!(run.action, crate::node::REDIRECT, "for red");
        for group in GROUPS {
            let arriving = tunnel.arriving(&datagram(behind(GENEVE), group, 20), 7);
            let outcome = Outcome::Drop(Reason::InnerGroup);
            lab.node.check("for many", Program::Decap, lab.underlay, &arriving, &outcome);
        }
    }
}
