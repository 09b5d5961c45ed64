//! `mptm monitor`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use anstream::eprintln;
use etherparse::icmpv6::{TYPE_NEIGHBOR_ADVERTISEMENT, TYPE_NEIGHBOR_SOLICITATION};
use etherparse::{ArpOperation, ArpPacketSlice, Icmpv6Slice, LaxNetSlice, LaxSlicedPacket, TransportSlice};

use super::error::warn;
use super::{CliError, Global, print};
use crate::counters::ACTIONS;
use crate::kernel::{Network as _, Program, abi};
use crate::reason::Reason;
use crate::store::Live;

pub fn run(global: &Global, count: Option<u64>) -> Result<ExitCode, CliError> {
    let kernel = global.kernel()?;
    let live = kernel.read_existing(&global.pin)?;
    kernel.net.let_go();
    if !live.state.tunnels.values().any(|tunnel| tunnel.debug) {
        warn("no tunnel has debug = true, so there is nothing to see until one has");
    }
    eprintln!(
        "SECONDS PROGRAM TUNNEL VERDICT LENGTH FRAME (sent frames with their outer header, received ones, too)"
    );
    let mut left = count;
    if left == Some(0) {
        return Ok(ExitCode::SUCCESS);
    }
    let mut printed = Ok(());
    kernel.bpf.watch_events(|event| {
        printed = print(&format!("{}\n", line(event, &live)));
        left = left.map(|left| left - 1);
        printed.is_ok() && left != Some(0)
    })?;
    printed.map(|()| ExitCode::SUCCESS)
}

fn line(event: &abi::Event, live: &Live) -> String {
    let tunnel =
        live.ids.tunnels.name(event.tunnel).map_or_else(|| format!("#{}", event.tunnel), ToString::to_string);
    let program = Program::ALL.get(usize::from(event.program)).map_or("?", |program| program.name());
    let verdict = match Reason::ALL.iter().find(|reason| **reason as u32 == u32::from(event.reason)) {
        Some(reason) if reason.passes() => format!("pass:{reason}"),
        Some(reason) => format!("drop:{reason}"),
        None => ACTIONS.get(usize::from(event.action)).unwrap_or(&"?").to_string(),
    };
    let captured = &event.data[..usize::from(event.captured).min(event.data.len())];
    let time = event.time as f64 / 1e9;
    format!("{time:.6} {program} {tunnel} {verdict} {} {}", event.length, frame(captured))
}

/// A frame in a few words: its network addresses, and its ports.
fn frame(bytes: &[u8]) -> String {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(bytes) else {
        return "no Ethernet frame".into();
    };
    let (source, destination, protocol) = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            (
                header.source_addr().to_string(),
                header.destination_addr().to_string(),
                header.protocol().keyword_str().unwrap_or("?").to_lowercase(),
            )
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (
                header.source_addr().to_string(),
                header.destination_addr().to_string(),
                // Behind the extension headers.
                ip.payload().ip_number.keyword_str().unwrap_or("?").to_lowercase(),
            )
        }
        Some(LaxNetSlice::Arp(arp)) => return arp_words(arp),
        None => return "neither IP nor ARP".into(),
    };
    let ports = match &packet.transport {
        Some(TransportSlice::Icmpv6(icmp)) => {
            let words = neighbour_words(icmp).unwrap_or(protocol);
            return format!("{source} > {destination} {words}");
        }
        Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
        Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
        _ => None,
    };
    match ports {
        Some((from, to)) if source.contains(':') => {
            format!("[{source}]:{from} > [{destination}]:{to} {protocol}")
        }
        Some((from, to)) => format!("{source}:{from} > {destination}:{to} {protocol}"),
        None => format!("{source} > {destination} {protocol}"),
    }
}

fn arp_words(arp: &ArpPacketSlice<'_>) -> String {
    let ipv4 = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).map(|octets| Ipv4Addr::from(octets).to_string());
    let (sender, target) = (ipv4(arp.sender_protocol_addr()), ipv4(arp.target_protocol_addr()));
    match (arp.operation(), sender, target) {
        (ArpOperation::REQUEST, Ok(sender), Ok(target)) => format!("{sender} > {target} arp request"),
        (ArpOperation::REPLY, Ok(sender), Ok(target)) => format!("{sender} > {target} arp reply"),
        (operation, ..) => format!("arp operation {}", operation.0),
    }
}

/// Whom a neighbour solicitation asks for, or whom an advertisement is of (RFC 4861, 4.3 and 4.4).
fn neighbour_words(icmp: &Icmpv6Slice<'_>) -> Option<String> {
    let words = match icmp.type_u8() {
        TYPE_NEIGHBOR_SOLICITATION => "neighbour solicitation for",
        TYPE_NEIGHBOR_ADVERTISEMENT => "neighbour advertisement of",
        _ => return None,
    };
    let target: [u8; 16] = *icmp.payload().first_chunk()?;
    Some(format!("{words} {}", Ipv6Addr::from(target)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0];
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend([next_header, 255]);
        for last in [1, 2] {
            frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        frame.extend(payload);
        frame
    }

    #[test]
    fn frames_in_a_few_words() {
        let mut solicitation = vec![135, 0, 0, 0, 0, 0, 0, 0];
        solicitation.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!(frame(&ipv6(58, &solicitation)), "fd00::1 > fd00::2 neighbour solicitation for fd00::9");
        solicitation[0] = 136;
        assert_eq!(frame(&ipv6(58, &solicitation)), "fd00::1 > fd00::2 neighbour advertisement of fd00::9");
        solicitation.truncate(20);
        assert_eq!(frame(&ipv6(58, &solicitation)), "fd00::1 > fd00::2 ipv6-icmp");
        assert_eq!(frame(&ipv6(47, &[0, 0, 0x65, 0x58])), "fd00::1 > fd00::2 gre");
        assert_eq!(frame(&ipv6(17, &[0, 7, 0, 9, 0, 8, 0, 0])), "[fd00::1]:7 > [fd00::2]:9 udp");
        // A destination-options header with padding, as Linux's ip6gre writes one.
        assert_eq!(frame(&ipv6(60, &[47, 0, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0])), "fd00::1 > fd00::2 gre");
        let mut arp = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
        arp.extend([2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
        assert_eq!(frame(&arp), "10.0.0.1 > 10.0.0.2 arp request");
    }
}
