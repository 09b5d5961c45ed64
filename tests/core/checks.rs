//! Whether a plan has been carried out is told by what it has changed, and any other value there is noticed.

use std::collections::BTreeSet;

use mptm::kernel::abi::name_kind;
use mptm::kernel::fake::Fake;
use mptm::kernel::{DataPlane, Map};
use mptm::plan::{Plan, Step, plan};
use mptm::state::State;
use mptm::store::{Ids, contents_are_as_in, is_as_in, is_carried_out, is_done};

use super::failures::OTHER;
use super::scene::{SMALL, apply_text, carry_out, desired, down, live, number, scene};

/// What leads from `SMALL` to a text, carried out; and the numbers that it goes by.
fn changed(text: &str) -> (Fake, Plan, Ids) {
    let fake = scene();
    apply_text(&fake, SMALL);
    let plan = carry_out(&fake, &desired(&fake, text)).unwrap();
    let ids = live(&fake).ids;
    assert!(!plan.is_empty());
    (fake, plan, ids)
}

/// A route more, one less, one elsewhere; a tunnel more, and one with another far end.
fn edits() -> [String; 4] {
    let more =
        "\n[tunnel.t2]\nprotocol = \"geneve\"\nid = 44\nremote = \"10.30.0.12\"\ninner = [\"10.102.0.1\"]\n";
    [
        SMALL.replace("\"10.101.0.1\"", "\"10.101.0.1\", \"10.101.0.2\", \"10.103.0.0/16\""),
        SMALL.replace(", \"10.101.0.1\"", ""),
        SMALL.replace("10.30.0.10", "10.30.0.12"),
        SMALL.replace(", \"10.101.0.1\"", "") + &more.replace("10.102.0.1", "10.101.0.1"),
    ]
}

#[test]
fn what_was_carried_out_is_done() {
    for text in edits() {
        let (fake, plan, ids) = changed(&text);
        assert!(is_done(&plan, &fake, &ids).unwrap(), "{plan:?}");
    }
}

/// What a step is about.
fn object(step: &Step) -> String {
    match step {
        Step::Route(segment, prefix, _) => format!("route {segment} {prefix}"),
        Step::Endpoint(endpoint, _) => format!("{endpoint:?}"),
        Step::Tunnel(name, _) => format!("tunnel {name}"),
        other => format!("{other:?}"),
    }
}

fn entries(fake: &Fake, map: Map) -> Vec<(Vec<u8>, Vec<u8>)> {
    fake.world().maps.as_ref().map(|maps| maps.entries(map)).unwrap_or_default()
}

/// Whether a key of `names` is a tunnel's.
fn is_of_tunnel(key: &[u8]) -> bool {
    [name_kind::TUNNEL, name_kind::NEXT_HOP].contains(&number(key))
}

#[test]
fn any_other_value_is_noticed() {
    let mut noticed = 0;
    for text in edits() {
        let (fake, made, ids) = changed(&text);
        let objects: BTreeSet<String> = made.steps.iter().map(object).collect();
        let wanted = desired(&fake, &text);
        for map in [Map::Routes, Map::Prefixes, Map::Endpoints, Map::Active, Map::Tunnels, Map::Names] {
            for (key, value) in entries(&fake, map) {
                let mut other = value.clone();
                other[0] ^= 0x41;
                fake.clone().put(map, &key, &other).unwrap();
                let rest = plan(&wanted, &live(&fake).state);
                let is_done = is_done(&made, &fake, &ids).unwrap();
                // Who has lost its name is another, for those who refer to it, too: but they are as they were.
                let counts = |object: &String| match map {
                    Map::Names => object.starts_with("tunnel") && is_of_tunnel(&key),
                    _ => true,
                };
                let missed = rest.steps.iter().map(object).filter(counts);
                let missed = missed.into_iter().find(|object| is_done && objects.contains(object));
                assert_eq!(missed, None, "{map:?}");
                noticed += usize::from(!is_done);
                fake.clone().put(map, &key, &value).unwrap();
            }
        }
        assert!(is_done(&made, &fake, &ids).unwrap());
    }
    assert!(noticed > 10, "{noticed}");
}

#[test]
fn of_other_steps_nothing_is_said() {
    for text in [
        SMALL.replace("[tunnel.t1]", "[interface.p0]\nrole = \"pass\"\n[tunnel.t1]"),
        SMALL.replace("\"10.250.0.100\", ", "\"10.250.0.100\", \"10.250.0.101\", "),
    ] {
        let (fake, plan, ids) = changed(&text);
        assert!(!is_done(&plan, &fake, &ids).unwrap(), "{plan:?}");
    }
    assert!(is_done(&Plan::default(), &scene(), &Ids::default()).unwrap());
}

/// Whether all is as it should be, told without a difference of states.
fn is_all(wanted: &State, fake: &Fake, ids: &Ids) -> bool {
    contents_are_as_in(wanted, fake, ids).unwrap() && is_as_in(wanted, fake, fake, ids).unwrap()
}

#[test]
fn all_that_there_is_is_compared() {
    let mut compared = 0;
    for text in [SMALL, OTHER] {
        let fake = scene();
        apply_text(&fake, text);
        let (wanted, ids) = (desired(&fake, text), live(&fake).ids);
        assert!(is_all(&wanted, &fake, &ids));
        let mut check = |map: Map, change: &dyn Fn(&Fake)| {
            let before = fake.world().maps.clone();
            change(&fake);
            let is_all = is_all(&wanted, &fake, &ids);
            let rest = plan(&wanted, &live(&fake).state);
            assert!(rest.is_empty() || !is_all, "{map:?}: {rest:?}");
            let is_content = [Map::Routes, Map::Prefixes, Map::Endpoints].contains(&map);
            assert!(!(is_content && contents_are_as_in(&wanted, &fake, &ids).unwrap()), "{map:?}");
            fake.world().maps = before;
            compared += usize::from(!is_all);
        };
        for map in Map::ALL.into_iter().filter(|map| ![Map::Meta, Map::Cpus].contains(map)) {
            for (key, value) in entries(&fake, map) {
                for place in [0, value.len() - 1] {
                    let mut other = value.clone();
                    other[place] ^= 1;
                    check(map, &|fake| fake.world().maps.as_mut().unwrap().poke(map, &key, &other));
                }
                check(map, &|fake| fake.world().maps.as_mut().unwrap().remove(map, &key));
            }
        }
        // One more, and one in the place of another.
        for map in [Map::Routes, Map::Prefixes, Map::Endpoints] {
            let Some((key, value)) = entries(&fake, map).pop() else { continue };
            let mut other = key.clone();
            *other.last_mut().unwrap() ^= 1;
            check(map, &|fake| fake.world().maps.as_mut().unwrap().poke(map, &other, &value));
            check(map, &|fake| {
                let mut world = fake.world();
                let maps = world.maps.as_mut().unwrap();
                maps.remove(map, &key);
                maps.poke(map, &other, &value);
            });
        }
    }
    assert!(compared > 100, "{compared}");
}

#[test]
fn other_numbers_or_links_are_noticed() {
    let fake = scene();
    apply_text(&fake, SMALL);
    let (wanted, ids) = (desired(&fake, SMALL), live(&fake).ids);
    let mut others = ids.clone();
    others.tunnels.remove("t0");
    others.tunnels.insert("t0".into(), 77);
    assert!(!is_as_in(&wanted, &fake, &fake, &others).unwrap());
    assert!(!contents_are_as_in(&wanted, &fake, &others).unwrap());
    fake.clone().detach("w0").unwrap();
    assert!(contents_are_as_in(&wanted, &fake, &ids).unwrap());
    assert!(!is_as_in(&wanted, &fake, &fake, &ids).unwrap());
}

#[test]
fn a_whole_plan_is_carried_out_or_not() {
    let fake = scene();
    let made = apply_text(&fake, SMALL);
    let (wanted, ids) = (desired(&fake, SMALL), live(&fake).ids);
    let check = |plan: &Plan, state: &State, contents| {
        is_carried_out(plan, state, &fake, &fake, &ids, contents).unwrap()
    };
    assert!(check(&made, &wanted, None));
    assert!(check(&made, &wanted, Some(Ok(true))));
    assert!(!check(&made, &wanted, Some(Ok(false))));
    // Without a data plane there is nothing to compare: that there is none, a reading tells.
    let gone = down(&fake);
    assert!(!check(&gone, &State::default(), None));
    assert!(!check(&made, &wanted, None));
}
