//! How large the maps should be: a power of two above what the file needs, so that one route more is seldom one too many.
//! What is far too large shrinks, and only that: maps that have just grown don't shrink with the next edit.

use std::collections::BTreeMap;
use std::iter::Peekable;

use ipnet::IpNet;

use crate::config::model::Name;
use crate::kernel::{Sizes, Table};
use crate::state::{Route, State};
use crate::store::{Ids, Live};

/// Entries beyond what is needed: what changes its key is there twice for a moment.
const SPARE: usize = 16;
/// A table of more than this many times what would do is too large.
const FAR_TOO_LARGE: u32 = 4;

/// What a table has at least: so much that most nodes never outgrow it, and little memory.
fn floor(table: Table) -> u32 {
    match table {
        Table::Interfaces => 128,
        Table::Tunnels => 256,
        Table::Floods => 64,
        Table::Routes | Table::Endpoints | Table::Names | Table::Saved => 1024,
    }
}

/// The size that would do.
fn fitting(table: Table, need: usize) -> u32 {
    // More than that no kernel gives, as it will say itself.
    let need = u32::try_from(need.saturating_add(SPARE)).unwrap_or(u32::MAX);
    need.checked_next_power_of_two().unwrap_or(u32::MAX).max(floor(table))
}

/// The size that a table has to have, where it has `now`.
fn grown(table: Table, now: u32, need: usize) -> u32 {
    let fitting = fitting(table, need);
    if need.saturating_add(SPARE) > now as usize { fitting } else { now }
}

/// The size that a table should have in the end, where it has `now`.
fn settled(table: Table, now: u32, need: usize) -> u32 {
    let fitting = fitting(table, need);
    if now / FAR_TOO_LARGE >= fitting { fitting } else { grown(table, now, need) }
}

/// What `desired` needs in the end, where `live` is what there is now.
pub fn settle(desired: &State, live: &Live) -> Sizes {
    let between = between(desired, &live.state);
    let need = needs(desired, &State::default());
    Sizes::each(|table| {
        let numbers = highest(table, desired, &live.ids);
        settled(table, between[table], need[table as usize].max(numbers))
    })
}

/// What there must be room for while `actual` becomes `desired`: what comes is there before what goes is gone.
pub fn between(desired: &State, actual: &State) -> Sizes {
    let need = needs(desired, actual);
    let now = actual.data_plane.map(|data_plane| data_plane.sizes).unwrap_or_default();
    let wanted = desired.data_plane.map(|data_plane| data_plane.sizes).unwrap_or_default();
    Sizes::each(|table| grown(table, now[table].max(wanted[table]), need[table as usize]))
}

/// The numbers that an array must have room for: those that are in use stay, and new ones fill the gaps.
fn highest(table: Table, desired: &State, ids: &Ids) -> usize {
    let end = match table {
        Table::Interfaces => ids.interfaces.end_with(desired.interfaces.keys()),
        Table::Tunnels => ids.tunnels.end_with(desired.tunnels.keys()),
        _ => 0,
    };
    end as usize
}

/// How many entries there are, at most, while both states are there.
fn needs(desired: &State, actual: &State) -> [usize; Table::ALL.len()] {
    let interfaces = both(&desired.interfaces, &actual.interfaces);
    let tunnels = both(&desired.tunnels, &actual.tunnels);
    let segments = both(&desired.segments, &actual.segments);
    Table::ALL.map(|table| match table {
        Table::Interfaces => interfaces,
        Table::Tunnels => tunnels,
        Table::Routes => routes(desired, actual),
        Table::Endpoints => both(&desired.endpoints, &actual.endpoints),
        Table::Floods => both(&desired.floods, &actual.floods),
        // An interface's own, its other end's and that one's namespace; a tunnel's own and its next hop's; a segment's.
        Table::Names => 3 * interfaces + 2 * tunnels + segments,
        Table::Saved => both(&desired.settings, &actual.settings),
    })
}

/// How many keys are in either map.
fn both<K: Ord, V>(one: &BTreeMap<K, V>, other: &BTreeMap<K, V>) -> usize {
    let mut count = 0;
    merge(one, other, |_, _, _| count += 1);
    count
}

/// Goes through two maps in the order of their keys, each key once.
fn merge<'a, K: Ord, V>(
    one: &'a BTreeMap<K, V>,
    other: &'a BTreeMap<K, V>,
    mut each: impl FnMut(&'a K, Option<&'a V>, Option<&'a V>),
) {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    loop {
        let key = match (one.peek(), other.peek()) {
            (Some((one, _)), Some((other, _))) => *one.min(other),
            (Some((key, _)), None) | (None, Some((key, _))) => *key,
            (None, None) => return,
        };
        let value = |entries: &mut Peekable<std::collections::btree_map::Iter<'a, K, V>>| {
            entries.next_if(|(next, _)| *next == key).map(|(_, value)| value)
        };
        each(key, value(&mut one), value(&mut other));
    }
}

/// How many routes to single addresses there are in either state, with those of pairs.
fn routes(desired: &State, actual: &State) -> usize {
    let none = BTreeMap::new();
    let no_pairs = BTreeMap::new();
    let mut count = 0;
    merge(&desired.segments, &actual.segments, |_, one, other| {
        merge(one.unwrap_or(&none), other.unwrap_or(&none), |prefix, one, other| {
            count += usize::from(is_host(prefix));
            let pairs = |route| pairs_of(route).unwrap_or(&no_pairs);
            let (one, other) = (pairs(one), pairs(other));
            if !one.is_empty() || !other.is_empty() {
                merge(one, other, |prefix, _, _| count += usize::from(is_host(prefix)));
            }
        });
    });
    count
}

fn is_host(prefix: &IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

fn pairs_of(route: Option<&Route>) -> Option<&BTreeMap<IpNet, Name>> {
    match route {
        Some(Route::Workload { pairs, .. }) => Some(pairs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_is_seldom_one_too_many() {
        let mut size = fitting(Table::Routes, 0);
        let mut replaced = 0;
        for need in 0..1_000_000 {
            let next = settled(Table::Routes, size, need);
            replaced += usize::from(next != size);
            assert!(next as usize >= need + SPARE);
            size = next;
        }
        assert_eq!(size, 1 << 20);
        assert_eq!(replaced, 10, "from 1024 to 1048576");
        for need in (0..1_000_000).rev() {
            let next = settled(Table::Routes, size, need);
            replaced += usize::from(next != size);
            assert!(next as usize >= need + SPARE);
            size = next;
        }
        assert_eq!((size, replaced), (1024, 15), "and back in half as many steps");
    }

    #[test]
    fn what_is_settled_stays() {
        for now in (0..32).map(|shift| 1_u32 << shift).chain([0, 5, 16_384, u32::MAX]) {
            for need in [0, 1, 100, 1008, 1009, 20_000, 1 << 20, usize::MAX] {
                let size = settled(Table::Tunnels, now, need);
                assert_eq!(settled(Table::Tunnels, size, need), size, "{now} {need}");
                assert_eq!(grown(Table::Tunnels, size, need), size, "{now} {need}");
            }
        }
    }

    #[test]
    fn keys_of_either() {
        let one = BTreeMap::from([(1, 'a'), (2, 'b'), (5, 'c')]);
        let other = BTreeMap::from([(2, 'd'), (3, 'e')]);
        let mut seen = Vec::new();
        merge(&one, &other, |key, one, other| seen.push((*key, one.copied(), other.copied())));
        let (a, b, c, d, e) = (Some('a'), Some('b'), Some('c'), Some('d'), Some('e'));
        assert_eq!(seen, [(1, a, None), (2, b, d), (3, None, e), (5, c, None)]);
        assert_eq!(both(&one, &other), 4);
    }
}
