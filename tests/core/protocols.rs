//! What the protocols have of their own, on its way from the file to the maps.

use mptm::kernel::fake::Fake;
use mptm::kernel::{Map, abi};
use mptm::protocol::Protocol;
use mptm::render;
use mptm::state::State;
use zerocopy::IntoBytes;

use crate::scene::{SMALL, apply_text, desired, live, number, scene};

const UNDERLAY: &str = "[interface.u0]\nrole = 'underlay'\n";

/// Tunnels of a protocol, each with some keys, behind far end 10 and on.
fn tunnels(protocol: &str, keys: &[&str]) -> String {
    keys.iter().enumerate().fold(UNDERLAY.to_owned(), |text, (i, keys)| {
        text + &format!("[tunnel.t{i}]\nprotocol = '{protocol}'\ninner = ['10.9.0.{i}']\n{keys}\n")
    })
}

fn endpoints(state: &State) -> Vec<String> {
    let line = |(endpoint, tunnel)| format!("{}: {tunnel}", render::endpoint(endpoint));
    state.endpoints.iter().map(line).collect()
}

fn entries(fake: &Fake, map: Map) -> Vec<(u32, Vec<u8>)> {
    let entries = fake.world().maps.as_ref().unwrap().entries(map);
    entries.into_iter().map(|(key, value)| (number(&key), value)).collect()
}

#[test]
fn whose_packets_are_whose() {
    let text = tunnels(
        "gre",
        &[
            "remote = '10.30.0.10'",
            "remote = '10.30.0.10'\nid = 0",
            "remote = '10.30.0.10'\nid = 7\nlocal_id = 9",
            "remote = 'fd00:30::11'\nid = 1",
        ],
    );
    let fake = scene();
    apply_text(&fake, &text);
    assert_eq!(
        endpoints(&live(&fake).state),
        [
            "gre 10.30.0.10 -> 10.30.0.1 on index 2: t0",
            "gre any 10.30.0.10 -> 10.30.0.1 on index 2: t0",
            "gre any fd00:30::11 -> fd00:30::1 on index 2: t3",
            "gre 0 10.30.0.10 -> 10.30.0.1 on index 2: t1",
            "gre 1 fd00:30::11 -> fd00:30::1 on index 2: t3",
            "gre 9 10.30.0.10 -> 10.30.0.1 on index 2: t2",
        ]
    );
    // The key comes before what the packet says of its payload.
    let gretap = tunnels("gretap", &["remote = '10.30.0.10'\nid = 5"]);
    assert_eq!(
        endpoints(&desired(&fake, &gretap)),
        ["gre any 10.30.0.10 -> 10.30.0.1 on index 2: t0", "gretap 5 10.30.0.10 -> 10.30.0.1 on index 2: t0",]
    );
    let gtpu = tunnels("gtpu", &["remote = 'fd00:30::10'\nid = 5\nlocal_id = 6"]);
    let gtpu = desired(&fake, &gtpu);
    assert_eq!(
        endpoints(&gtpu),
        [
            "gtpu any fd00:30::10 -> [fd00:30::1]:2152 on index 2: t0",
            "gtpu 6 fd00:30::10 -> [fd00:30::1]:2152 on index 2: t0",
        ]
    );
    assert_eq!(gtpu.ports, [(2152, Protocol::Gtpu)].into());
    let fou = desired(&fake, &tunnels("fou", &["remote = '10.30.0.10'\ndst_port = 5555"]));
    assert_eq!(endpoints(&fou), ["fou 10.30.0.10 -> 10.30.0.1:5555 on index 2: t0"]);
    let qinq = desired(&fake, &tunnels("qinq", &["id = 42\nservice_id = 100"]));
    assert_eq!(endpoints(&qinq), ["qinq 100.42 on index 2: t0"]);
    let ipip = desired(&fake, &tunnels("ipip", &["remote = '10.30.0.10'"]));
    assert_eq!(endpoints(&ipip), ["ipip 10.30.0.10 -> 10.30.0.1 on index 2: t0"]);
    assert!(ipip.ports.is_empty());
}

#[test]
fn sequence_numbers_begin_anew() {
    let fake = scene();
    let with = tunnels("gre", &["remote = '10.30.0.10'\nsequence = true"]);
    apply_text(&fake, &with);
    let old = abi::TunnelState { sent: 7, received: 8, seen: 1, pad: 0 };
    let poke = || fake.world().maps.as_mut().unwrap().poke(Map::TunnelState, &[0; 4], old.as_bytes());
    poke();
    apply_text(&fake, &(with.clone() + "debug = true\n"));
    assert_eq!(
        entries(&fake, Map::TunnelState),
        [(0, old.as_bytes().to_vec())],
        "it is still the same tunnel"
    );
    apply_text(&fake, &with.replace("sequence = true", ""));
    apply_text(&fake, &with);
    assert_eq!(entries(&fake, Map::TunnelState), [], "they were turned on");
    poke();
    apply_text(&fake, UNDERLAY);
    apply_text(&fake, &with);
    assert_eq!(entries(&fake, Map::TunnelState), [], "another tunnel has its number");
}

#[test]
fn slots_have_the_interfaces_addresses() {
    let fake = scene();
    apply_text(&fake, SMALL);
    let slot = |name: &str| live(&fake).ids.interfaces.number(name).unwrap();
    let at = slot("w0");
    let before = entries(&fake, Map::Slots);
    let (_, own) = before.iter().find(|(slot, _)| *slot == at).unwrap();
    assert_eq!(own[..6], [2, 0, 0, 1, 0, 10]);
    fake.world().maps.as_mut().unwrap().poke(Map::Slots, at.as_bytes(), &[9; 8]);
    let steps: Vec<String> = apply_text(&fake, SMALL).steps.iter().map(render::step).collect();
    assert_eq!(steps, ["~ interface w0: mac ff:ff:ff:ff:ff:ff -> 02:00:00:01:00:0a"]);
    assert_eq!(entries(&fake, Map::Slots), before);
    apply_text(&fake, UNDERLAY);
    assert!(entries(&fake, Map::Slots).iter().all(|(slot, _)| *slot != at), "nothing is left of it");
}

#[test]
fn what_is_not_as_usual_is_said() {
    let fake = scene();
    let line = |protocol: &str, keys: &str| {
        let state = desired(&fake, &tunnels(protocol, &[keys]));
        let fields = render::tunnel(&state.tunnels["t0"]).into_iter();
        let usual =
            ["protocol", "segment", "underlay", "local", "local_mac", "remote_mac", "src_port", "mtu"];
        let said = fields.filter(|(key, value)| !value.is_empty() && !usual.contains(key));
        said.map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(line("ipip", "remote = '10.30.0.10'"), "remote 10.30.0.10");
    assert_eq!(line("qinq", "id = 5\nservice_id = 6\npcp = 'inherit'"), "id 5, service_id 6, pcp inherit");
    assert_eq!(
        line(
            "geneve",
            "remote = 'fd00:30::10'\nid = 5\npayload = 'ip'\nttl = 'inherit'\ntos = 184\nflow_label = 5\n\
             udp_checksum = false\noptions = [{ class = 0x102, type = 0x80, data = 'deadbeef' }]\nmss_clamp = true"
        ),
        "id 5, payload ip, remote fd00:30::10, dst_port 6081, ttl inherit, tos 184, flow_label 0x5, udp_checksum false, \
         options 0102:80:deadbeef, mss_clamp true"
    );
    assert_eq!(
        line(
            "gretap",
            "remote = '10.30.0.10'\nid = 5\nlocal_id = 6\nchecksum = true\nsequence = true\nflood = true"
        ),
        "id 5, local_id 6, remote 10.30.0.10, checksum true, sequence true, flood true"
    );
    assert_eq!(
        line(
            "gtpu",
            "remote = '10.30.0.10'\nid = 5\nqfi = 0\nuplink = true\ndf = 'unset'\nudp_checksum = true"
        ),
        "id 5, remote 10.30.0.10, dst_port 2152, df unset, udp_checksum true, qfi 0, uplink true"
    );
}
