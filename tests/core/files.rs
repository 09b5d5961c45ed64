//! Files of any kind that are right, for properties.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use mptm::config::model::Payload;
use mptm::protocol::{HasId, Protocol};
use proptest::prelude::*;
use proptest::sample::{self, subsequence};

use crate::scene::WORKLOADS;

#[derive(Debug, Clone)]
struct Workload {
    segment: u8,
    addresses: u8,
    peer: u8,
    generic: bool,
    mac: bool,
    manage: Option<Vec<&'static str>>,
    gateway: u8,
}

#[derive(Debug, Clone)]
struct Tunnel {
    protocol: Protocol,
    ipv6: bool,
    segment: u8,
    underlay: u8,
    host: u8,
    inner: Vec<u8>,
    from: Option<(u8, usize)>,
    keys: Vec<u8>,
}

/// A valid file, as a text.
pub fn file() -> impl Strategy<Value = String> {
    let manage = subsequence(vec!["offloads", "mtu", "promisc", "sysctls"], 0..=4);
    let workload =
        (0..2_u8, 0..5_u8, 0..3_u8, any::<bool>(), any::<bool>(), prop::option::of(manage), 0..3_u8)
            .prop_map(|(segment, addresses, peer, generic, mac, manage, gateway)| Workload {
                segment,
                addresses,
                peer,
                generic,
                mac,
                manage,
                gateway,
            });
    let tunnel = (
        (sample::select(&Protocol::ALL), any::<bool>()),
        0..2_u8,
        0..2_u8,
        prop_oneof![10..20_u8, Just(99)],
        subsequence(vec![0, 1, 2, 3, 4, 5], 1..=4),
        prop::option::of((0..5_u8, 0..WORKLOADS)),
        subsequence((0..30).collect::<Vec<u8>>(), 0..=12),
    )
        .prop_map(|((protocol, ipv6), segment, underlay, host, inner, from, keys)| Tunnel {
            protocol,
            ipv6,
            segment,
            underlay,
            host,
            inner,
            from,
            keys,
        });
    let some = |strategy| prop::option::weighted(0.7, strategy);
    (
        prop::collection::vec(some(workload.boxed()), WORKLOADS),
        prop::collection::vec(prop::option::weighted(0.7, tunnel), 6),
        0..4_u8,
    )
        .prop_map(|(workloads, tunnels, ports)| text(&workloads, &tunnels, ports))
}

fn text(workloads: &[Option<Workload>], tunnels: &[Option<Tunnel>], ports: u8) -> String {
    let mut text = String::new();
    let used: BTreeSet<u8> = tunnels.iter().flatten().map(|tunnel| tunnel.underlay).collect();
    for underlay in used {
        let _ = writeln!(text, "[interface.u{underlay}]\nrole = 'underlay'");
    }
    for (i, workload) in workloads.iter().enumerate() {
        let Some(Workload { segment, addresses, peer, generic, mac, manage, gateway }) = workload else {
            continue;
        };
        let _ = writeln!(text, "[interface.w{i}]\nrole = 'workload'\nsegment = 's{segment}'");
        let addresses = match addresses {
            0 if *peer != 2 => "'peer'".to_owned(),
            1 => format!("['10.250.{i}.100', '10.250.{i}.128/25']"),
            2 => format!("['10.250.{i}.0/24', '10.250.{i}.0/28', '10.251.{i}.1']"),
            4 => format!("['fd00:250:{i}::/64', 'fd00:250:{i}::100', '10.250.{i}.0/24']"),
            _ => format!("['10.250.{i}.0/24']"),
        };
        let _ = writeln!(text, "addresses = {addresses}");
        match gateway {
            1 => text.push_str("gateway = ['10.250.9.254', 'fd00:250:9::254']\n"),
            2 => {
                let _ = writeln!(text, "gateway = ['10.250.{i}.254', 'fd00:250:9::254']");
            }
            _ => {}
        }
        match peer {
            1 => drop(writeln!(text, "peer = {{ netns = 'ns{i}', name = 'c{i}' }}")),
            2 => text.push_str("peer = false\n"),
            _ => {}
        }
        if *generic {
            text.push_str("mode = 'generic'\n");
        }
        if *mac {
            let _ = writeln!(text, "mac = '02:00:00:00:05:0{i}'");
        }
        if let Some(manage) = manage {
            let _ = writeln!(text, "manage = {manage:?}");
        }
    }
    for (i, tunnel) in tunnels.iter().enumerate() {
        if let Some(tunnel) = tunnel {
            tunnel_text(&mut text, i, tunnel, workloads);
        }
    }
    match ports {
        1 => text.push_str("[interface.p0]\nrole = 'pass'\n"),
        2 => text.push_str("[interface.p0]\nrole = 'redirect'\nto = 'p1'\n[interface.p1]\nrole = 'pass'\n"),
        3 => text.push_str(
            "[interface.p0]\nrole = 'redirect'\nto = 'p1'\n[interface.p1]\nrole = 'redirect'\nto = 'p0'\n",
        ),
        _ => {}
    }
    text
}

fn tunnel_text(text: &mut String, i: usize, tunnel: &Tunnel, workloads: &[Option<Workload>]) {
    let Tunnel { protocol, ipv6, segment, underlay, host, inner, from, keys } = tunnel;
    let (has_ip, has_udp) = (protocol.has_outer_ip(), protocol.has_udp());
    let _ = writeln!(
        text,
        "[tunnel.t{i}]\nprotocol = '{protocol}'\nsegment = 's{segment}'\nunderlay = 'u{underlay}'"
    );
    let has_id = match protocol.has_id() {
        HasId::Always => true,
        HasId::Optional => keys.contains(&29),
        HasId::Never => false,
    };
    if has_id {
        let _ = writeln!(text, "id = {}", i + 1);
    }
    if *protocol == Protocol::Qinq {
        let _ = writeln!(text, "service_id = {}", 100 + i);
    }
    if has_ip {
        // What has no id is told apart by its far end. 99 is no neighbour, and 10.40.0.0/16 is behind the gateway.
        let host = if has_id { *host } else { 10 + i as u8 };
        let net = if host == 19 { 40 } else { 30 };
        let _ = match ipv6 {
            false => writeln!(text, "remote = '10.{net}.{underlay}.{host}'"),
            true => writeln!(text, "remote = 'fd00:{net}:{underlay}::{host}'"),
        };
    }
    if has_udp {
        // Each protocol has its port.
        let port = 7000 + u32::from(*protocol as u8);
        let _ = writeln!(text, "dst_port = {port}");
    }
    let next = (i + 1) % 6;
    let all = [
        format!("10.10{i}.0.0/16"),
        format!("10.10{next}.5.0/24"),
        format!("10.10{next}.5.{}", i + 1),
        format!("10.110.0.{i}"),
        format!("fd00:10{i}::/64"),
        format!("fd00:110::{i}"),
    ];
    let inner: Vec<&String> = inner.iter().map(|which| &all[usize::from(*which)]).collect();
    let _ = writeln!(text, "inner = {inner:?}");
    if let Some((which, workload)) = from
        && let Some(Workload { segment: of, addresses, .. }) = &workloads[*workload]
        && *addresses >= if *which == 4 { 4 } else { 1 }
        && of == segment
    {
        let from = match which {
            0 => format!("10.250.{workload}.128/25"),
            1 => format!("10.250.{workload}.200"),
            2 => "10.250.0.0/16".to_owned(),
            4 => format!("fd00:250:{workload}::/96"),
            _ => format!("10.250.{workload}.0/24"),
        };
        let _ = writeln!(text, "from = ['{from}']");
    }
    let is_ethernet = protocol.payload() == Payload::Ethernet && !keys.contains(&28);
    for key in keys {
        if let Some(line) = key_text(*key, i, tunnel, is_ethernet) {
            let _ = writeln!(text, "{line}");
        }
    }
}

/// A key of a tunnel, if it may have it.
fn key_text(key: u8, i: usize, tunnel: &Tunnel, is_ethernet: bool) -> Option<String> {
    let Tunnel { protocol, ipv6, underlay, .. } = tunnel;
    let (has_ip, has_udp) = (protocol.has_outer_ip(), protocol.has_udp());
    let is = |one: Protocol| *protocol == one;
    let tags = is(Protocol::Vlan) || is(Protocol::Qinq);
    let gre = is(Protocol::Gre) || is(Protocol::Gretap);
    let line = match key {
        0 => format!("local_mac = '02:00:00:00:06:0{i}'"),
        1 => format!("remote_mac = '02:00:00:00:07:0{i}'"),
        2 if is_ethernet => format!("inner_mac = '02:00:00:00:08:0{i}'"),
        3 => "mtu = 1300".to_owned(),
        4 if has_ip => "redirect = false".to_owned(),
        5 => "debug = true".to_owned(),
        6 if has_ip && *ipv6 => format!("local = 'fd00:30:{underlay}::1'"),
        6 if has_ip => format!("local = '10.30.{underlay}.1'"),
        7 if has_udp => "src_port = '2000-3000'".to_owned(),
        8 if has_ip => "ttl = 'inherit'".to_owned(),
        9 if has_ip => format!("tos = {}", 4 * (i + 1)),
        10 if has_ip && !ipv6 => "df = 'unset'".to_owned(),
        11 if has_ip && *ipv6 => "flow_label = 0xabcde".to_owned(),
        12 if has_udp => "udp_checksum = true".to_owned(),
        13 if tags => "pcp = 7".to_owned(),
        14 if is(Protocol::Vxlan) => format!("gbp = {i}"),
        15 if is(Protocol::Geneve) => {
            "options = [{ class = 0x102, type = 0x80, data = 'deadbeef' }, { class = 0, type = 3, data = '' }]"
                .to_owned()
        }
        16 if gre => "checksum = true".to_owned(),
        17 if gre => "sequence = true".to_owned(),
        18 if is(Protocol::Gue) => "variant = 1".to_owned(),
        19 if is(Protocol::Gtpu) => format!("qfi = {i}"),
        20 if is(Protocol::Gtpu) && tunnel.keys.contains(&19) => "uplink = true".to_owned(),
        21 => "mss_clamp = true".to_owned(),
        22 if is_ethernet && tunnel.from.is_none() => "flood = true".to_owned(),
        23 if is(Protocol::Gtpu) || gre && tunnel.keys.contains(&29) => format!("local_id = {}", 1000 + i),
        28 if is(Protocol::Geneve) => "payload = 'ip'".to_owned(),
        _ => return None,
    };
    Some(line)
}
