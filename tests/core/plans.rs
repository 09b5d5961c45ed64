//! Plans of hand-made states: every kind of step, and their order.

use std::collections::BTreeMap;

use mptm::config::model::{Manage, Mode, NetnsRef};
use mptm::kernel::abi::LAYOUT;
use mptm::kernel::{Build, Program, Setting, Sizes, Via};
use mptm::mac::MacAddr;
use mptm::plan::{Change, Plan, Step, plan};
use mptm::protocol::Protocol;
use mptm::render;
use mptm::state::{
    Attachment, DataPlane, Endpoint, Flood, FloodLink, FloodMember, Interface, Peer, RemoteMac, Role, Route,
    SavedSetting, SettingKey, State, Tunnel,
};

/// One of everything.
pub fn full() -> State {
    let name = |name: &str| name.into();
    let workload = Route::Workload {
        interface: name("veth-a"),
        mac: Some(MacAddr([2, 0, 0, 0, 0, 9])),
        pairs: Box::new(BTreeMap::from([("10.2.0.0/16".parse().unwrap(), name("t"))])),
    };
    let table = BTreeMap::from([
        ("10.1.0.1/32".parse().unwrap(), workload),
        ("10.2.0.0/16".parse().unwrap(), Route::Tunnel(name("t"))),
    ]);
    State {
        stack_cpus: [0, 1].into(),
        data_plane: Some(DataPlane {
            build: Build([1; 32]),
            netns: 1,
            layout: LAYOUT,
            sizes: Sizes::each(|_| 1024),
        }),
        settings: BTreeMap::from([(mtu_key(), mtu(1450))]),
        interfaces: BTreeMap::from([(name("eth0"), underlay()), (name("veth-a"), workload_interface(5))]),
        ports: BTreeMap::from([(6081, Protocol::Geneve)]),
        tunnels: BTreeMap::from([(name("t"), tunnel())]),
        segments: BTreeMap::from([(name("blue"), table)]),
        endpoints: BTreeMap::from([(endpoint(), name("t"))]),
        floods: BTreeMap::from([(name("blue"), flood())]),
        flood_links: BTreeMap::from([(name("eth0"), flooding(2)), (name("veth-a"), flooding(5))]),
        links: BTreeMap::from([
            (name("eth0"), attachment(2, Program::Decap)),
            (name("veth-a"), attachment(5, Program::Encap)),
        ]),
    }
}

fn flood() -> Flood {
    let member = |member: &str, ifindex| FloodMember { name: member.into(), ifindex };
    Flood { tunnels: vec![member("t", 2)], workloads: vec![member("veth-a", 5)], sum: false }
}

fn flooding(ifindex: u32) -> FloodLink {
    FloodLink { ifindex, current: true }
}

fn mtu_key() -> SettingKey {
    let netns = Some(NetnsRef::Name("vns1".into()));
    SettingKey { netns, device: "veth-b".into(), setting: Setting::Mtu }
}

fn mtu(value: u64) -> SavedSetting {
    SavedSetting { ifindex: 3, netns_cookie: 7, before: 1500, value, current: Some(value) }
}

fn underlay() -> Interface {
    Interface {
        ifindex: 2,
        role: Role::Underlay,
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        device: Some(2),
        peer: None,
        manage: Manage::default(),
        native: true,
    }
}

fn workload_interface(ifindex: u32) -> Interface {
    let netns = Some(NetnsRef::Name("vns1".into()));
    Interface {
        ifindex,
        role: Role::Workload { segment: "blue".into() },
        device: Some(ifindex),
        peer: Some(Peer { netns, name: "veth-b".into() }),
        ..underlay()
    }
}

fn attachment(ifindex: u32, program: Program) -> Attachment {
    Attachment { ifindex, program: Some(program), mode: Some(Mode::Native), via: Via::Link }
}

fn tunnel() -> Tunnel {
    Tunnel {
        id: Some(42),
        local: Some("10.30.30.1".parse().unwrap()),
        remote: Some("10.30.30.2".parse().unwrap()),
        local_mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        remote_mac: RemoteMac::Known(MacAddr([2, 0, 0, 0, 0, 2])),
        src_ports: (49152, 65535),
        dst_port: 6081,
        next_hop: Some([10, 30, 30, 2].into()),
        mtu: 1450,
        ..Tunnel::new(Protocol::Geneve, "blue".into(), "eth0".into())
    }
}

fn endpoint() -> Endpoint {
    let Tunnel { protocol, id, remote, local, dst_port: port, .. } = tunnel();
    Endpoint { protocol, ifindex: 2, id, any_id: false, remote, local, port }
}

/// The same, with something else in every kind.
pub fn other() -> State {
    let mut state = full();
    state.data_plane =
        Some(DataPlane { build: Build([2; 32]), netns: 1, layout: LAYOUT, sizes: Sizes::each(|_| 1024) });
    state.settings.insert(mtu_key(), mtu(1400));
    state.interfaces.get_mut("veth-a").unwrap().role = Role::Redirect { to: "eth0".into() };
    state.ports.insert(6081, Protocol::Vxlan);
    state.tunnels.get_mut("t").unwrap().remote_mac = RemoteMac::Unresolved;
    let blue = state.segments.get_mut("blue").unwrap();
    blue.insert("10.1.0.1/32".parse().unwrap(), Route::Tunnel("t".into()));
    state.endpoints.insert(endpoint(), "u".into());
    state.floods.insert("blue".into(), Flood { sum: true, ..flood() });
    state.links.insert("veth-a".into(), attachment(5, Program::Redirect));
    state
}

fn kinds(plan: &Plan) -> Vec<String> {
    let kind = |step: &Step| render::step(step).split([':', ' ']).take(3).collect::<Vec<_>>().join(" ");
    plan.steps.iter().map(kind).collect()
}

#[test]
fn what_is_referred_to_comes_first() {
    let up = plan(&full(), &State::default());
    assert_eq!(
        kinds(&up),
        [
            "+ data-plane ",
            "+ way-to-stack ",
            "+ segment blue",
            "+ interface eth0",
            "+ interface veth-a",
            "+ port udp/6081",
            "+ tunnel t",
            "+ route blue",
            "+ route blue",
            "+ endpoint geneve",
            "~ setting vns1/veth-b",
            "+ flood-program eth0",
            "+ flood-program veth-a",
            "+ flood blue",
            "+ program eth0",
            "+ program veth-a",
        ]
    );
    // What lets traffic in goes first, the rest in reverse.
    assert_eq!(
        kinds(&plan(&State::default(), &full())),
        [
            "- program eth0",
            "- program veth-a",
            "- flood-program eth0",
            "- flood-program veth-a",
            "- flood blue",
            "- endpoint geneve",
            "- route blue",
            "- route blue",
            "- tunnel t",
            "- port udp/6081",
            "- interface veth-a",
            "- interface eth0",
            "- segment blue",
            "~ setting vns1/veth-b",
            "- way-to-stack ",
            "- data-plane ",
        ]
    );
    assert!(plan(&full(), &full()).is_empty());
    assert!(plan(&State::default(), &State::default()).is_empty());
}

#[test]
fn what_is_there_changes_in_place() {
    let steps = plan(&other(), &full());
    assert_eq!(
        kinds(&steps),
        [
            "~ data-plane ",
            "~ setting vns1/veth-b",
            "~ interface veth-a",
            "~ port udp/6081",
            "~ tunnel t",
            "~ route blue",
            "~ endpoint geneve",
            "~ flood blue",
            "~ program veth-a",
        ]
    );
    for step in &steps.steps {
        assert_eq!(step.clone().inverse().inverse(), *step);
        assert_ne!(step.clone().inverse(), *step);
    }
    let mut back: Vec<Step> = steps.steps.iter().cloned().map(Step::inverse).collect();
    // On the way back the MTU rises.
    let mtu = back.iter().position(|step| matches!(step, Step::Setting(..))).unwrap();
    back[mtu..].rotate_left(1);
    assert_eq!(back, plan(&full(), &other()).steps);
}

#[test]
fn new_before_old() {
    let mut desired = full();
    let tunnel = desired.tunnels.remove("t").unwrap();
    desired.tunnels.insert("u".into(), tunnel);
    desired.endpoints.insert(endpoint(), "u".into());
    let blue = desired.segments.get_mut("blue").unwrap();
    blue.remove(&"10.1.0.1/32".parse().unwrap());
    blue.insert("10.2.0.0/16".parse().unwrap(), Route::Tunnel("u".into()));
    assert_eq!(
        kinds(&plan(&desired, &full())),
        ["+ tunnel u", "~ route blue", "~ endpoint geneve", "- route blue", "- tunnel t"]
    );
}

#[test]
fn a_renamed_device() {
    let mut desired = full();
    let interface = desired.interfaces.remove("veth-a").unwrap();
    desired.interfaces.insert("web".into(), interface);
    let link = desired.links.remove("veth-a").unwrap();
    desired.links.insert("web".into(), link);
    assert_eq!(
        kinds(&plan(&desired, &full())),
        ["- program veth-a", "+ interface web", "+ program web", "- interface veth-a"]
    );
    // Two that swap their names: neither could be attached where the other one's program still is.
    let mut desired = full();
    desired.links.get_mut("eth0").unwrap().ifindex = 5;
    desired.links.get_mut("veth-a").unwrap().ifindex = 2;
    assert_eq!(
        kinds(&plan(&desired, &full())),
        ["- program eth0", "- program veth-a", "+ program eth0", "+ program veth-a"]
    );
    // A dead link holds nothing.
    let mut actual = full();
    actual.links.insert(
        "veth-a".into(),
        Attachment { ifindex: 0, program: Some(Program::Encap), mode: None, via: Via::Link },
    );
    assert_eq!(kinds(&plan(&full(), &actual)), ["~ program veth-a"]);
}

#[test]
fn a_setting_follows_its_device() {
    let renamed = SettingKey { device: "eth0".into(), ..mtu_key() };
    let mut desired = full();
    let saved = desired.settings.remove(&mtu_key()).unwrap();
    desired.settings.insert(renamed.clone(), saved);
    let steps = plan(&desired, &full()).steps;
    assert_eq!(steps, [Step::Setting(renamed, Box::new(Change::Modify { before: saved, after: saved }))]);

    // Another device of the same name.
    let mut actual = full();
    let old = SavedSetting { ifindex: 1, current: None, ..saved };
    actual.settings.insert(mtu_key(), old);
    let steps = plan(&full(), &actual).steps;
    assert_eq!(steps, [Step::Setting(mtu_key(), Box::new(Change::Modify { before: old, after: saved }))]);

    // Two names that are exchanged.
    let second = SettingKey { device: "veth-c".into(), ..mtu_key() };
    let other = SavedSetting { ifindex: 4, ..saved };
    let state = |one, two| {
        let mut state = full();
        state.settings = BTreeMap::from([(mtu_key(), one), (second.clone(), two)]);
        state
    };
    let steps = plan(&state(other, saved), &state(saved, other)).steps;
    assert_eq!(
        steps,
        [
            Step::Setting(mtu_key(), Box::new(Change::Modify { before: other, after: other })),
            Step::Setting(second.clone(), Box::new(Change::Modify { before: saved, after: saved })),
        ]
    );
}
