//! Maps of an older layout are migrated: all is as the file says, what was counted and saved is kept, and what fails is
//! undone.

use mptm::kernel::Map;
use mptm::kernel::abi::TunnelStats;
use mptm::plan::{Step, plan};

use super::failures::{OTHER, fail_everywhere};
use super::scene::{SMALL, apply_text, carry_out, desired, down, essence, live, number, scene};

/// As an older mptm would have left it.
fn make_older(fake: &mptm::kernel::fake::Fake) {
    let mut world = fake.world();
    let maps = world.maps.as_mut().unwrap();
    let (key, mut row) = maps.entries(Map::Meta).remove(0);
    row[..4].copy_from_slice(&1_u32.to_ne_bytes());
    maps.poke(Map::Meta, &key, &row);
}

#[test]
fn an_older_layout_is_migrated() {
    let fake = scene();
    let before = essence(&fake);
    apply_text(&fake, OTHER);
    let ids = live(&fake).ids;
    let counted = vec![7_u8; size_of::<TunnelStats>()];
    for tunnel in 0..2_u32 {
        fake.world().maps.as_mut().unwrap().poke(Map::TunnelStats, &tunnel.to_ne_bytes(), &counted);
    }
    make_older(&fake);
    let want = desired(&fake, OTHER);
    let old = live(&fake);
    assert_eq!(old.state.settings, want.settings);
    assert!(old.state.tunnels.is_empty() && !old.state.links.is_empty());
    let plan = plan(&want, &old.state);
    assert!(
        matches!(&plan.steps[0], Step::DataPlane(change) if change.before().is_some_and(|before| before.layout == 1))
    );
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::Setting(..))), "settings are as they were");
    carry_out(&fake, &want).unwrap();
    assert_eq!(live(&fake).state, want);
    for name in want.tunnels.keys() {
        assert_eq!(live(&fake).ids.tunnels.number(name), ids.tunnels.number(name), "{name}");
    }
    let kept = fake.world().maps.as_ref().unwrap().entries(Map::TunnelStats);
    for tunnel in 0..2 {
        assert!(kept.iter().any(|(key, value)| number(key) == tunnel && *value == counted), "{tunnel}");
    }
    assert!(apply_text(&fake, OTHER).is_empty());
    down(&fake);
    assert_eq!(super::scene::difference(&essence(&fake), &before), None);
}

#[test]
fn a_migration_that_fails_is_undone() {
    for to in [OTHER, SMALL] {
        let fake = scene();
        apply_text(&fake, OTHER);
        make_older(&fake);
        fail_everywhere(&fake, &desired(&fake, to));
    }
    // Nothing but taking it down needs no migration.
    let fake = scene();
    apply_text(&fake, OTHER);
    make_older(&fake);
    down(&fake);
    assert!(fake.world().maps.is_none());
}
