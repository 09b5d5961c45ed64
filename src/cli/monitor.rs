//! `mptm monitor`.

use std::process::ExitCode;

use anstream::eprintln;
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

use super::error::warn;
use super::{CliError, Global, print};
use crate::counters::ACTIONS;
use crate::kernel::{Program, abi};
use crate::reason::Reason;
use crate::store::Live;

pub fn run(global: &Global, count: Option<u64>) -> Result<ExitCode, CliError> {
    let kernel = global.kernel()?;
    let live = kernel.read_existing(&global.pin)?;
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
                header.next_header().keyword_str().unwrap_or("?").to_lowercase(),
            )
        }
        Some(LaxNetSlice::Arp(arp)) => return format!("arp operation {}", arp.operation().0),
        None => return "neither IP nor ARP".into(),
    };
    let ports = match &packet.transport {
        Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
        Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
        _ => None,
    };
    match ports {
        Some((from, to)) => format!("{source}:{from} > {destination}:{to} {protocol}"),
        None => format!("{source} > {destination} {protocol}"),
    }
}
