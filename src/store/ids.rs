//! Which number stands for which name in the maps.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;

use crate::config::model::Name;
use crate::kernel::{KernelError, abi};

/// Names and their numbers, both ways.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    by_name: HashMap<Name, u32>,
    by_number: BTreeMap<u32, Name>,
    /// The numbers of names that were removed. Nobody else gets them until the maps are read again: what still refers to
    /// one must not find something new there, and undoing must find what was.
    former: BTreeMap<Name, u32>,
    /// The keys of `by_number` and the values of `former`.
    taken: BTreeSet<u32>,
    /// All below are taken.
    low: u32,
}

impl Numbers {
    /// The number of a name.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// The name of a number.
    pub fn name(&self, number: u32) -> Option<&Name> {
        self.by_number.get(&number)
    }

    /// The name of a number; one that has none is called #NUMBER: it shows, and goes with the next apply.
    pub fn named(&mut self, number: u32) -> Name {
        if let Some(name) = self.by_number.get(&number) {
            return name.clone();
        }
        let name: Name = format!("#{number}").into();
        self.insert(name.clone(), number);
        name
    }

    /// In the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, u32)> {
        let mut all: Vec<_> = self.by_name.iter().map(|(name, number)| (name, *number)).collect();
        all.sort_unstable();
        all.into_iter()
    }

    /// Makes them belong to each other, unless the name has a number already.
    pub fn insert(&mut self, name: Name, number: u32) {
        if self.by_name.contains_key(&name) {
            return;
        }
        self.taken.insert(number);
        self.by_name.insert(name.clone(), number);
        self.by_number.insert(number, name);
    }

    /// Forgets a name.
    pub fn remove(&mut self, name: &str) {
        if let Some((name, number)) = self.by_name.remove_entry(name) {
            self.by_number.remove(&number);
            self.former.insert(name, number);
        }
    }

    /// The number of a name: what it has, what it had, or the smallest that is free.
    fn allot(&mut self, name: &Name) -> u32 {
        if let Some(number) = self.number(name) {
            return number;
        }
        let number = match self.former.remove(name) {
            Some(number) => number,
            None => {
                while self.taken.contains(&self.low) {
                    self.low += 1;
                }
                self.low
            }
        };
        self.insert(name.clone(), number);
        number
    }

    /// One more than the highest number that these names have, or will have when they are given some.
    pub fn end_with<'a>(&self, names: impl Iterator<Item = &'a Name>) -> u32 {
        let mut end = 0;
        let mut new: u32 = 0;
        for name in names {
            match self.number(name).or_else(|| self.former.get(name).copied()) {
                Some(number) => end = end.max(number.saturating_add(1)),
                None => new += 1,
            }
        }
        let mut next = self.low;
        while new > 0 {
            new -= u32::from(!self.taken.contains(&next));
            next += 1;
            if new == 0 {
                end = end.max(next);
            }
        }
        end
    }
}

/// All numbers of a data plane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// Slots of interfaces.
    pub interfaces: Numbers,
    /// Tunnels.
    pub tunnels: Numbers,
    /// Route tables of segments.
    pub segments: Numbers,
    /// Route tables of pairs, by the table and the prefix of the route that leads to them; also former ones.
    pub pairs: BTreeMap<(u32, IpNet), u32>,
    /// All tables that routes are in.
    pub(super) tables: BTreeSet<u32>,
    /// The maps were made in this very apply, and nothing was ever removed from them: what is not written yet is zero.
    pub(super) untouched: bool,
    /// Entries of `interfaces` that another interface of the same index took the place of, while they were in use.
    pub(super) displaced: BTreeMap<u32, abi::Interface>,
}

impl Ids {
    /// Whether everything that has a name has the same number in both.
    pub(super) fn has_same_numbers(&self, other: &Self) -> bool {
        self.interfaces.by_name == other.interfaces.by_name
            && self.tunnels.by_name == other.tunnels.by_name
            && self.segments.by_name == other.segments.by_name
    }

    /// The slot of an interface.
    pub fn interface(&mut self, name: &Name) -> u32 {
        self.interfaces.allot(name)
    }

    /// The id of a tunnel.
    pub fn tunnel(&mut self, name: &Name) -> u32 {
        self.tunnels.allot(name)
    }

    /// The table of a segment.
    pub fn segment(&mut self, name: &Name) -> Result<u32, KernelError> {
        if let Some(table) = self.segments.number(name).or_else(|| self.segments.former.remove(name)) {
            self.segments.insert(name.clone(), table);
            return Ok(table);
        }
        let table = self.free_table()?;
        self.segments.insert(name.clone(), table);
        Ok(table)
    }

    /// The table for the pairs of a route.
    pub fn pairs(&mut self, table: u32, prefix: IpNet) -> Result<u32, KernelError> {
        if let Some(pairs) = self.pairs.get(&(table, prefix)) {
            return Ok(*pairs);
        }
        let pairs = self.free_table()?;
        self.pairs.insert((table, prefix), pairs);
        Ok(pairs)
    }

    /// Table 0 is none.
    fn free_table(&mut self) -> Result<u32, KernelError> {
        let highest = self.tables.last().max(self.segments.taken.last()).copied().unwrap_or(0);
        let is_free = |table: &u32| !self.tables.contains(table) && !self.segments.taken.contains(table);
        let table = match highest.saturating_add(1) {
            table if table < abi::TABLE_IPV6 => table,
            _ => (1..abi::TABLE_IPV6)
                .find(is_free)
                .ok_or_else(|| KernelError::plain("no room for another table of routes"))?,
        };
        self.tables.insert(table);
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_free_number_and_none_twice() {
        let mut ids = Ids::default();
        ids.tunnels.insert("b".into(), 1);
        assert_eq!(ids.tunnel(&"a".into()), 0);
        assert_eq!(ids.tunnel(&"c".into()), 2);
        ids.tunnels.remove("b");
        assert_eq!(ids.tunnel(&"d".into()), 3, "b's may still be referred to");
        assert_eq!(ids.tunnel(&"b".into()), 1, "b comes back to where it was");
        assert_eq!(ids.tunnels.name(1).map(|name| &**name), Some("b"));
    }

    #[test]
    fn a_name_has_one_number() {
        let mut ids = Ids::default();
        ids.tunnels.insert("a".into(), 3);
        ids.tunnels.insert("a".into(), 5);
        assert_eq!(ids.tunnels.number("a"), Some(3));
        assert_eq!(&*ids.tunnels.named(5), "#5");
        assert_eq!(ids.tunnel(&"#5".into()), 5);
    }

    #[test]
    fn how_high_the_numbers_go() {
        let mut ids = Ids::default();
        let names: Vec<Name> = ["a", "b", "c", "d"].map(Name::from).into();
        let end = |ids: &Ids, names: &[Name]| ids.tunnels.end_with(names.iter());
        assert_eq!((end(&ids, &[]), end(&ids, &names)), (0, 4));
        ids.tunnels.insert("a".into(), 7);
        ids.tunnels.insert("gone".into(), 1);
        assert_eq!(end(&ids, &names[1..]), 4, "0, 2 and 3");
        assert_eq!(end(&ids, &names), 8);
        ids.tunnels.remove("a");
        assert_eq!(end(&ids, &names), 8, "a gets what it had");
        for name in &names {
            ids.tunnel(name);
        }
        assert_eq!(ids.tunnels.iter().map(|(_, number)| number).max(), Some(7));
    }

    #[test]
    fn tables_are_of_segments_or_of_pairs() {
        let mut ids = Ids::default();
        let prefix: IpNet = "10.0.0.1/32".parse().unwrap();
        let segment = ids.segment(&"s".into()).unwrap();
        let pairs = ids.pairs(segment, prefix).unwrap();
        assert_eq!((segment, pairs), (1, 2));
        assert_eq!(ids.pairs(segment, prefix).unwrap(), pairs);
        assert_eq!(ids.segment(&"t".into()).unwrap(), 3);
        ids.segments.remove("t");
        assert_eq!(ids.segment(&"u".into()).unwrap(), 4);
        assert_eq!(ids.segment(&"t".into()).unwrap(), 3);
        ids.tables.insert(u32::MAX);
        assert_eq!(ids.segment(&"v".into()).unwrap(), 5);
    }
}
