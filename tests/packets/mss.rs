//! The MSS of SYNs, lowered to what the tunnel has room for, in both directions.

use std::net::IpAddr;

use mptm::kernel::Program;

use crate::common::frame::{
    ACK, Ethernet, Extension, Ipv4, Ipv6, MORE_FRAGMENTS, RST, SYN, TCP, TYPE_IPV4, TYPE_IPV6, Tcp,
    fill_transport_checksum, mss_option, transport_checksum_is_right,
};
use crate::lab::*;
use crate::oracle::Outcome;
use crate::wide::behind6;
use crate::world::Tunnel;

const MTU: u32 = 1400;

/// A segment with its checksum, in a frame; the hop count is what a router leaves of 64.
fn frame(source: IpAddr, destination: IpAddr, tcp: &Tcp, hops: u8) -> Vec<u8> {
    let mut segment = tcp.encode(b"data");
    fill_transport_checksum(source, destination, TCP, &mut segment);
    assert!(transport_checksum_is_right(source, destination, TCP, &segment));
    let mac = |ethertype| Ethernet::new(FAR_MAC, RED_MAC, ethertype);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let ip = Ipv4 { ttl: 64 - hops, ..Ipv4::new(source, destination, TCP) };
            mac(TYPE_IPV4).encode(&ip.encode(&segment))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let ip = Ipv6 { hop_limit: 64 - hops, ..Ipv6::new(source, destination, TCP) };
            mac(TYPE_IPV6).encode(&ip.encode(&segment))
        }
        _ => unreachable!("one family"),
    }
}

fn with_options(flags: u8, options: &[&[u8]]) -> Tcp {
    let mut options = options.concat();
    options.resize(options.len().next_multiple_of(4), 0);
    Tcp { flags, options, ..Tcp::new(80, 50000) }
}

/// Options before, MSS, options behind; what it becomes.
fn cases(most: u16) -> Vec<(&'static str, Tcp, Option<Tcp>)> {
    let nops = [1; 3];
    let stamps = [8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
    let lowered = |name, flags, before: &[u8], own: u16, behind: &[u8]| {
        let of = |mss: u16| with_options(flags, &[before, &mss_option(mss), behind]);
        (name, of(own), Some(of(most)))
    };
    let kept = |name, tcp| (name, tcp, None);
    vec![
        lowered("first", SYN, &[], 1460, &[]),
        lowered("an answer", SYN | ACK, &[], 8960, &[4, 2]),
        lowered("at an odd place", SYN, &nops[..1], 1460, &[]),
        lowered("behind two", SYN, &nops[..2], 65535, &stamps),
        lowered("behind three", SYN, &nops, 1461, &[3, 3, 7]),
        lowered("behind another option", SYN, &stamps, 9000, &[]),
        lowered("behind an option of odd length", SYN, &[3, 3, 7], 9000, &[1, 1]),
        lowered("a byte too large", SYN, &[], most + 1, &[]),
        lowered("at the very end", SYN, &[&stamps[..], &stamps, &stamps, &nops, &nops].concat(), 9000, &[]),
        kept("just right", with_options(SYN, &[&mss_option(most)])),
        kept("smaller", with_options(SYN, &[&nops, &mss_option(536)])),
        kept("none", with_options(SYN, &[&stamps])),
        kept("no options", with_options(SYN, &[])),
        kept("no SYN", with_options(ACK, &[&mss_option(1460)])),
        kept("reset", with_options(RST, &[&mss_option(1460)])),
        kept("behind the end of the list", with_options(SYN, &[&[0], &mss_option(1460)])),
        kept("of another length", with_options(SYN, &[&[2, 5], &[0xff, 0xff, 0xff]])),
        kept("an option without length", with_options(SYN, &[&[8, 0], &mss_option(1460)])),
        kept("an option that is too long", with_options(SYN, &[&[8, 40], &mss_option(1460)])),
    ]
}

/// Tunnels of both payloads over both families, with a checksum where there is one.
fn tunnels(lab: &mut Lab, mss_clamp: bool) -> Vec<u8> {
    lab.change_tunnels(|tunnel| {
        (tunnel.mtu, tunnel.mss_clamp, tunnel.udp_checksum) = (MTU, mss_clamp, true);
    });
    lab.which(|tunnel: &Tunnel| !tunnel.has_sequence())
}

fn ways(id: u8) -> [(IpAddr, IpAddr, u16); 2] {
    let (mtu4, mtu6) = (MTU as u16 - 40, MTU as u16 - 60);
    [(RED_IP.into(), behind(id).into(), mtu4), (RED_IP6.into(), behind6(id).into(), mtu6)]
}

#[test]
fn out() {
    let Some(mut lab) = Lab::new("mss::out") else { return };
    for id in tunnels(&mut lab, true) {
        let routed = u8::from(lab.tunnel(id).kind.carries_ip());
        for (source, destination, most) in ways(id) {
            for (name, own, lowered) in cases(most) {
                let sent = frame(source, destination, &own, 0);
                let inner = frame(source, destination, &lowered.unwrap_or(own), routed);
                let outcome = Outcome::Encapsulated { tunnel: id.into(), inner };
                lab.node.tally_check(
                    &format!("{name}, tunnel {id}"),
                    Program::Encap,
                    lab.red,
                    &sent,
                    &outcome,
                );
            }
        }
    }
    lab.node.check_tally();
}

#[test]
fn back() {
    let Some(mut lab) = Lab::new("mss::back") else { return };
    for id in tunnels(&mut lab, true) {
        let tunnel = lab.tunnel(id);
        let routed = u8::from(tunnel.kind.carries_ip());
        for (destination, source, most) in ways(id) {
            for (name, own, lowered) in cases(most) {
                let mut out = frame(source, destination, &lowered.unwrap_or(own.clone()), routed);
                let arriving = tunnel.arriving(&frame(source, destination, &own, 0), 7);
                if tunnel.kind.is_tags() {
                    out[6..12].copy_from_slice(&arriving[6..12]);
                }
                out[..6].copy_from_slice(&RED_MAC);
                if routed == 1 {
                    out[6..12].copy_from_slice(&lab.own_mac(lab.red));
                }
                let outcome = Outcome::Decapsulated { tunnel: id.into(), slot: RED, frame: out };
                let name = format!("{name}, tunnel {id}");
                lab.node.tally_check(&name, Program::Decap, lab.underlay, &arriving, &outcome);
            }
        }
    }
    lab.node.check_tally();
}

/// Not where it is not asked for, not in later fragments, and a wrong checksum stays wrong.
#[test]
fn left_alone() {
    let Some(mut lab) = Lab::new("mss::left_alone") else { return };
    let id = tunnels(&mut lab, false)[4];
    for (source, destination, most) in ways(id) {
        for (name, own, _) in cases(most) {
            let sent = frame(source, destination, &own, 0);
            let outcome = Outcome::Encapsulated { tunnel: id.into(), inner: sent.clone() };
            lab.node.tally_check(name, Program::Encap, lab.red, &sent, &outcome);
        }
    }
    tunnels(&mut lab, true);
    let syn = with_options(SYN, &[&mss_option(9000)]).encode(&[]);
    let ip = Ipv4 { fragment: MORE_FRAGMENTS | 10, ..Ipv4::new(RED_IP, behind(id), TCP) };
    let later = leaving(TYPE_IPV4).encode(&ip.encode(&syn));
    let outcome = Outcome::Encapsulated { tunnel: id.into(), inner: later.clone() };
    lab.node.tally_check("a later fragment", Program::Encap, lab.red, &later, &outcome);
    lab.node.check_tally();
}

/// Behind extension headers, too.
#[test]
fn behind_extensions() {
    let Some(mut lab) = Lab::new("mss::behind_extensions") else { return };
    let id = tunnels(&mut lab, true)[4];
    let packet = |mss| {
        let mut segment = with_options(SYN, &[&[1], &mss_option(mss)]).encode(&[]);
        fill_transport_checksum(RED_IP6.into(), behind6(id).into(), TCP, &mut segment);
        let ip = Ipv6::new(RED_IP6, behind6(id), TCP).extension(Extension::DestinationOptions(vec![0; 12]));
        leaving(TYPE_IPV6).encode(&ip.encode(&segment))
    };
    let outcome = Outcome::Encapsulated { tunnel: id.into(), inner: packet(MTU as u16 - 60) };
    lab.node.check("behind extensions", Program::Encap, lab.red, &packet(9000), &outcome);
}
