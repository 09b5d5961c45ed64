//! What tunnels with `debug = true` tell.

use std::cell::RefCell;

use libbpf_rs::{MapHandle, RingBufferBuilder};
use mptm::kernel::abi::{Event, SNAP};
use mptm::kernel::{DataPlane, Map, Program};
use mptm::reason::Reason;
use zerocopy::FromBytes;

use crate::common::frame::{Ipv4, TYPE_IPV4, UDP, udp};
use crate::lab::*;
use crate::node::{DROP, REDIRECT};
use crate::patched::patched;

/// The events since the last call.
fn events(lab: &Lab) -> Vec<Event> {
    let map =
        MapHandle::from_pinned_path(lab.node.plane.pin_dir().join("maps").join(Map::Events.name())).unwrap();
    let all = RefCell::new(Vec::new());
    let mut builder = RingBufferBuilder::new();
    builder
        .add(&map, |bytes| {
            all.borrow_mut().push(Event::read_from_bytes(bytes).expect("a whole event"));
            0
        })
        .unwrap();
    builder.build().unwrap().consume().unwrap();
    all.into_inner()
}

#[test]
fn packets_of_a_debugged_tunnel() {
    let Some(lab) = Lab::new("events::packets_of_a_debugged_tunnel") else { return };
    let inner = |size| {
        let packet = Ipv4::new(behind(DEBUG), RED_IP, UDP).encode(&udp(1, 2, &vec![3; size]));
        leaving(TYPE_IPV4).encode(&packet)
    };
    let arriving = |size| lab.tunnel(DEBUG).arriving(&inner(size), 9);
    let mut versioned = arriving(10);
    versioned[42] = 0x40;
    let congested = patched(&arriving(10), 15, &[3]);
    for (name, program, ifindex, frame, action, reason) in [
        ("out", Program::Encap, lab.red, datagram(RED_IP, behind(DEBUG), 10), REDIRECT, None),
        ("out, jumbo", Program::Encap, lab.red, datagram(RED_IP, behind(DEBUG), 8000), REDIRECT, None),
        (
            "too big",
            Program::Encap,
            lab.red,
            datagram(RED_IP, behind(DEBUG), 9000),
            REDIRECT,
            Some(Reason::TooBigNoDf),
        ),
        ("in", Program::Decap, lab.underlay, arriving(10), REDIRECT, None),
        ("in, jumbo", Program::Decap, lab.underlay, arriving(8000), REDIRECT, None),
        // Found out after all else.
        ("congested", Program::Decap, lab.underlay, congested, DROP, Some(Reason::Ecn)),
        ("wrong version", Program::Decap, lab.underlay, versioned, DROP, Some(Reason::TunnelVersion)),
    ] {
        let run = lab.node.run(program, ifindex, &frame);
        assert_eq!(run.action, action, "{name}");
        // Of what leaves, the outer frame as it leaves; of what arrives, the outer frame as it came.
        let seen = if program == Program::Encap { &run.frame } else { &frame };
        let told = events(&lab);
        assert_eq!(told.len(), 1, "{name}");
        let event = &told[0];
        assert_eq!((event.tunnel, event.ifindex), (DEBUG.into(), ifindex), "{name}");
        assert_eq!((event.program, event.action), (program as u16, action as u16), "{name}");
        assert_eq!(event.reason, reason.map_or(0, |reason| reason as u16), "{name}");
        assert_eq!(event.length as usize, seen.len(), "{name}");
        let captured = seen.len().min(SNAP);
        assert_eq!(usize::from(event.captured), captured, "{name}");
        assert_eq!(event.data[..captured], seen[..captured], "{name}");
        assert!(event.time > 0, "{name}");
    }
    lab.node.run(Program::Encap, lab.red, &datagram(RED_IP, behind(GENEVE), 10));
    lab.node.run(Program::Encap, lab.red, &datagram(RED_IP, GREEN_IP, 10));
    assert!(events(&lab).is_empty(), "other packets tell nothing");
}
