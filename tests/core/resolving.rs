//! What a file means on a machine, and what the machine lacks for it.

use std::net::IpAddr;

use mptm::config::model::{Mode, NetnsRef};
use mptm::kernel::fake::{Fake, RouteEntry};
use mptm::kernel::{Feature, Program};
use mptm::mac::MacAddr;
use mptm::resolve::{Neighbours, ResolveError, resolve};
use mptm::state::{RemoteMac, Route, State};

use crate::scene::{SMALL, apply_text, config, desired, down, live, resolved, runs, scene};

/// Errors with their hints.
#[track_caller]
fn errors(fake: &Fake, text: &str) -> Vec<String> {
    let errors =
        resolved(fake, text, Neighbours::Look).map(|resolved| resolved.state).expect_err("it is wrong");
    let one = |error: &ResolveError| {
        let source = error.source.as_ref().map(|source| format!(": {source}")).unwrap_or_default();
        format!("{error}{source} ({})", error.hint.as_deref().unwrap_or("no hint"))
    };
    errors.iter().map(one).collect()
}

#[track_caller]
fn warnings(fake: &Fake, text: &str, neighbours: Neighbours) -> Vec<String> {
    resolved(fake, text, neighbours).unwrap_or_else(|errors| panic!("{errors:?}")).warnings
}

fn tunnel(keys: &str) -> String {
    format!(
        "[interface.u0]\nrole = 'underlay'\n[tunnel.t]\nprotocol = 'geneve'\nid = 1\ninner = ['10.9.0.1']\n{keys}\n"
    )
}

fn workload(keys: &str) -> String {
    format!("[interface.w0]\nrole = 'workload'\n{keys}\n")
}

fn route<'a>(state: &'a State, segment: &str, prefix: &str) -> &'a Route {
    &state.segments[segment][&prefix.parse().unwrap()]
}

const LEAVE_OUT: &str = "(leave `peer` out, and mptm finds it; `peer = false` leaves it alone)";

#[test]
fn interfaces_and_peers_that_are_not_there() {
    let fake = scene();
    for (text, error) in [
        (
            "[interface.eth9]\nrole = 'pass'\n".to_owned(),
            "interface eth9: there is no such device (see `ip link` for those that are there; -n NETNS chooses another \
             network namespace)"
                .to_owned(),
        ),
        (
            workload("addresses = ['10.0.0.1']\npeer = { netns = 'ns9', name = 'c0' }"),
            "interface w0: cannot look at its peer c0: cannot enter network namespace ns9 (`ip netns list` shows those \
             that there are)"
                .to_owned(),
        ),
        (
            workload("addresses = ['10.0.0.1']\npeer = { netns = 'ns0', name = 'c7' }"),
            format!("interface w0: its peer c7 is not in netns ns0 {LEAVE_OUT}"),
        ),
        (
            workload("addresses = ['10.0.0.1']\npeer = { netns = 'ns1', name = 'c1' }"),
            format!("interface w0: c1 in netns ns1 is not its other end {LEAVE_OUT}"),
        ),
        (
            workload("addresses = 'peer'\npeer = false"),
            "interface w0: addresses = \"peer\", but its other end is not known (say peer = { netns = ..., name = ... }, \
             or list the addresses)"
                .to_owned(),
        ),
    ] {
        assert_eq!(errors(&fake, &text), [error]);
    }
    let all =
        resolved(&fake, "[interface.a]\nrole = 'pass'\n[interface.b]\nrole = 'pass'\n", Neighbours::Look);
    assert_eq!(all.unwrap_err().len(), 2, "all are said at once");
}

#[test]
fn another_program_on_the_interface() {
    let fake = scene();
    let id = fake.world().attach_foreign("w0", "xdp_dispatcher", Mode::Generic);
    let text = workload("addresses = ['10.0.0.1']");
    assert_eq!(
        errors(&fake, &text),
        [format!(
            "interface w0 has an XDP program that is not mptm's: xdp_dispatcher, id {id}, in generic mode (whose it is: \
             `bpftool prog show id {id}`; to take it off: `ip link set w0 xdp off`, or the tool that attached it)"
        )]
    );
    fake.world().device("w0").xdp = None;
    apply_text(&fake, &text);
    assert_eq!(runs(&fake, "w0"), Some(Program::Encap));
    assert!(apply_text(&fake, &text).is_empty(), "our own is not foreign");
}

#[test]
fn no_way_to_the_far_end() {
    let fake = scene();
    fake.world().routes.retain(|route| route.ifindex != 2);
    let no_route = "tunnel t: there is no route to 10.30.0.10 by u0 (see `ip route get 10.30.0.10 oif u0`; is the \
                    interface up, with an address?)";
    assert_eq!(errors(&fake, &tunnel("remote = '10.30.0.10'")), [no_route]);
    assert_eq!(
        errors(&scene(), &tunnel("remote = '10.30.0.10'\nlocal = '10.99.0.1'")),
        [
            "tunnel t: cannot look up the route to 10.30.0.10: cannot look up the route to 10.30.0.10 from 10.99.0.1 \
          (no hint)"
        ]
    );
}

#[test]
fn room_in_the_mtu() {
    let fake = scene();
    assert_eq!(
        errors(&fake, &tunnel("remote = '10.30.0.10'\nmtu = 1451")),
        [
            "tunnel t: no room for mtu = 1451: u0 has an MTU of 1500, and geneve takes 50 of it (at most mtu = 1450; or a \
          larger MTU on u0)"
        ]
    );
    assert_eq!(desired(&fake, &tunnel("remote = '10.30.0.10'\nmtu = 1450")).tunnels["t"].mtu, 1450);
    fake.world().device("u0").mtu = 117;
    assert_eq!(
        errors(&fake, &tunnel("remote = '10.30.0.10'")),
        [
            "tunnel t: no room for packets of 68 bytes: u0 has an MTU of 117, and geneve takes 50 of it (set a larger MTU: \
          ip link set u0 mtu 1550)"
        ]
    );
    fake.world().device("u0").mtu = 118;
    assert_eq!(desired(&fake, &tunnel("remote = '10.30.0.10'")).tunnels["t"].mtu, 68);
    fake.world().device("u0").mtu = 65536;
    assert_eq!(desired(&fake, &tunnel("remote = '10.30.0.10'")).tunnels["t"].mtu, 65535 - 50);
}

#[test]
fn two_owners() {
    let fake = scene();
    let text =
        workload("addresses = 'peer'") + "[interface.w1]\nrole = 'workload'\naddresses = ['10.250.0.100']\n";
    assert_eq!(
        errors(&fake, &text),
        [
            "interface w1: 10.250.0.100 of segment default is already that of interface w0 (an address has one place in \
          a segment; another `segment` may use it again)"
        ]
    );
    desired(&fake, &(text + "segment = 'other'\n"));
    // Nor can two tunnels have one endpoint, should the file's own checks not see it.
    let local = "remote = '10.30.0.10'\nlocal = '10.30.0.3'\n[tunnel.z]\nprotocol = 'geneve'\nid = 1\n\
                 inner = ['10.9.0.2']\nremote = '10.30.0.10'\nlocal = '10.30.0.1'\n";
    let mut config = config(&tunnel(local));
    config.tunnels.get_mut("t").unwrap().local = None;
    let errors = resolve(&config, &fake, &fake, &live(&fake), Neighbours::Look).map(drop).unwrap_err();
    assert_eq!(errors[0].to_string(), "tunnel z has the outer addresses and id of tunnel t");
}

#[test]
fn neighbours() {
    let fake = scene();
    let far: IpAddr = "10.30.0.99".parse().unwrap();
    let text = tunnel("remote = '10.30.0.99'");
    assert_eq!(
        warnings(&fake, &text, Neighbours::Look),
        ["tunnel t: the MAC address of next hop 10.30.0.99 on u0 is not known yet; apply asks for it"]
    );
    assert_eq!(fake.world().solicited, [], "looking touches nothing");
    assert_eq!(
        warnings(&fake, &text, Neighbours::Solicit),
        [
            "tunnel t: next hop 10.30.0.99 on u0 does not answer, so nothing can be sent yet: apply again when it is up"
        ]
    );
    assert_eq!(fake.world().solicited, [(2, far)]);
    apply_text(&fake, &text);
    assert_eq!(live(&fake).state.tunnels["t"].remote_mac, RemoteMac::Unresolved);

    let mac = MacAddr([2, 1, 1, 1, 1, 1]);
    fake.world().answers.insert((2, far), mac);
    let found = resolved(&fake, &text, Neighbours::Solicit).unwrap();
    assert_eq!((found.state.tunnels["t"].remote_mac, found.warnings.len()), (RemoteMac::Known(mac), 0));
    apply_text(&fake, &text);

    // Forgotten, and silent: what served until now goes on.
    fake.world().neighbours.remove(&(2, far));
    fake.world().answers.clear();
    let kept = resolved(&fake, &text, Neighbours::Solicit).unwrap();
    assert_eq!(kept.state.tunnels["t"].remote_mac, RemoteMac::Known(mac));
    assert_eq!(
        kept.warnings,
        [format!(
            "tunnel t: next hop 10.30.0.99 on u0 does not answer; its last known MAC address {mac} stays"
        )]
    );
    assert_eq!(warnings(&fake, &text, Neighbours::Look), [""; 0]);
    assert!(apply_text(&fake, &text).is_empty());
    // But not for another far end, or by another next hop, or on another device of that name.
    let other = desired(&fake, &tunnel("remote = '10.30.0.98'"));
    assert_eq!(other.tunnels["t"].remote_mac, RemoteMac::Unresolved);
    let by_gateway = fake.fork();
    let to = "10.30.0.99/32".parse().unwrap();
    let entry = RouteEntry { to, via: Some([10, 30, 0, 97].into()), ifindex: 2, mtu: None };
    by_gateway.world().routes.insert(0, entry);
    let moved = desired(&by_gateway, &text);
    assert_eq!(moved.tunnels["t"].remote_mac, RemoteMac::Unresolved);
    assert_eq!(moved.tunnels["t"].next_hop, Some([10, 30, 0, 97].into()));
}

#[test]
fn other_warnings() {
    let fake = scene();
    let text = workload("addresses = ['10.0.0.1']");
    fake.world().device("w0").up = false;
    assert_eq!(
        warnings(&fake, &text, Neighbours::Look),
        ["interface w0 is down: nothing passes (ip link set w0 up)"]
    );
    fake.world().device("w0").up = true;
    fake.world()
        .device_in(1, "c0")
        .features
        .insert("rx-gro".into(), Feature { active: false, changeable: false });
    assert_eq!(
        warnings(&fake, &text, Neighbours::Look),
        ["test.toml:1 (ns0): the offload rx-gro of c0 can't be turned on"]
    );
    fake.world().namespaces[1].references.clear();
    assert_eq!(
        warnings(&fake, &text, Neighbours::Look),
        [
            "the other end of w0 is in no network namespace that can be found: its offloads and MTU are as they are (say \
          peer = { netns = ..., name = ... }, or peer = false)"
        ]
    );
    let fake = scene();
    fake.world().device_in(1, "c0").addresses.clear();
    assert_eq!(
        warnings(&fake, &workload("addresses = 'peer'"), Neighbours::Look),
        ["interface w0: its peer c0 has no address yet"]
    );
    fake.world().namespaces[0].sysctls.insert("rp_filter".into(), 1);
    let text = workload("addresses = ['10.0.0.1']") + &tunnel("remote = '10.30.0.10'\nredirect = false");
    assert_eq!(
        warnings(&fake, &text, Neighbours::Look),
        [
            "net.ipv4.conf.all.rp_filter is 1: the host's stack drops what w0 hands to it (redirect = false) until that is \
          0"
        ]
    );
}

#[test]
fn what_the_file_leaves_out() {
    let fake = scene();
    let state = desired(&fake, &tunnel("remote = '192.0.2.1'"));
    let found = &state.tunnels["t"];
    assert_eq!(found.local, Some("10.30.0.1".parse().unwrap()), "what the route prefers");
    assert_eq!(found.local_mac, Some(MacAddr([2, 0, 0, 0, 1, 0])), "the underlay's");
    assert_eq!(found.remote_mac, RemoteMac::Known(MacAddr([2, 0, 0, 0, 2, 0])), "the gateway's");
    assert_eq!((found.src_ports, found.dst_port, found.mtu), ((49152, 65535), 6081, 1450));

    let state = desired(&fake, SMALL);
    let peer = MacAddr([2, 0, 0, 1, 1, 2]);
    let mac_of = |prefix| match route(&state, "default", prefix) {
        Route::Workload { mac, pairs, .. } => (*mac, pairs.len()),
        other => panic!("{prefix} is behind {other:?}"),
    };
    assert_eq!(mac_of("10.250.0.100/32"), (Some(peer), 0));
    assert_eq!(mac_of("10.250.0.128/25"), (Some(peer), 0));
    assert_eq!(mac_of("10.250.0.200/32"), (Some(peer), 1), "`from` has a route of its own");
    assert_eq!(state.segments["default"].len(), 5);
    assert!(matches!(&state.interfaces["w0"].peer, Some(peer)
        if peer.netns == Some(NetnsRef::Name("ns0".into())) && &*peer.name == "c0"));

    let without = desired(&fake, &workload("addresses = ['10.0.0.1', '10.0.0.2']\npeer = false"));
    assert!(without.interfaces["w0"].peer.is_none());
    fake.world().neighbours.insert((10, "10.0.0.1".parse().unwrap()), peer);
    let without = desired(&fake, &workload("addresses = ['10.0.0.1', '10.0.0.2']\npeer = false"));
    for (prefix, expected) in [("10.0.0.1/32", Some(peer)), ("10.0.0.2/32", None)] {
        assert!(
            matches!(route(&without, "default", prefix), Route::Workload { mac, .. } if *mac == expected)
        );
    }
    // Forgotten by the neighbour table, but not by the route; a device made anew is another's.
    let text = workload("addresses = ['10.0.0.1', '10.0.0.2']\npeer = false");
    apply_text(&fake, &text);
    fake.world().neighbours.remove(&(10, "10.0.0.1".parse().unwrap()));
    assert!(apply_text(&fake, &text).is_empty());
    fake.world().delete_device(0, 10);
    fake.world().add_veth([(0, 40, "w0"), (1, 9, "c0")]);
    let anew = desired(&fake, &text);
    assert!(matches!(route(&anew, "default", "10.0.0.1/32"), Route::Workload { mac: None, .. }));
}

#[test]
fn from_splits_and_gathers() {
    let text = |from: &str| {
        workload("addresses = ['10.250.0.0/24', '10.250.0.7', '10.8.0.0/16']")
            + &tunnel(&format!("remote = '10.30.0.10'\nfrom = ['{from}']"))
    };
    let with_pairs = |from| {
        let state = desired(&scene(), &text(from));
        let pairs = |route: &Route| matches!(route, Route::Workload { pairs, .. } if !pairs.is_empty());
        let routes = state.segments["default"].iter().filter(|(_, route)| pairs(route));
        routes.map(|(prefix, _)| prefix.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(with_pairs("10.250.0.0/16"), ["10.250.0.0/24", "10.250.0.7/32"]);
    assert_eq!(with_pairs("10.250.0.0/24"), ["10.250.0.0/24", "10.250.0.7/32"]);
    assert_eq!(with_pairs("10.250.0.0/28"), ["10.250.0.0/28", "10.250.0.7/32"]);
    assert_eq!(with_pairs("10.250.0.7"), ["10.250.0.7/32"]);
    assert_eq!(with_pairs("10.8.255.255"), ["10.8.255.255/32"]);
    assert_eq!(with_pairs("0.0.0.0/0"), ["10.8.0.0/16", "10.250.0.0/24", "10.250.0.7/32"]);
    let mut text = workload("addresses = 'peer'");
    text += &tunnel("remote = '10.30.0.10'\nfrom = ['10.1.1.1']");
    assert_eq!(
        errors(&scene(), &text),
        [
            "tunnel t: no workload of segment default has 10.1.1.1, which `from` names (`from` lists addresses of this \
          node's workloads)"
        ]
    );
}

#[test]
fn an_empty_file_is_no_data_plane() {
    let fake = scene();
    assert_eq!(desired(&fake, ""), State::default());
    apply_text(&fake, SMALL);
    assert!(fake.world().maps.is_some());
    apply_text(&fake, "");
    assert!(fake.world().maps.is_none());
    assert!(down(&fake).is_empty());
}
