//! Any tunnel that a file can have: each protocol, with what goes with it.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{lens, mac, nowhere, own_nets, segment};
use crate::config::model::{Df, FlowLabel, GeneveOption, Name, Payload, Pcp, SourcePort, Tos, Ttl, Tunnel};
use crate::protocol::{HasId, Protocol};

fn src_port() -> impl Strategy<Value = SourcePort> {
    prop_oneof![
        Just(SourcePort::Flow),
        (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| SourcePort::from_range(a.min(b), a.max(b)))
    ]
}

fn ttl() -> impl Strategy<Value = Ttl> {
    prop_oneof![Just(Ttl::Inherit), (1..=u8::MAX).prop_map(Ttl::Fixed)]
}

fn tos() -> impl Strategy<Value = Tos> {
    prop_oneof![Just(Tos::Inherit), (0..64_u8).prop_map(|dscp| Tos::Fixed(dscp << 2))]
}

fn df() -> impl Strategy<Value = Df> {
    prop::sample::select(vec![Df::Set, Df::Unset, Df::Inherit])
}

fn flow_label() -> impl Strategy<Value = FlowLabel> {
    let fixed = (0..=0xf_ffff_u32).prop_map(FlowLabel::Fixed);
    prop_oneof![Just(FlowLabel::Flow), Just(FlowLabel::Inherit), fixed]
}

fn pcp() -> impl Strategy<Value = Pcp> {
    prop_oneof![Just(Pcp::Inherit), (0..8_u8).prop_map(Pcp::Fixed)]
}

/// Four of at most 7 words: within all limits.
fn options() -> impl Strategy<Value = Vec<GeneveOption>> {
    let data = prop::collection::vec(any::<[u8; 4]>(), 0..7).prop_map(|words| words.concat());
    let option = (any::<u16>(), any::<u8>(), data);
    prop::collection::vec(option.prop_map(|(class, kind, data)| GeneveOption { class, kind, data }), 0..5)
}

/// As the protocol has it; of tunnels without, there is one for each number.
fn id(protocol: Protocol, number: usize) -> Option<u32> {
    match protocol.has_id() {
        HasId::Never => None,
        HasId::Optional if number == 1 => None,
        _ => u32::try_from(number + 1).ok(),
    }
}

pub(super) fn tunnel(number: usize) -> impl Strategy<Value = (Name, Tunnel)> {
    let identity =
        (prop::sample::select(Protocol::ALL.to_vec()), segment(), lens(), prop::option::of(lens()));
    let outer = (prop::option::of(any::<u8>()), any::<bool>(), src_port(), ttl(), tos(), df(), flow_label());
    let macs = prop::array::uniform3(prop::option::of(mac()));
    let own = (pcp(), prop::option::of(any::<u16>()), options(), prop::option::of(0..64_u8), 0..2_u8);
    let rest = (prop::option::of(68..=65535_u32), any::<[bool; 10]>());
    (identity, outer, macs, own, rest).prop_map(move |(identity, outer, macs, own, rest)| {
        let (protocol, segment, inner, from) = identity;
        let (local, is_ipv6, src_port, ttl, tos, df, flow_label) = outer;
        let [local_mac, remote_mac, inner_mac] = macs;
        let (pcp, gbp, options, qfi, variant) = own;
        let (
            mtu,
            [
                udp_checksum,
                checksum,
                sequence,
                uplink,
                mss_clamp,
                flood,
                redirect,
                debug,
                has_local_id,
                is_ip,
            ],
        ) = rest;
        let (has_ip, has_udp) = (protocol.has_outer_ip(), protocol.has_udp());
        let is_gre = matches!(protocol, Protocol::Gre | Protocol::Gretap);
        let is_tag = !has_ip;
        let payload = match protocol {
            Protocol::Geneve if is_ip => Payload::Ip,
            _ => protocol.payload(),
        };
        let is_ethernet = payload == Payload::Ethernet;
        let id = id(protocol, number);
        let ip = |site: u8, host: u8| -> IpAddr {
            let text =
                if is_ipv6 { format!("2001:db8:{site}::{host:x}") } else { format!("192.0.{site}.{host}") };
            text.parse().unwrap()
        };
        let tunnel = Tunnel {
            at: nowhere(),
            protocol,
            id,
            local_id: id.filter(|_| has_local_id && protocol.has_local_id()).map(|id| id + 100),
            service_id: (protocol == Protocol::Qinq).then_some(4094),
            payload,
            segment,
            underlay: "underlay".into(),
            // One of its own: not all protocols have an id.
            remote: has_ip.then(|| ip(2, u8::try_from(number + 1).unwrap())),
            local: local.filter(|_| has_ip).map(|host| ip(3, host)),
            local_mac,
            remote_mac,
            inner: own_nets(1000 + number, &inner),
            // Those of all workloads: the first has them.
            from: from.as_ref().map_or(Vec::new(), |lens| own_nets(0, lens)),
            src_port: if has_udp { src_port } else { SourcePort::Flow },
            // One for each protocol.
            dst_port: if has_udp { 1000 + protocol as u16 } else { 0 },
            ttl: if has_ip { ttl } else { Ttl::default() },
            tos: if has_ip { tos } else { Tos::default() },
            df: if has_ip && !is_ipv6 { df } else { Df::default() },
            flow_label: if has_ip && is_ipv6 { flow_label } else { FlowLabel::default() },
            udp_checksum: has_udp.then_some(udp_checksum),
            pcp: if is_tag { pcp } else { Pcp::default() },
            gbp: gbp.filter(|_| protocol == Protocol::Vxlan),
            options: if protocol == Protocol::Geneve { options } else { Vec::new() },
            checksum: is_gre && checksum,
            sequence: is_gre && sequence,
            variant: if protocol == Protocol::Gue { variant } else { 0 },
            qfi: qfi.filter(|_| protocol == Protocol::Gtpu),
            uplink: protocol == Protocol::Gtpu && qfi.is_some() && uplink,
            inner_mac: inner_mac.filter(|_| is_ethernet),
            mtu,
            mss_clamp,
            flood: is_ethernet && flood && from.is_none(),
            redirect: redirect || !has_ip,
            debug,
        };
        let odd = ["", ".", "\"", "ü", "\\"][number % 5];
        (Name::from(format!("tunnel{number}{odd}")), tunnel)
    })
}
