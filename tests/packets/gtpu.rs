//! GTP-U: echo requests, messages that are not for tunnels, and extension headers.

use std::net::{IpAddr, Ipv6Addr};

use mptm::kernel::Program;
use mptm::reason::Reason;

use crate::common::frame::{
    Ethernet, Gtpu, GtpuMessage, Ipv4, Ipv6, Mac, TYPE_IPV4, TYPE_IPV6, UDP, udp, udp_with_checksum,
};
use crate::lab::*;
use crate::oracle::Outcome;
use crate::patched::{damaged, patched};
use crate::world::{Kind, Tunnel};

fn tunnels(lab: &Lab) -> Vec<Tunnel> {
    let ids = lab.which(|tunnel| matches!(tunnel.kind, Kind::Gtpu { .. }));
    ids.into_iter().map(|id| lab.tunnel(id)).collect()
}

/// From one end to the other, in an outer header without surprises.
fn packet(from: (Mac, IpAddr), to: (Mac, IpAddr), segment: &[u8]) -> Vec<u8> {
    match (from.1, to.1) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Ethernet::new(to.0, from.0, TYPE_IPV4)
            .encode(&Ipv4 { id: 0x1234, ..Ipv4::new(source, destination, UDP) }.encode(segment)),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Ethernet::new(to.0, from.0, TYPE_IPV6)
            .encode(&Ipv6::new(source, destination, UDP).encode(segment)),
        _ => unreachable!("one family"),
    }
}

fn echo(message: GtpuMessage, sequence: Option<u16>) -> Gtpu {
    Gtpu { message, sequence, ..Gtpu::new(0) }
}

/// A response: sequence number and recovery element (3GPP TS 29.281, 7.2.2).
fn response(tunnel: &Tunnel, port: u16, sequence: u16) -> Vec<u8> {
    let message = echo(GtpuMessage::EchoResponse, Some(sequence)).encode(&[14, 0]);
    let (local, remote) = (tunnel.local.1, tunnel.remote.1);
    packet(tunnel.local, tunnel.remote, &udp_with_checksum((local, 2152), (remote, port), &message))
}

#[test]
fn echo_requests_are_answered() {
    let Some(mut lab) = Lab::new("gtpu::echo_requests_are_answered") else { return };
    let underlay = lab.underlay;
    for tunnel in tunnels(&lab) {
        let (local, remote) = (tunnel.local.1, tunnel.remote.1);
        let plain = |message: &[u8]| packet(tunnel.remote, tunnel.local, &udp(777, 2152, message));
        let summed = |message: &[u8]| {
            packet(tunnel.remote, tunnel.local, &udp_with_checksum((remote, 777), (local, 2152), message))
        };
        let answered = |sequence| Outcome::Answer {
            slot: UNDERLAY,
            frame: response(&tunnel, 777, sequence),
            reason: None,
        };
        let request = echo(GtpuMessage::EchoRequest, Some(0xabcd)).encode(&[]);
        let mut check = |name: &str, frame: Vec<u8>, outcome: Outcome| {
            lab.node.check(
                &format!("{name}, tunnel {}", tunnel.id),
                Program::Decap,
                underlay,
                &frame,
                &outcome,
            );
        };
        check("with checksum", summed(&request), answered(0xabcd));
        check("without", plain(&request), answered(0xabcd));
        check("padded", [plain(&request), vec![0; 30]].concat(), answered(0xabcd));
        check("without number", plain(&echo(GtpuMessage::EchoRequest, None).encode(&[])), answered(0));
        let private = echo(GtpuMessage::EchoRequest, Some(1)).encode(&[255, 0, 3, 1, 2, 3]);
        check("with a private extension", plain(&private), answered(1));
        let (ip, l4) = if tunnel.is_ipv6() { (14, 54) } else { (14, 34) };
        let wrong = |name, at, bytes: &[u8], reason| (name, damaged(&summed(&request), at, bytes), reason);
        for (name, frame, reason) in [
            wrong("wrong UDP checksum", l4 + 6, &[1, 2], Reason::OuterChecksum),
            wrong("UDP length", l4 + 4, &[0, 19], Reason::OuterLength),
            wrong("version 2", l4 + 8, &[0x52], Reason::TunnelVersion),
            wrong("GTP'", l4 + 8, &[0x22], Reason::TunnelVersion),
            wrong("its length", l4 + 10, &[0, 5], Reason::TunnelLength),
        ] {
            check(name, frame, Outcome::Drop(reason));
        }
        // The sequence number that the flags promise is in the padding.
        let mut short = plain(&echo(GtpuMessage::EchoRequest, None).encode(&[]));
        short[l4 + 8] |= 2;
        check(
            "a number that is not there",
            [short, vec![0; 20]].concat(),
            Outcome::Drop(Reason::TunnelLength),
        );
        if !tunnel.is_ipv6() {
            let frame = damaged(&plain(&request), ip + 10, &[1, 2]);
            check("wrong header checksum", frame, Outcome::Drop(Reason::OuterChecksum));
        }
        check("truncated", plain(&request)[..l4 + 19].to_vec(), Outcome::Drop(Reason::OuterLength));
        let oam = Outcome::Leave(Reason::Oam);
        for message in [GtpuMessage::EchoResponse, GtpuMessage::ErrorIndication, GtpuMessage::EndMarker] {
            check(&format!("{message:?}"), plain(&echo(message, Some(1)).encode(&[14, 0])), oam.clone());
        }
        let own = tunnel.received.or(tunnel.network).expect("a TEID");
        let end = Gtpu { message: GtpuMessage::EndMarker, ..Gtpu::new(own) }.encode(&[]);
        check("end marker of a tunnel", plain(&end), oam.clone());
        let stranger =
            ([2; 6], if tunnel.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { [9, 9, 9, 9].into() });
        let frame = packet(stranger, tunnel.local, &udp(777, 2152, &request));
        check("of nobody we know", frame, oam);
        let other = Gtpu::new(own ^ 0x5555).encode(&[0x45; 40]);
        check("another tunnel's packet", plain(&other), Outcome::Leave(Reason::Stray));
    }
}

/// An inner packet behind any headers that TS 29.281, 5.2.1 lets a receiver skip, and those that it must understand.
#[test]
fn extension_headers() {
    let Some(mut lab) = Lab::new("gtpu::extension_headers") else { return };
    let underlay = lab.underlay;
    for tunnel in tunnels(&lab) {
        let id = tunnel.id as u8;
        let inner = Ipv4::new(behind(id), RED_IP, UDP).encode(&udp(1, 2, b"inner"));
        let out = Ipv4 { ttl: 63, ..Ipv4::new(behind(id), RED_IP, UDP) }.encode(&udp(1, 2, b"inner"));
        let frame = Ethernet::new(RED_MAC, lab.own_mac(lab.red), TYPE_IPV4).encode(&out);
        let delivered = Outcome::Decapsulated { tunnel: tunnel.id, slot: RED, frame };
        let ends = ((tunnel.remote.1, 40000), (tunnel.local.1, 2152));
        let arriving =
            |message: &[u8]| packet(tunnel.remote, tunnel.local, &udp_with_checksum(ends.0, ends.1, message));
        let start = Gtpu::new(tunnel.network.expect("a TEID"));
        let with = |kinds: &[(u8, usize)]| {
            let extensions = kinds.iter().map(|(kind, length)| (*kind, vec![7; *length])).collect();
            arriving(&Gtpu { extensions, ..start.clone() }.encode(&inner))
        };
        let mut check = |name: &str, frame: Vec<u8>, outcome: &Outcome| {
            lab.node.check(&format!("{name}, tunnel {id}"), Program::Decap, underlay, &frame, outcome);
        };
        check("none", arriving(&start.encode(&inner)), &delivered);
        let numbers = Gtpu { sequence: Some(1), n_pdu: Some(2), ..start.clone() };
        check("sequence and N-PDU number", arriving(&numbers.encode(&inner)), &delivered);
        let only = Gtpu { n_pdu: Some(2), ..start.clone() };
        check("N-PDU number", arriving(&only.encode(&inner)), &delivered);
        check("PDU session", arriving(&start.clone().pdu_session(false, 63).encode(&inner)), &delivered);
        check("a longer one", with(&[(0x85, 10)]), &delivered);
        check("PDCP number", with(&[(0xc0, 2)]), &delivered);
        check("one that need not be understood", with(&[(0x20, 2)]), &delivered);
        check("four", with(&[(0x85, 2), (0x20, 6), (0xc0, 2), (0x40, 14)]), &delivered);
        let critical = Outcome::Drop(Reason::CriticalOption);
        check("one that must be understood", with(&[(0x81, 2)]), &critical);
        check("such a one behind others", with(&[(0x85, 2), (0x20, 2), (0xff, 2)]), &critical);
        let option = Outcome::Drop(Reason::TunnelOption);
        check("five", with(&[(0x20, 2); 5]), &option);
        // The first extension header's length is behind the three fields that the flag brings, and its own type.
        let at = tunnel.l4_offset() + 8 + 12;
        check("of length 0", patched(&with(&[(0x85, 2)]), at, &[0]), &option);
        check("beyond the packet", patched(&with(&[(0x85, 2)]), at, &[200]), &option);
        check(
            "right up to its end",
            patched(&with(&[(0x20, 2)]), at, &[9]),
            &Outcome::Drop(Reason::TunnelOption),
        );
    }
}
