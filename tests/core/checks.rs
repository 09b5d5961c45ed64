//! Whether a plan has been carried out is told by what it has changed, and any other value there is noticed.

use std::collections::BTreeSet;

use mptm::kernel::abi::name_kind;
use mptm::kernel::fake::Fake;
use mptm::kernel::{DataPlane, Map};
use mptm::plan::{Plan, Step, plan};
use mptm::store::{Ids, is_done};

use super::scene::{SMALL, apply_text, carry_out, desired, live, number, scene};

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
