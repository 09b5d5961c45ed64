//! What is in the maps, and what others may have put there.

use mptm::kernel::abi::LAYOUT;
use mptm::kernel::fake::Fake;
use mptm::kernel::{Map, Program, abi};
use mptm::render;
use mptm::state::State;
use mptm::store::read;
use zerocopy::IntoBytes;

use crate::scene::{SMALL, apply_text, carry_out, desired, down, live, number, runs, scene};

/// Applies, and says what had to be done.
fn mend(fake: &Fake) -> Vec<String> {
    let steps = apply_text(fake, SMALL).steps.iter().map(render::step).collect();
    assert_eq!(live(fake).state, desired(fake, SMALL));
    assert!(apply_text(fake, SMALL).is_empty());
    steps
}

fn applied() -> Fake {
    let fake = scene();
    apply_text(&fake, SMALL);
    fake
}

fn entries(fake: &Fake, map: Map) -> Vec<(Vec<u8>, Vec<u8>)> {
    fake.world().maps.as_ref().unwrap().entries(map)
}

fn poke(fake: &Fake, map: Map, key: &[u8], value: &[u8]) {
    fake.world().maps.as_mut().unwrap().poke(map, key, value);
}

/// The id of a tunnel.
fn id(fake: &Fake, tunnel: &str) -> u32 {
    live(fake).ids.tunnels.number(tunnel).unwrap()
}

/// The place of a tunnel's header that is in force.
fn header_place(fake: &Fake, tunnel: &str) -> Vec<u8> {
    let id = id(fake, tunnel);
    let active = entries(fake, Map::Active).into_iter().find(|(key, _)| number(key) == id).unwrap().1;
    (2 * id + number(&active) - 1).to_ne_bytes().to_vec()
}

#[test]
fn pins_of_others() {
    let fake = applied();
    let (key, meta) = entries(&fake, Map::Meta).remove(0);
    let error = |value: &[u8]| {
        poke(&fake, Map::Meta, &key, value);
        let error = read(&fake, &fake).unwrap_err();
        (error.to_string(), error.hint.unwrap())
    };
    let mut layout = meta.clone();
    layout[..4].copy_from_slice(&9_u32.to_ne_bytes());
    let (text, hint) = error(&layout);
    assert_eq!(
        text,
        format!("the pins in /sys/fs/bpf/mptm were made by a newer mptm (layout 9, this one has {LAYOUT})")
    );
    assert_eq!(hint, "use that one, or run its `mptm down` first, or choose another directory with --pin");
    assert_eq!(error(&layout[..30]).0, text, "whatever its size");
    let mut netns = meta;
    netns[8] ^= 1;
    let (text, hint) = error(&netns);
    assert_eq!(text, "the pins in /sys/fs/bpf/mptm are those of another network namespace");
    assert!(hint.starts_with("a namespace has its own pin directory: choose it with --pin"), "{hint}");
}

#[test]
fn nothing_is_there() {
    assert_eq!(live(&scene()).state, State::default());
}

#[test]
fn a_damaged_header() {
    let fake = applied();
    let place = header_place(&fake, "t0");
    let value = entries(&fake, Map::Tunnels).into_iter().find(|(key, _)| *key == place).unwrap().1;
    // Each byte of it, one after the other.
    for at in 0..value.len() {
        let mut damaged = value.clone();
        damaged[at] ^= 0x55;
        poke(&fake, Map::Tunnels, &place, &damaged);
        let seen = live(&fake).state.tunnels["t0"].clone();
        assert_ne!(seen, desired(&fake, SMALL).tunnels["t0"], "byte {at} goes unseen");
    }
    let mut damaged = value;
    damaged[18] = 1; // The identification of the IPv4 header.
    poke(&fake, Map::Tunnels, &place, &damaged);
    assert!(!live(&fake).state.tunnels["t0"].intact);
    assert_eq!(mend(&fake), ["~ tunnel t0: header damaged -> intact"]);
    poke(&fake, Map::Active, &id(&fake, "t0").to_ne_bytes(), &7_u32.to_ne_bytes());
    assert_eq!(mend(&fake).len(), 1);
}

#[test]
fn deleted_by_hand() {
    for map in [
        Map::Interfaces,
        Map::Routes,
        Map::Prefixes,
        Map::Endpoints,
        Map::Active,
        Map::UdpPorts,
        Map::Devices,
    ] {
        for (key, value) in entries(&applied(), map) {
            let fake = applied();
            fake.world().maps.as_mut().unwrap().remove(map, &key);
            assert!(!mend(&fake).is_empty(), "{map:?}");
            let back = entries(&fake, map).into_iter().find(|(other, _)| *other == key);
            let back = back.unwrap_or_else(|| panic!("{map:?}: it is not back")).1;
            // The pairs of a lost route can't be told from another table: they go, and are made anew elsewhere.
            let has_pairs = map == Map::Routes && value[4..8] != [0; 4];
            assert!(back == value || has_pairs, "{map:?}: it is not as it was");
        }
    }
    for (key, _) in entries(&applied(), Map::Names) {
        let fake = applied();
        fake.world().maps.as_mut().unwrap().remove(Map::Names, &key);
        mend(&fake);
    }
}

#[test]
fn what_refers_to_nothing() {
    let fake = applied();
    let before = entries(&fake, Map::Endpoints);
    let mut endpoint = before[0].0.clone();
    endpoint[15] ^= 1;
    poke(&fake, Map::Endpoints, &endpoint, &300_u32.to_ne_bytes());
    let address = abi::map_address("10.77.0.1".parse().unwrap());
    let route = |id, target| abi::Route { id, target, ..Default::default() };
    let poke_route = |table, id, target| {
        let key = abi::RouteKey { table, address };
        poke(&fake, Map::Routes, key.as_bytes(), route(id, target).as_bytes());
    };
    poke_route(1, 301, abi::target::TUNNEL);
    poke_route(90, 302, abi::target::WORKLOAD);
    let state = live(&fake).state;
    assert!(state.endpoints.values().any(|tunnel| &**tunnel == "#300"));
    assert_eq!(state.segments["#90"].len(), 1);
    let mut steps = mend(&fake);
    // The address differs by the poked byte, whichever end that is in.
    steps.retain(|step| !step.starts_with("- endpoint"));
    assert_eq!(
        steps,
        ["- route #90 10.77.0.1: interface #302", "- route default 10.77.0.1: tunnel #301", "- segment #90",]
    );
    assert_eq!(entries(&fake, Map::Endpoints), before);

    // A number that something stale refers to is no new tunnel's.
    poke(&fake, Map::Endpoints, &endpoint, &2_u32.to_ne_bytes());
    let more = SMALL.to_owned()
        + "[tunnel.new]\nprotocol = 'geneve'\nid = 9\nremote = '10.30.0.13'\ninner = ['10.9.9.9']\n";
    apply_text(&fake, &more);
    assert_eq!(id(&fake, "new"), 3);
}

#[test]
fn routes_and_interfaces_that_mean_nothing() {
    let fake = applied();
    for (key, value) in entries(&fake, Map::Prefixes) {
        let mut damaged = value.clone();
        damaged[8] = 9; // The target.
        poke(&fake, Map::Prefixes, &key, &damaged);
        assert_eq!(mend(&fake).len(), 1);
    }
    for (key, value) in entries(&fake, Map::Interfaces) {
        for (at, byte) in [(0, 9), (4, 77)] {
            let mut damaged = value.clone();
            damaged[at] = byte; // The role, or the slot.
            poke(&fake, Map::Interfaces, &key, &damaged);
            assert!(!mend(&fake).is_empty());
            assert!(
                entries(&fake, Map::Interfaces)
                    .iter()
                    .all(|(key, value)| key.len() == 4 && value.len() == 24)
            );
        }
    }
    // What an apply left that was killed while an interface took another index.
    let w0 = entries(&fake, Map::Interfaces).into_iter().find(|(key, _)| number(key) == 10).unwrap().1;
    for stale in [3_u32, 9, 99] {
        poke(&fake, Map::Interfaces, stale.as_bytes(), &w0);
        assert_eq!(mend(&fake), [format!("~ interface w0: index {stale} -> 10, takes-frames no -> yes")]);
        assert_eq!(entries(&fake, Map::Interfaces).len(), 2);
    }
}

#[test]
fn links_that_are_not_as_they_were() {
    let fake = applied();
    fake.world().device("w0").xdp = None;
    assert_eq!(mend(&fake), ["~ program w0: mode detached -> native"]);
    assert_eq!(runs(&fake, "w0"), Some(Program::Encap));

    fake.world().delete_device(0, 10);
    assert_eq!(live(&fake).state.links["w0"].ifindex, 0);
    fake.world().add_veth([(0, 40, "w0"), (1, 3, "c0")]);
    let steps = mend(&fake);
    assert!(
        steps.contains(&"~ program w0: mode detached -> native, index gone -> 40".to_owned()),
        "{steps:#?}"
    );
    assert_eq!(runs(&fake, "w0"), Some(Program::Encap));

    // A new build takes the place of the old, in all links, and nothing else happens.
    fake.world().build = mptm::kernel::Build([9; 32]);
    let old = fake.world().pinned.clone();
    assert_eq!(mend(&fake), ["~ data-plane: build 070707070707 -> 090909090909"]);
    assert!(fake.world().pinned.values().all(|id| !old.values().any(|old| old == id)));
    assert_eq!((runs(&fake, "w0"), runs(&fake, "u0")), (Some(Program::Encap), Some(Program::Decap)));

    // An exchange that was interrupted before this link's turn.
    let stray = fake.world().attach_foreign("u0", "mptm_decap", mptm::config::model::Mode::Native);
    fake.world().links.get_mut("u0").unwrap().program_id = stray;
    let torn = fake.fork();
    assert_eq!(mend(&fake), ["~ program u0: runs one of another build -> mptm_decap"]);
    // Once taken off, nobody can put it back, and it is said.
    let later = torn.world().changes + 6;
    torn.world().fail_at = Some(later);
    let error = carry_out(&torn, &State::default()).unwrap_err();
    let stuck: Vec<String> = error.stuck.iter().map(|(_, cause)| cause.to_string()).collect();
    assert_eq!(stuck, ["u0 has no program: the old one is no longer at hand"]);
    down(&fake);
    assert_eq!(runs(&fake, "u0"), None);
}
