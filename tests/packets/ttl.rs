//! Hops: what is routed has one less, and what has none left goes nowhere.

use std::net::IpAddr;

use mptm::kernel::Program;
use mptm::reason::Reason;

use crate::common::frame::{Ethernet, Ipv4, Ipv6, Mac, TYPE_IPV4, TYPE_IPV6, UDP, checksum, udp};
use crate::lab::*;
use crate::oracle::Outcome;
use crate::samples::solicitation;
use crate::wide::behind6;

fn frame(to: Mac, source: IpAddr, destination: IpAddr, ttl: u8) -> Vec<u8> {
    let payload = udp(1, 2, b"hops");
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let packet = Ipv4 { ttl, ..Ipv4::new(source, destination, UDP) }.encode(&payload);
            Ethernet::new(to, RED_MAC, TYPE_IPV4).encode(&packet)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let packet = Ipv6 { hop_limit: ttl, ..Ipv6::new(source, destination, UDP) }.encode(&payload);
            Ethernet::new(to, RED_MAC, TYPE_IPV6).encode(&packet)
        }
        _ => unreachable!("one family"),
    }
}

/// From red to what is behind a tunnel, in both families.
fn ways(id: u8) -> [(IpAddr, IpAddr); 2] {
    [(RED_IP.into(), behind(id).into()), (RED_IP6.into(), behind6(id).into())]
}

/// IP payloads are routed; so is a frame that is addressed to the interface that it came in by.
#[test]
fn into_tunnels() {
    let Some(mut lab) = Lab::new("ttl::into_tunnels") else { return };
    let (red, own) = (lab.red, lab.own_mac(lab.red));
    for id in lab.wide.clone() {
        let carries_ip = lab.tunnel(id).kind.carries_ip();
        for (source, destination) in ways(id) {
            for to in [FAR_MAC, own] {
                let is_routed = carries_ip || to == own;
                for ttl in [0, 1, 2, 64, 255] {
                    let sent = frame(to, source, destination, ttl);
                    let outcome = if is_routed && ttl < 2 {
                        Outcome::Drop(Reason::Ttl)
                    } else {
                        let inner = frame(to, source, destination, if is_routed { ttl - 1 } else { ttl });
                        Outcome::Encapsulated { tunnel: id.into(), inner }
                    };
                    let name = format!("tunnel {id}, {destination}, TTL {ttl}, routed: {is_routed}");
                    lab.node.check(&name, Program::Encap, red, &sent, &outcome);
                }
            }
        }
        if !carries_ip {
            // Neighbour discovery is never routed, whoever it is addressed to.
            let mut question = solicitation(RED_IP6, behind6(id));
            question[..6].copy_from_slice(&own);
            let outcome = Outcome::Encapsulated { tunnel: id.into(), inner: question.clone() };
            lab.node.check("a solicitation", Program::Encap, red, &question, &outcome);
        }
    }
}

#[test]
fn out_of_tunnels() {
    let Some(mut lab) = Lab::new("ttl::out_of_tunnels") else { return };
    let (underlay, own) = (lab.underlay, lab.own_mac(lab.red));
    for id in lab.which(|tunnel| !tunnel.has_sequence() && !tunnel.kind.is_tags()) {
        let tunnel = lab.tunnel(id);
        let carries_ip = tunnel.kind.carries_ip();
        for (destination, source) in ways(id) {
            for ttl in [0, 1, 2, 64, 255] {
                let arriving = tunnel.arriving(&frame(FAR_MAC, source, destination, ttl), 7);
                let outcome = if carries_ip && ttl < 2 {
                    Outcome::Drop(Reason::Ttl)
                } else {
                    let mut frame =
                        frame(RED_MAC, source, destination, if carries_ip { ttl - 1 } else { ttl });
                    if carries_ip {
                        frame[6..12].copy_from_slice(&own);
                    }
                    Outcome::Decapsulated { tunnel: id.into(), slot: RED, frame }
                };
                let name = format!("tunnel {id}, {destination}, TTL {ttl}");
                lab.node.check(&name, Program::Decap, underlay, &arriving, &outcome);
            }
        }
    }
}

#[test]
fn between_workloads() {
    let Some(mut lab) = Lab::new("ttl::between_workloads") else { return };
    let (red, own) = (lab.red, lab.own_mac(lab.red));
    for (source, destination) in [(RED_IP.into(), GREEN_IP.into()), (RED_IP6.into(), GREEN_IP6.into())] {
        for to in [FAR_MAC, own] {
            for ttl in [1, 2, 255] {
                let outcome = if to == own && ttl == 1 {
                    Outcome::Drop(Reason::Ttl)
                } else {
                    let ttl = if to == own { ttl - 1 } else { ttl };
                    Outcome::Forward { slot: GREEN, frame: frame(GREEN_MAC, source, destination, ttl) }
                };
                let sent = frame(to, source, destination, ttl);
                lab.node.check(&format!("{destination}, TTL {ttl}"), Program::Encap, red, &sent, &outcome);
            }
        }
    }
}

/// A packet's own TTL is the outer one's, and who has none gets 64.
#[test]
fn inherited() {
    let Some(mut lab) = Lab::new("ttl::inherited") else { return };
    lab.change_tunnels(|tunnel| tunnel.ttl = None);
    for id in lab.which(|tunnel| !tunnel.kind.is_tags()) {
        let tunnel = lab.tunnel(id);
        let routed = u8::from(tunnel.kind.carries_ip());
        for (source, destination) in ways(id) {
            for ttl in [2, 64, 255] {
                let sent = frame(FAR_MAC, source, destination, ttl);
                let outer = lab.node.run(Program::Encap, lab.red, &sent).frame;
                let outer_ttl = if tunnel.is_ipv6() { outer[21] } else { outer[22] };
                assert_eq!(outer_ttl, ttl - routed, "tunnel {id}, {destination}");
                assert!(tunnel.is_ipv6() || checksum(&outer[14..34]) == 0, "tunnel {id}, {destination}");
            }
        }
    }
    for id in lab.which(|tunnel| !tunnel.kind.is_tags() && !tunnel.kind.carries_ip()) {
        let arp = &crate::samples::resolution(id)[0];
        let outer = lab.node.run(Program::Encap, lab.red, arp).frame;
        assert_eq!(if lab.tunnel(id).is_ipv6() { outer[21] } else { outer[22] }, 64);
    }
}
