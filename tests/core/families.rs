//! IPv6 as outer and inner family, the path's MTU, and next hops that mptm answers for.

use mptm::config::model::Payload;
use mptm::kernel::fake::Fake;
use mptm::lookup::{Way, way};
use mptm::mac::MacAddr;
use mptm::resolve::Neighbours;
use mptm::state::{RemoteMac, Route, State};

use crate::scene::{apply_text, desired, live, resolved, scene};

const UNDERLAY: &str = "[interface.u0]\nrole = 'underlay'\n";

fn tunnel(keys: &str) -> String {
    format!("{UNDERLAY}[tunnel.t]\n{keys}\n")
}

fn geneve(keys: &str) -> String {
    tunnel(&format!("protocol = 'geneve'\nid = 1\n{keys}"))
}

fn workload(keys: &str) -> String {
    format!("[interface.w0]\nrole = 'workload'\n{keys}\n")
}

#[track_caller]
fn warnings(fake: &Fake, text: &str, neighbours: Neighbours) -> Vec<String> {
    resolved(fake, text, neighbours).unwrap_or_else(|errors| panic!("{errors:?}")).warnings
}

#[track_caller]
fn errors(fake: &Fake, text: &str) -> Vec<String> {
    let errors = resolved(fake, text, Neighbours::Look).map(drop).expect_err("it is wrong");
    errors.iter().map(|error| format!("{error} ({})", error.hint.as_deref().unwrap_or("no hint"))).collect()
}

fn route<'a>(state: &'a State, prefix: &str) -> &'a Route {
    &state.segments["default"][&prefix.parse().unwrap()]
}

#[test]
fn what_a_tunnel_over_ipv6_gets() {
    let fake = scene();
    let state = desired(&fake, &geneve("remote = 'fd00:30::10'\ninner = ['10.9.0.1']"));
    let found = &state.tunnels["t"];
    assert_eq!(found.local, Some("fd00:30::1".parse().unwrap()), "what the route prefers");
    assert_eq!(found.remote_mac, RemoteMac::Known(MacAddr([2, 0, 0, 3, 0, 10])));
    assert_eq!(found.next_hop, found.remote);
    // RFC 8200, 8.1: over IPv6 there is a checksum. Ethernet, IPv6, UDP and GENEVE take 70 bytes.
    assert_eq!((found.udp_checksum, found.mtu), (true, 1430));
    let far = desired(&fake, &geneve("remote = '2001:db8::1'\ninner = ['10.9.0.1']\nudp_checksum = false"));
    let far = &far.tunnels["t"];
    assert_eq!(far.next_hop, Some("fe80::254".parse().unwrap()), "by a gateway's link-local address");
    assert_eq!(far.remote_mac, RemoteMac::Known(MacAddr([2, 0, 0, 0, 2, 0])));
    assert!(!far.udp_checksum);
    let four = desired(&fake, &geneve("remote = '10.30.0.10'\ninner = ['fd00::1']"));
    assert!(!four.tunnels["t"].udp_checksum);

    let text = geneve("remote = 'fd00:30::99'\ninner = ['10.9.0.1']");
    assert_eq!(warnings(&fake, &text, Neighbours::Solicit).len(), 1);
    assert_eq!(fake.world().solicited, [(2, "fd00:30::99".parse().unwrap())]);
    apply_text(&fake, &text);
    assert!(apply_text(&fake, &text).is_empty());
}

#[test]
fn what_the_path_leaves() {
    let fake = scene();
    for route in &mut fake.world().routes {
        route.mtu = Some(1400);
    }
    let text = |mtu: &str| geneve(&format!("remote = '10.30.0.10'\ninner = ['10.9.0.1']\n{mtu}"));
    assert_eq!(desired(&fake, &text("")).tunnels["t"].mtu, 1350);
    assert_eq!(warnings(&fake, &text("mtu = 1350"), Neighbours::Look), [""; 0]);
    assert_eq!(
        warnings(&fake, &text("mtu = 1351"), Neighbours::Look),
        ["tunnel t: mtu = 1351, but the route to 10.30.0.10 has an MTU of 1400, which leaves 1350"]
    );
    assert_eq!(errors(&fake, &text("mtu = 1451")).len(), 1, "more than the device takes is an error");
    fake.world().routes.iter_mut().for_each(|route| route.mtu = Some(100));
    assert_eq!(
        errors(&fake, &text("")),
        [
            "tunnel t: no room for packets of 68 bytes: the route has an MTU of 100, and geneve takes 50 of it (see \
             `ip route get`: a larger MTU of the route)"
        ]
    );
    // A route that says more than the device can do says nothing.
    fake.world().routes.iter_mut().for_each(|route| route.mtu = Some(9000));
    assert_eq!(desired(&fake, &text("")).tunnels["t"].mtu, 1450);
}

#[test]
fn ipv6_needs_1280_bytes() {
    let fake = scene();
    let small = geneve("remote = '10.30.0.10'\ninner = ['10.9.0.1', 'fd00::1']\nmtu = 1279");
    assert_eq!(
        warnings(&fake, &small, Neighbours::Look),
        [
            "tunnel t: it has room for packets of 1279 bytes, and IPv6 takes for granted that there is room for 1280 (RFC \
             8200): packets in between are lost"
        ]
    );
    let four = geneve("remote = '10.30.0.10'\ninner = ['10.9.0.1']\nmtu = 1279");
    assert_eq!(warnings(&fake, &four, Neighbours::Look), [""; 0]);
    let six = four.clone() + &workload("addresses = ['fd00:250::1']");
    assert_eq!(
        warnings(&fake, &six, Neighbours::Look),
        [
            "interface w0: it has IPv6 addresses, so its MTU is not lowered below 1280, though a tunnel of segment default \
             has room for 1279 bytes only"
        ]
    );
    apply_text(&fake, &six);
    assert_eq!(fake.world().device("w0").mtu, 1280);
    apply_text(&fake, &(four + &workload("addresses = ['10.250.0.1']")));
    assert_eq!(fake.world().device("w0").mtu, 1279);
}

#[test]
fn addresses_of_the_peer() {
    let fake = scene();
    fake.world().device_in(1, "c0").addresses.push("fd00:250::77/64".parse().unwrap());
    let state = desired(&fake, &workload("addresses = 'peer'"));
    let peer = Some(MacAddr([2, 0, 0, 1, 1, 2]));
    for prefix in ["10.250.0.100/32", "fd00:250::77/128"] {
        assert!(matches!(route(&state, prefix), Route::Workload { mac, .. } if *mac == peer), "{prefix}");
    }
    // Without a peer, neighbour tables have both families.
    fake.world().neighbours.insert((10, "fd00::7".parse().unwrap()), MacAddr([2; 6]));
    let state = desired(&fake, &workload("addresses = ['fd00::7']\npeer = false"));
    assert!(
        matches!(route(&state, "fd00::7/128"), Route::Workload { mac, .. } if *mac == Some(MacAddr([2; 6])))
    );
}

#[test]
fn to_the_stack_over_ipv6() {
    let fake = scene();
    let text = geneve("remote = 'fd00:30::10'\ninner = ['10.9.0.1']\nredirect = false")
        + &workload("addresses = ['10.250.0.1']");
    assert_eq!(warnings(&fake, &text, Neighbours::Look), [""; 0]);
    let of_ipv4 = |state: &State| state.settings.keys().any(|key| key.setting.key().starts_with("sysctl"));
    assert!(!of_ipv4(&desired(&fake, &text)), "none of IPv4's settings matters");
    fake.world().namespaces[0].sysctls.insert("ipv6:forwarding".into(), 0);
    assert_eq!(
        warnings(&fake, &text, Neighbours::Look),
        [
            "net.ipv6.conf.all.forwarding is 0: the host's stack drops what w0 hands to it (redirect = false) until that \
             is 1"
        ]
    );
}

#[test]
fn gateways() {
    let fake = scene();
    let text = workload("addresses = ['10.250.0.0/24']\ngateway = ['10.250.0.254', 'fd00:250::fe']")
        + "[interface.w1]\nrole = 'workload'\naddresses = 'peer'\ngateway = '10.250.0.254'\n"
        + &geneve("remote = '10.30.0.10'\ninner = ['10.0.0.0/8']");
    apply_text(&fake, &text);
    let state = live(&fake).state;
    for prefix in ["10.250.0.254/32", "fd00:250::fe/128"] {
        assert_eq!(*route(&state, prefix), Route::Gateway);
    }
    let to = |to: &str| way(&state, "default", "10.250.0.7".parse().unwrap(), to.parse().unwrap());
    assert_eq!(to("10.250.0.254"), Way::Gateway { from: "w0".into() });
    assert!(matches!(to("10.9.0.1"), Way::Tunnel { .. }));
    // Where the file alone can't tell.
    assert_eq!(
        errors(&fake, &text.replace("gateway = '10.250.0.254'", "gateway = '10.250.1.100'")),
        [
            "interface w1: gateway 10.250.1.100 of segment default is already that of interface w1 (mptm answers for a \
             gateway itself: it is an address that nobody else has)"
        ]
    );
    apply_text(&fake, &text.replace("gateway = '10.250.0.254'\n", "").replace("'10.250.0.254', ", ""));
    assert!(!live(&fake).state.segments["default"].contains_key(&"10.250.0.254/32".parse().unwrap()));
}

#[test]
fn ip_packets_need_a_mac_address() {
    let fake = scene();
    let text = |protocol: &str, keys: &str| {
        tunnel(&format!("protocol = '{protocol}'\nremote = '10.30.0.10'\ninner = ['10.9.0.1']"))
            + &workload(&format!("addresses = ['10.250.0.1', '10.250.0.2']\n{keys}"))
    };
    let unknown = [
        "interface w0: the MAC address of 10.250.0.1, 10.250.0.2 is not known, so IP packets out of tunnels can't be \
         delivered there (say mac = ..., or peer = ...)",
    ];
    assert_eq!(warnings(&fake, &text("ipip", "peer = false"), Neighbours::Look), unknown);
    assert_eq!(warnings(&fake, &text("gretap", "peer = false"), Neighbours::Look), [""; 0]);
    assert_eq!(warnings(&fake, &text("ipip", ""), Neighbours::Look), [""; 0], "its peer's");
    assert_eq!(
        warnings(&fake, &text("ipip", "peer = false\nmac = '02:00:00:00:00:01'"), Neighbours::Look),
        [""; 0]
    );
    assert_eq!(desired(&fake, &text("ipip", "")).tunnels["t"].payload, Payload::Ip);
}
