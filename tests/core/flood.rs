//! Multicast and broadcast: who gets copies, and where mptm_flood is attached for that.

use mptm::kernel::{Build, Map, Program, abi};
use mptm::render;
use mptm::resolve::Neighbours;
use mptm::state::{FloodMember, State};
use zerocopy::{FromBytes, IntoBytes};

use crate::scene::{
    apply_text, carry_out, desired, difference, down, essence, live, number, resolved, scene,
};

/// Two workloads and three tunnels in one segment, of which two flood, and a workload and a tunnel in another.
const FLOODING: &str = r#"
    [interface.u0]
    role = "underlay"
    [interface.u1]
    role = "underlay"
    [interface.w0]
    role = "workload"
    addresses = ["10.250.0.100"]
    [interface.w1]
    role = "workload"
    addresses = ["10.250.1.100"]
    [interface.w2]
    role = "workload"
    segment = "quiet"
    addresses = ["10.250.0.100"]

    [tunnel.long]
    protocol = "vxlan"
    id = 1
    underlay = "u0"
    remote = "10.30.0.10"
    inner = ["10.101.0.0/16"]
    flood = true
    [tunnel.short]
    protocol = "vlan"
    id = 2
    underlay = "u1"
    inner = ["10.102.0.0/16"]
    flood = true
    [tunnel.none]
    protocol = "geneve"
    id = 3
    underlay = "u0"
    remote = "10.30.0.11"
    inner = ["10.103.0.0/16"]
    [tunnel.other]
    protocol = "geneve"
    id = 4
    segment = "quiet"
    underlay = "u0"
    remote = "10.30.0.11"
    inner = ["10.101.0.0/16"]
"#;

fn members(list: &[(&str, u32)]) -> Vec<FloodMember> {
    list.iter().map(|(name, ifindex)| FloodMember { name: (*name).into(), ifindex: *ifindex }).collect()
}

fn names(state: &State) -> Vec<&str> {
    state.flood_links.keys().map(|name| &**name).collect()
}

fn steps(fake: &mptm::kernel::fake::Fake, text: &str) -> Vec<String> {
    apply_text(fake, text).steps.iter().map(render::step).collect()
}

#[test]
fn who_gets_copies() {
    let fake = scene();
    apply_text(&fake, FLOODING);
    let state = live(&fake).state;
    assert_eq!(state.floods.keys().map(|name| &**name).collect::<Vec<_>>(), ["default"]);
    let flood = &state.floods["default"];
    // A tag is shorter than vxlan's header, which is what counts.
    assert_eq!(flood.tunnels, members(&[("short", 3), ("long", 2)]));
    assert_eq!(flood.workloads, members(&[("w0", 10), ("w1", 11)]));
    assert!(!flood.sum);
    assert_eq!(names(&state), ["u0", "u1", "w0", "w1"]);

    let (key, value) = fake.world().maps.as_ref().unwrap().entries(Map::Floods).remove(0);
    let ids = live(&fake).ids;
    assert_eq!(number(&key), ids.segments.number("default").unwrap());
    let value = abi::Flood::read_from_bytes(&value).unwrap();
    assert_eq!((value.tunnels, value.workloads, value.flags), (2, 2, 0));
    let short = abi::FloodMember { id: ids.tunnels.number("short").unwrap(), ifindex: 3 };
    assert_eq!(value.members[0], short);
    let w1 = abi::FloodMember { id: ids.interfaces.number("w1").unwrap(), ifindex: 11 };
    assert_eq!(value.members[3], w1);
    assert_eq!(value.members[4], abi::FloodMember::default());
}

#[test]
fn a_checksum_is_wanted_if_any_tunnel_has_one() {
    let fake = scene();
    apply_text(&fake, FLOODING);
    assert_eq!(
        steps(
            &fake,
            &FLOODING.replace(
                "inner = [\"10.101.0.0/16\"]\n    flood",
                "inner = [\"10.101.0.0/16\"]\n    udp_checksum = true\n    flood"
            )
        ),
        ["~ tunnel long: udp_checksum default -> true", "~ flood default: sum none -> wanted"]
    );
}

#[test]
fn nothing_of_it_where_nobody_floods() {
    let fake = scene();
    apply_text(&fake, FLOODING);
    let removed = steps(&fake, &FLOODING.replace("flood = true", ""));
    assert_eq!(
        removed,
        [
            "- flood-program u0: runs mptm_flood, index 2",
            "- flood-program u1: runs mptm_flood, index 3",
            "- flood-program w0: runs mptm_flood, index 10",
            "- flood-program w1: runs mptm_flood, index 11",
            "~ tunnel long: flood true -> false",
            "~ tunnel short: flood true -> false",
            "- flood default: tunnels short on index 3; long on index 2, workloads w0 on index 10; w1 on index 11",
        ]
    );
    assert!(fake.world().flood_links.is_empty());
    assert!(fake.world().maps.as_ref().unwrap().entries(Map::Floods).is_empty());
}

#[test]
fn what_is_detached_or_changed_by_others_is_mended() {
    let fake = scene();
    apply_text(&fake, FLOODING);
    fake.world().flood_links.get_mut("w0").unwrap().ifindex = 0;
    assert_eq!(steps(&fake, FLOODING), ["~ flood-program w0: index detached -> 10"]);
    fake.world().flood_links.remove("u1");
    assert_eq!(steps(&fake, FLOODING), ["+ flood-program u1: runs mptm_flood, index 3"]);
    let (key, mut value) = fake.world().maps.as_ref().unwrap().entries(Map::Floods).remove(0);
    value[100] ^= 1;
    fake.world().maps.as_mut().unwrap().poke(Map::Floods, &key, &value);
    assert_eq!(
        steps(&fake, FLOODING),
        [
            "~ flood default: tunnels short on index 3; long on index 2; #damaged on index 0 -> short on index 3; \
          long on index 2"
        ]
    );
    let table = 77_u32;
    fake.world().maps.as_mut().unwrap().poke(Map::Floods, table.as_bytes(), &value);
    assert!(steps(&fake, FLOODING).last().unwrap().starts_with("- flood #77"));
    assert_eq!(live(&fake).state, desired(&fake, FLOODING));
}

#[test]
fn a_new_build_takes_the_place_of_the_old() {
    let fake = scene();
    apply_text(&fake, FLOODING);
    fake.world().build = Build([9; 32]);
    assert_eq!(steps(&fake, FLOODING), ["~ data-plane: build 070707070707 -> 090909090909"]);
    let world = fake.world();
    assert!(world.flood_links.values().all(|link| link.program_id == world.pinned[&Program::Flood]));
}

#[test]
fn devices_that_swap_their_names() {
    let fake = scene();
    apply_text(&fake, FLOODING);
    fake.world().device("w0").name = "tmp".into();
    fake.world().device("w1").name = "w0".into();
    fake.world().device("tmp").name = "w1".into();
    apply_text(&fake, FLOODING);
    let flood = live(&fake).state.floods["default"].clone();
    assert_eq!(flood.workloads, members(&[("w0", 11), ("w1", 10)]));
    down(&fake);
    assert!(fake.world().flood_links.is_empty());
}

#[test]
fn a_kernel_without_links_for_tc() {
    let fake = scene();
    fake.world().has_tcx = false;
    let before = essence(&fake);
    let error = carry_out(&fake, &desired(&fake, FLOODING)).unwrap_err();
    assert!(error.step.starts_with("+ flood-program u0"), "{error}");
    assert_eq!(difference(&essence(&fake), &before), None);
    apply_text(&fake, &FLOODING.replace("flood = true", ""));
}

#[test]
fn more_than_a_node_should_copy_to() {
    let fake = scene();
    let mut text = String::from(
        "[interface.u0]\nrole = 'underlay'\n[interface.w0]\nrole = 'workload'\naddresses = ['10.250.0.100']\n",
    );
    for number in 0..256 {
        text += &format!(
            "[tunnel.t{number}]\nprotocol = 'vxlan'\nid = {number}\nremote = '10.30.0.10'\nflood = true\n\
             inner = ['10.100.0.{number}']\n"
        );
    }
    let errors = resolved(&fake, &text, Neighbours::Look).map(drop).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(
        errors[0].to_string(),
        "segment default floods to 257 tunnels and workloads, and there is room for 256"
    );
}
