//! What goes in at one end of a tunnel comes out at the other, but for the MAC address that it is sent to.

use std::net::Ipv4Addr;

use mptm::kernel::{DataPlane, Program};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::common::frame::{
    ArpOperation, BROADCAST, Ethernet, Ipv4, TYPE_ARP, TYPE_IPV4, TYPE_QINQ, TYPE_VLAN, arp,
};
use crate::lab::*;
use crate::node::REDIRECT;

const CASES: u32 = 2000;

fn unicast() -> impl Strategy<Value = [u8; 6]> {
    any::<[u8; 6]>().prop_map(|mut mac| {
        mac[0] &= !1;
        mac
    })
}

fn tags() -> impl Strategy<Value = Vec<(u16, u16)>> {
    prop::collection::vec((prop_oneof![Just(TYPE_VLAN), Just(TYPE_QINQ)], any::<u16>()), 0..=2)
}

/// Mostly small, sometimes of several buffers.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..300),
        1 => prop::collection::vec(any::<u8>(), 3000..8800),
    ]
}

fn ipv4(destination: Ipv4Addr) -> impl Strategy<Value = Vec<u8>> {
    let fields = (any::<u8>(), any::<u16>(), any::<u16>(), any::<u8>(), any::<u8>());
    (fields, prop::collection::vec(any::<[u8; 4]>(), 0..=10), payload()).prop_map(
        move |((tos, id, fragment, ttl, protocol), options, payload)| {
            let options = options.concat();
            let ip = Ipv4::new(RED_IP, destination, protocol);
            Ipv4 { tos, id, fragment, ttl, options, ..ip }.encode(&payload)
        },
    )
}

/// Any frame from red to what is behind a tunnel.
fn frame(destination: Ipv4Addr) -> impl Strategy<Value = Vec<u8>> {
    let datagram = (unicast(), unicast(), tags(), ipv4(destination), 0..40_usize).prop_map(
        |(to, from, tags, packet, padding)| {
            let ethernet = Ethernet { tags, ..Ethernet::new(to, from, TYPE_IPV4) };
            [ethernet.encode(&packet), vec![0; padding]].concat()
        },
    );
    let resolution = (any::<bool>(), any::<bool>(), unicast(), tags()).prop_map(
        move |(is_request, is_probe, from, tags)| {
            let operation = if is_request { ArpOperation::Request } else { ArpOperation::Reply };
            let sender = if is_probe { Ipv4Addr::UNSPECIFIED } else { RED_IP };
            let to = if is_request { BROADCAST } else { FAR_MAC };
            let ethernet = Ethernet { tags, ..Ethernet::new(to, from, TYPE_ARP) };
            ethernet.encode(&arp(operation, (from, sender), ([0; 6], destination)))
        },
    );
    prop_oneof![4 => datagram, 1 => resolution]
}

#[test]
fn what_goes_in_comes_out() {
    let Some(lab) = Lab::new("roundtrip::what_goes_in_comes_out") else { return };
    let any_frame =
        prop::sample::select(vec![GENEVE, VXLAN, VLAN]).prop_flat_map(|id| (Just(id), frame(behind(id))));
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let result = runner.run(&any_frame, |(id, frame)| {
        let there = lab.node.run(Program::Encap, lab.red, &frame);
        prop_assert_eq!(there.action, REDIRECT, "encapsulated");
        let back = lab.node.run(Program::Decap, lab.far, &there.frame);
        prop_assert_eq!(back.action, REDIRECT, "decapsulated");
        let is_group = frame[0] & 1 != 0;
        prop_assert_eq!(&back.frame[..6], if is_group { &BROADCAST } else { &FAR_MAC });
        prop_assert_eq!(&back.frame[6..], &frame[6..], "tunnel {}", id);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}\nin {}", lab.node.plane.pin_dir().display());
    }
}
