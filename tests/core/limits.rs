//! More than there is room for.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use mptm::kernel::{Map, abi};
use mptm::resolve::Neighbours;

use crate::scene::{SMALL, apply_text, carry_out, desired, difference, essence, live, resolved, scene};

fn tunnels(prefix: &str, count: u32) -> String {
    let mut text =
        "[interface.u0]\nrole = 'underlay'\n[defaults]\nprotocol = 'geneve'\nremote = '10.30.0.10'\n"
            .to_owned();
    for number in 0..count {
        let (high, low) = (number / 250, number % 250);
        let _ =
            writeln!(text, "[tunnel.{prefix}{number}]\nid = {number}\ninner = ['10.{}.{high}.{low}']", 100);
    }
    text
}

#[test]
fn too_many_tunnels() {
    let fake = scene();
    let before = essence(&fake);
    let errors = resolved(&fake, &tunnels("t", 20_000), Neighbours::Look).map(drop).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].to_string(), "there are 20000 tunnels, and room for 16384");
    assert_eq!(errors[0].hint.as_deref(), Some("spread them over several nodes"));
    assert_eq!(difference(&essence(&fake), &before), None);
}

#[test]
fn too_many_at_a_time() {
    let fake = scene();
    let start = Instant::now();
    apply_text(&fake, &tunnels("old", 9_000));
    let errors = resolved(&fake, &tunnels("new", 9_000), Neighbours::Look).map(drop).unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "there is room for 16384 tunnels, and not for 9000 beside the 9000 that are to go"
    );
    assert_eq!(
        errors[0].hint.as_deref(),
        Some("remove them first, by a file that has neither them nor the new ones")
    );
    // As many as there may be, side by side.
    let state = desired(&fake, &tunnels("new", 7_384));
    carry_out(&fake, &state).unwrap();
    assert_eq!(live(&fake).state, state);
    assert!(start.elapsed() < Duration::from_secs(60), "nothing may be quadratic: {:?}", start.elapsed());
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

#[test]
fn routes_count_with_their_pairs() {
    let fake = scene();
    apply_text(&fake, SMALL);
    let mut state = live(&fake).state;
    let limit = abi::MAX_ROUTES;
    // One segment that fills the map of single addresses; a file this long would take a while to read.
    let table = state.segments.get_mut("default").unwrap();
    for number in 0..limit {
        let address = std::net::Ipv4Addr::from(0x0b00_0000 + number);
        table.insert(std::net::IpAddr::from(address).into(), mptm::state::Route::Tunnel("t0".into()));
    }
    let mut live = live(&fake);
    live.state = state;
    let config = crate::scene::config(SMALL);
    let errors =
        mptm::resolve::resolve(&config, &fake, &fake, &live, Neighbours::Look).map(drop).unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "there is room for 1048576 routes to single addresses, and not for 3 beside the 1048576 that are to go"
    );
}
