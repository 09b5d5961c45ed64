//! Frames of all sizes through every protocol, from where they just fit into one buffer to where they take several.

use std::net::IpAddr;

use mptm::kernel::Program;

use crate::common::frame::{Ethernet, Ipv4, Ipv6, TYPE_IPV4, TYPE_IPV6, UDP, udp, udp_with_checksum};
use crate::lab::*;
use crate::wide::behind6;

const SIZES: [usize; 12] = [29, 100, 1499, 1500, 3300, 3391, 3460, 3500, 3700, 4096, 8001, 9000];
const PADDINGS: [usize; 4] = [0, 1, 900, 6000];

/// An IP packet of this size, with a checksum or without, in a frame with padding.
fn frame(source: IpAddr, destination: IpAddr, size: usize, summed: bool, padding: usize) -> Vec<u8> {
    let header = if source.is_ipv6() { 40 } else { 20 };
    let payload: Vec<u8> = (0..size.saturating_sub(header + 8)).map(|at| (at * 7) as u8).collect();
    let segment =
        if summed { udp_with_checksum((source, 1), (destination, 2), &payload) } else { udp(1, 2, &payload) };
    let mac = |ethertype| Ethernet::new(FAR_MAC, RED_MAC, ethertype);
    let mut frame = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            mac(TYPE_IPV4).encode(&Ipv4::new(source, destination, UDP).encode(&segment))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            mac(TYPE_IPV6).encode(&Ipv6::new(source, destination, UDP).encode(&segment))
        }
        _ => unreachable!("one family"),
    };
    frame.resize(frame.len() + padding, 0xee);
    frame
}

/// From red to what is behind a tunnel.
fn ways(id: u8) -> [(IpAddr, IpAddr); 2] {
    [(RED_IP.into(), behind(id).into()), (RED_IP6.into(), behind6(id).into())]
}

/// With outer checksums, which have to go over all of it where the inner one does not help.
#[test]
fn leaving_frames() {
    let Some(mut lab) = Lab::new("sizes::leaving_frames") else { return };
    lab.change_tunnels(|tunnel| tunnel.udp_checksum = true);
    for id in lab.wide.clone() {
        let carries_ip = lab.tunnel(id).kind.carries_ip();
        for (source, destination) in ways(id) {
            for size in SIZES {
                for padding in PADDINGS {
                    // What pads a packet is not part of it, but what pads a frame is carried with it.
                    if !carries_ip && size + padding > 9000 {
                        continue;
                    }
                    let sent = frame(source, destination, size, padding % 2 == 0, padding);
                    let outcome = lab.node.world.judge(Program::Encap, lab.red, &sent);
                    assert!(outcome.is_sent(), "{outcome:?}");
                    let name = format!("tunnel {id}, {size} and {padding} bytes to {destination}");
                    lab.node.tally(&name, Program::Encap, lab.red, &sent, &outcome);
                }
            }
        }
    }
    lab.node.check_tally();
}

/// Padding is of the outer frame.
#[test]
fn arriving_frames() {
    let Some(mut lab) = Lab::new("sizes::arriving_frames") else { return };
    lab.change_tunnels(|tunnel| tunnel.udp_checksum = true);
    for id in lab.which(|tunnel| !tunnel.has_sequence()) {
        let tunnel = lab.tunnel(id);
        for (destination, source) in ways(id) {
            for size in SIZES {
                for padding in PADDINGS {
                    let inner = frame(source, destination, size, padding % 2 == 0, 0);
                    let mut outer = tunnel.arriving(&inner, 7);
                    outer.resize(outer.len() + padding, 0xee);
                    let outcome = lab.node.world.judge(Program::Decap, lab.underlay, &outer);
                    assert!(outcome.is_sent(), "{outcome:?}");
                    let name = format!("tunnel {id}, {size} and {padding} bytes to {destination}");
                    lab.node.tally(&name, Program::Decap, lab.underlay, &outer, &outcome);
                }
            }
        }
    }
    lab.node.check_tally();
}
