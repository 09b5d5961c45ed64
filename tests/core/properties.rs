//! What holds for all files and worlds.

use mptm::apply::apply;
use mptm::config;
use mptm::dump::dump;
use mptm::kernel::fake::{Fake, World};
use mptm::kernel::{Map, Network as _};
use mptm::mac::MacAddr;
use mptm::plan::plan;
use mptm::render;
use mptm::state::State;
use proptest::prelude::*;

use crate::files::file;
use crate::scene::{WORKLOADS, apply_text, carry_out, desired, difference, down, essence, live};

/// The scene, where the workloads' other ends have IPv6 addresses, too.
fn scene() -> Fake {
    let fake = crate::scene::scene();
    for workload in 0..WORKLOADS {
        let address = format!("fd00:250:{workload}::77/64").parse().unwrap();
        fake.world().device_in(workload + 1, &format!("c{workload}")).addresses.push(address);
    }
    fake
}

/// What a world may do by itself between two applies.
fn meddle(fake: &Fake, how: u8) {
    let mut world = fake.world();
    match how {
        1 => world.device("w0").mtu = 1280,
        2 => world.device("u0").mtu = 9000,
        3 => drop(
            world.namespaces[1]
                .devices
                .values_mut()
                .next()
                .unwrap()
                .features
                .insert("rx-gro".into(), mptm::kernel::Feature { active: false, changeable: true }),
        ),
        4 => world.device("w1").mac = Some(MacAddr([2, 9, 9, 9, 9, 9])),
        5 => {
            // A container that was started anew.
            world.delete_device(0, 12);
            world.add_veth([(0, 32, "w2"), (3, 4, "c2")]);
            world.device_in(3, "c2").addresses = vec!["10.250.2.77/24".parse().unwrap()];
        }
        6 => world.build = mptm::kernel::Build([8; 32]),
        7 => {
            // Two that changed their names, with their other ends and these ends' namespaces.
            world.device("w3").name = "other".into();
            world.device("w4").name = "w3".into();
            world.device("other").name = "w4".into();
            let (three, four) = (world.namespaces[4].clone(), world.namespaces[5].clone());
            world.namespaces[4].references.clone_from(&four.references);
            world.namespaces[5].references.clone_from(&three.references);
            for (place, name, from) in [(4, "c4", &four), (5, "c3", &three)] {
                let other = world.namespaces[place].devices.values_mut().next().unwrap();
                let other_was = from.devices.values().next().unwrap();
                other.name = name.into();
                other.addresses.clone_from(&other_was.addresses);
            }
        }
        _ => {}
    }
}

/// Where devices changed their names, undoing writes down the new ones: they say the same.
fn nameless(mut world: World, how: u8) -> World {
    if let Some(maps) = world.maps.as_mut().filter(|_| how == 7) {
        for (key, value) in maps.entries(Map::Saved) {
            maps.poke(Map::Saved, &key, value.get(..16).unwrap_or_default());
        }
    }
    world
}

/// What every apply must do.
fn check_apply(fake: &Fake, text: &str) -> Result<(), TestCaseError> {
    let want = desired(fake, text);
    let steps =
        carry_out(fake, &want).map_err(|error| TestCaseError::fail(format!("{error}: {}", error.source)))?;
    let now = live(fake).state;
    prop_assert_eq!(&now, &want, "{:#?}", steps);
    // Once more, from the file: nothing is left to do, and nothing is done.
    let changes = fake.world().changes;
    let again = apply_text(fake, text);
    prop_assert!(again.is_empty(), "{:#?}", again);
    prop_assert_eq!(fake.world().changes, changes);
    // And what is there, written down, is a file that means the same.
    let dumped = dump(&now, |peer| fake.link(&peer.netns, &peer.name).ok()??.mac);
    prop_assert!(dumped.left_out.is_empty(), "{:?}", dumped.left_out);
    let again = config::print(&dumped.config);
    prop_assert_eq!(&desired(fake, &again), &want, "{}", again);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applying_makes_what_is_desired_and_down_what_was(a in file(), b in file(), how in 0..8_u8) {
        let fake = scene();
        let before = essence(&fake);
        check_apply(&fake, &a)?;
        check_apply(&fake, &b)?;
        check_apply(&fake, &a)?;
        down(&fake);
        let difference = difference(&essence(&fake), &before);
        prop_assert!(difference.is_none(), "{}", difference.unwrap_or_default());
        // A world that moves meanwhile.
        check_apply(&fake, &a)?;
        meddle(&fake, how);
        check_apply(&fake, &b)?;
        down(&fake);
        prop_assert_eq!(live(&fake).state, State::default());
        prop_assert!(fake.world().links.is_empty() && fake.world().flood_links.is_empty());
    }

    #[test]
    fn plans_of_states(a in file(), b in file()) {
        let fake = scene();
        let (a, b) = (desired(&fake, &a), desired(&fake, &b));
        prop_assert!(plan(&a, &a).is_empty());
        for step in plan(&b, &a).steps {
            prop_assert_eq!(&step.clone().inverse().inverse(), &step);
            prop_assert!(!render::step(&step).is_empty());
        }
        // The way back has the inverse of each step.
        let mut there: Vec<String> = plan(&b, &a).steps.into_iter().map(|step| format!("{:?}", step.inverse())).collect();
        let mut back: Vec<String> = plan(&a, &b).steps.iter().map(|step| format!("{step:?}")).collect();
        there.sort();
        back.sort();
        prop_assert_eq!(there, back);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_fails_changes_nothing(a in file(), b in file(), how in 0..8_u8, empty in any::<bool>()) {
        let origin = scene();
        if !empty {
            apply_text(&origin, &a);
            meddle(&origin, how);
        }
        let want = desired(&origin, &b);
        let before = nameless(essence(&origin), how);
        let before_state = live(&origin).state;
        for number in 0.. {
            let fake = origin.fork();
            let first = fake.world().changes;
            fake.world().fail_at = Some(first + number);
            let mut live_before = live(&fake);
            let steps = plan(&want, &live_before.state);
            let result = apply(&steps, &mut fake.clone(), &mut fake.clone(), &mut live_before.ids);
            let Err(error) = result else {
                prop_assert!(fake.world().changes <= first + number, "the failure was swallowed");
                prop_assert_eq!(live(&fake).state, want.clone());
                break;
            };
            prop_assert!(error.source.to_string().ends_with("injected"), "{}", error.source);
            prop_assert!(steps.steps.iter().any(|step| render::step(step) == error.step), "{}", error.step);
            prop_assert!(error.stuck.is_empty(), "{}", error);
            prop_assert!(error.to_string().starts_with(&error.step));
            // Links of devices that are gone can't be made again.
            if how == 5 && !empty {
                let mut now = live(&fake).state;
                now.links = before_state.links.clone();
                now.flood_links = before_state.flood_links.clone();
                prop_assert_eq!(&now, &before_state);
            } else {
                if how != 7 {
                    prop_assert_eq!(&live(&fake).state, &before_state, "change {}: {}", number, error);
                }
                let now = nameless(essence(&fake), how);
                let difference = difference(&now, &before);
                prop_assert!(difference.is_none(), "change {}: {}\n{}", number, error, difference.unwrap_or_default());
            }
        }
    }
}
