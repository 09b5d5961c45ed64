//! How large the maps are: as the file needs them, and no larger than the kernel has memory for.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use mptm::kernel::fake::{Device, Fake};
use mptm::kernel::{Build, DataPlane as _, Map, Sizes, Table};
use mptm::mac::MacAddr;
use mptm::plan::{Change, Plan, Step, plan};
use mptm::render;
use mptm::rollback::go_back;

use crate::scene::{SMALL, apply_text, carry_out, desired, difference, down, essence, live, runs, scene};

/// A file of so many tunnels, each with an address of its own.
fn tunnels(prefix: &str, count: u32) -> String {
    let mut text =
        "[interface.u0]\nrole = 'underlay'\n[interface.w0]\nrole = 'workload'\naddresses = ['10.250.0.100']\n\
         [defaults]\nprotocol = 'geneve'\nremote = '10.30.0.10'\n"
            .to_owned();
    for number in 0..count {
        let (high, low) = (number / 250, number % 250);
        let _ =
            writeln!(text, "[tunnel.{prefix}{number}]\nid = {number}\ninner = ['10.{}.{high}.{low}']", 100);
    }
    text
}

/// The steps that change sizes, and their places in a plan.
fn resizes(plan: &Plan) -> Vec<(usize, String)> {
    let is_resize = |(_, step): &(usize, &Step)| matches!(step, Step::DataPlane(change) if matches!(**change, Change::Modify { .. }));
    plan.steps.iter().enumerate().filter(is_resize).map(|(at, step)| (at, render::step(step))).collect()
}

fn sizes(fake: &Fake) -> Sizes {
    fake.sizes().unwrap()
}

/// Another apply, which has nothing to do.
fn nothing_to_do(fake: &Fake, text: &str) {
    let steps = plan(&desired(fake, text), &live(fake).state).steps;
    assert!(steps.is_empty(), "{steps:?}");
}

#[test]
fn as_the_file_needs() {
    let fake = scene();
    let start = Instant::now();
    apply_text(&fake, &tunnels("t", 20_000));
    let now = sizes(&fake);
    assert_eq!((now[Table::Tunnels], now[Table::Routes]), (32_768, 32_768));
    assert_eq!(now[Table::Interfaces], 128, "what there is little of has room for more");
    nothing_to_do(&fake, &tunnels("t", 20_000));
    assert!(start.elapsed() < Duration::from_secs(60), "nothing may be quadratic: {:?}", start.elapsed());
}

#[test]
fn a_thousand_interfaces() {
    let fake = scene();
    let mut text = "[interface.u0]\nrole = 'underlay'\n".to_owned();
    for number in 0..1000_u32 {
        let (name, ifindex) = (format!("c{number}"), 1000 + number);
        let [_, _, high, low] = ifindex.to_be_bytes();
        let mac = MacAddr([2, 0, 0, 9, high, low]);
        fake.world().add_device(0, ifindex, Device::new(&name, Some("dummy"), mac));
        let _ = writeln!(
            text,
            "[interface.{name}]\nrole = 'workload'\naddresses = ['10.251.{high}.{low}']\nmode = 'generic'"
        );
    }
    apply_text(&fake, SMALL);
    let plan = apply_text(&fake, &text);
    let (_, step) = &resizes(&plan)[0];
    assert!(step.contains("room for interfaces 128 -> 1024"), "{step}");
    assert!(["c0", "c999"].iter().all(|name| runs(&fake, name).is_some()));
    nothing_to_do(&fake, &text);
    down(&fake);
}

#[test]
fn growing_comes_first_and_shrinking_last() {
    let fake = scene();
    apply_text(&fake, &tunnels("t", 10));
    let before = sizes(&fake);
    let plan = apply_text(&fake, &tunnels("t", 3_000));
    let steps = resizes(&plan);
    assert_eq!(
        steps[0],
        (
            0,
            "~ data-plane: room for tunnels 256 -> 4096, room for routes 1024 -> 4096, \
             room for endpoints 1024 -> 4096, room for names 1024 -> 8192"
                .into()
        )
    );
    assert_eq!(steps.len(), 1);
    nothing_to_do(&fake, &tunnels("t", 3_000));
    // Not until it is far too large.
    assert_eq!(resizes(&apply_text(&fake, &tunnels("t", 1_500))), []);
    nothing_to_do(&fake, &tunnels("t", 1_500));
    let plan = apply_text(&fake, &tunnels("t", 10));
    assert_eq!(resizes(&plan).len(), 1);
    assert_eq!(resizes(&plan)[0].0, plan.steps.len() - 1);
    assert_eq!(sizes(&fake), before);
    nothing_to_do(&fake, &tunnels("t", 10));
    assert!(runs(&fake, "u0").is_some(), "the links go with the maps");
    down(&fake);
}

#[test]
fn what_comes_beside_what_goes() {
    let fake = scene();
    apply_text(&fake, &tunnels("old", 900));
    assert_eq!(sizes(&fake)[Table::Tunnels], 1024);
    let plan = apply_text(&fake, &tunnels("new", 900));
    let [(0, step)] = &resizes(&plan)[..] else { panic!("{:?}", resizes(&plan)) };
    assert!(step.contains("room for tunnels 1024 -> 2048"), "{step}");
    nothing_to_do(&fake, &tunnels("new", 900));
    // Those that stay keep their numbers, which are high: so much room they need, however few they are.
    apply_text(&fake, &tunnels("new", 900).replace("old", "new"));
    let few = tunnels("new", 900).split("[tunnel.new3]").next().unwrap().to_owned();
    apply_text(&fake, &few);
    assert_eq!(sizes(&fake)[Table::Tunnels], 2048);
    nothing_to_do(&fake, &few);
}

#[test]
fn grown_maps_are_undone() {
    let fake = scene();
    apply_text(&fake, &tunnels("t", 10));
    let (before, state) = (essence(&fake), live(&fake).state);
    let want = desired(&fake, &tunnels("t", 400));
    let changes = {
        let fake = fake.fork();
        let before = fake.world().changes;
        carry_out(&fake, &want).unwrap();
        fake.world().changes - before
    };
    for change in (0..changes).step_by(97) {
        let fake = fake.fork();
        let number = fake.world().changes + change;
        fake.world().fail_at = Some(number);
        let error = carry_out(&fake, &want).unwrap_err();
        assert!(error.stuck.is_empty(), "{change}: {error}");
        assert_eq!(live(&fake).state, state, "{change}");
        let mut now = essence(&fake);
        // Those that are back are loaded anew.
        (now.pinned, now.programs, now.links) =
            (before.pinned.clone(), before.programs.clone(), before.links.clone());
        now.namespaces.clone_from(&before.namespaces);
        assert_eq!(difference(&now, &before), None, "{change}");
    }
}

#[test]
fn an_upgrade_that_grows_is_undone() {
    let fake = scene();
    apply_text(&fake, &tunnels("t", 10));
    fake.world().build = Build([9; 32]);
    let (before, want) = (essence(&fake), desired(&fake, &tunnels("t", 400)));
    let fork = fake.fork();
    let number = fork.world().changes + 500;
    fork.world().fail_at = Some(number);
    let error = carry_out(&fork, &want).unwrap_err();
    assert!(error.undone > 50 && error.stuck.is_empty(), "{error}");
    assert_eq!(difference(&essence(&fork), &before), None, "the old programs, and the old maps");
    let plan = carry_out(&fake, &want).unwrap();
    let step = render::step(&plan.steps[0]);
    assert!(step.starts_with("~ data-plane: build 070707070707 -> 090909090909, room for tunnels"), "{step}");
}

#[test]
fn going_back_shrinks_again() {
    let fake = scene();
    apply_text(&fake, &tunnels("t", 10));
    let before = live(&fake).state;
    fake.world().build = Build([9; 32]);
    apply_text(&fake, &tunnels("u", 1000));
    go_back(&before, &mut fake.clone(), &mut fake.clone()).unwrap();
    let mut now = live(&fake).state;
    assert_eq!(now.data_plane.unwrap().build, Build([9; 32]), "the old programs know the old maps only");
    now.data_plane = before.data_plane;
    assert_eq!(now, before);
}

#[test]
fn no_memory() {
    for before in ["", SMALL] {
        let fake = scene();
        apply_text(&fake, before);
        fake.world().most_entries = Some(2048);
        let there = essence(&fake);
        let error = carry_out(&fake, &desired(&fake, &tunnels("t", 3_000))).unwrap_err();
        assert_eq!(error.source.to_string(), "cannot make the map active for 4096 entries");
        assert_eq!(error.source.source.as_ref().and_then(std::io::Error::raw_os_error), Some(libc::ENOMEM));
        assert!(error.stuck.is_empty(), "{error}");
        assert_eq!(difference(&essence(&fake), &there), None);
    }
}

#[test]
fn a_map_that_is_full() {
    let fake = scene();
    let before = essence(&fake);
    for (map, room) in
        [(Map::Routes, 1), (Map::Prefixes, 2), (Map::Endpoints, 1), (Map::Saved, 3), (Map::Names, 5)]
    {
        let fake = fake.fork();
        fake.world().room.insert(map, room);
        let error = carry_out(&fake, &desired(&fake, SMALL)).unwrap_err();
        assert_eq!(error.source.to_string(), format!("cannot write to the map {}", map.name()));
        assert_eq!(error.source.hint, Some(format!("it is full: it has room for {room} entries")));
        assert!(error.to_string().contains(" failed; nothing is changed ("), "{error}");
        fake.world().room.clear();
        assert_eq!(difference(&essence(&fake), &before), None);
    }
}
