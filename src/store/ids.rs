//! Which number stands for which name in the maps.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::model::Name;
use crate::kernel::{KernelError, abi};

/// Names and their numbers, both ways.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    by_name: BTreeMap<Name, u32>,
    by_number: BTreeMap<u32, Name>,
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

    /// In the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, u32)> {
        self.by_name.iter().map(|(name, number)| (name, *number))
    }

    /// Makes them belong to each other.
    pub fn insert(&mut self, name: Name, number: u32) {
        self.by_name.insert(name.clone(), number);
        self.by_number.insert(number, name);
    }

    /// Forgets a name.
    pub fn remove(&mut self, name: &str) {
        if let Some(number) = self.by_name.remove(name) {
            self.by_number.remove(&number);
        }
    }

    /// The number of a name, or the smallest from `first` that is free.
    fn allot(&mut self, name: &Name, first: u32, end: u32, what: &str) -> Result<u32, KernelError> {
        if let Some(number) = self.number(name) {
            return Ok(number);
        }
        let number = (first..end).find(|number| !self.by_number.contains_key(number)).ok_or_else(|| {
            KernelError::plain(format!("no room for {what} {name}"))
                .hint(format!("there is room for {}", end - first))
        })?;
        self.insert(name.clone(), number);
        Ok(number)
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
    /// Route tables of pairs.
    pub pairs: BTreeSet<u32>,
}

impl Ids {
    /// The slot of an interface.
    pub fn interface(&mut self, name: &Name) -> Result<u32, KernelError> {
        self.interfaces.allot(name, 0, abi::MAX_INTERFACES, "interface")
    }

    /// The id of a tunnel.
    pub fn tunnel(&mut self, name: &Name) -> Result<u32, KernelError> {
        self.tunnels.allot(name, 0, abi::MAX_TUNNELS, "tunnel")
    }

    /// The table of a segment.
    pub fn segment(&mut self, name: &Name) -> Result<u32, KernelError> {
        if let Some(table) = self.segments.number(name) {
            return Ok(table);
        }
        let table = self.free_table();
        self.segments.insert(name.clone(), table);
        Ok(table)
    }

    /// A new table for pairs.
    pub fn new_pairs(&mut self) -> u32 {
        let table = self.free_table();
        self.pairs.insert(table);
        table
    }

    /// Table 0 is none.
    fn free_table(&self) -> u32 {
        let highest = self.pairs.last().copied().max(self.segments.by_number.keys().next_back().copied());
        match highest {
            Some(highest) if highest < u32::MAX => highest + 1,
            Some(_) => (1..u32::MAX)
                .find(|table| !self.pairs.contains(table) && self.segments.name(*table).is_none())
                .unwrap_or(u32::MAX),
            None => 1,
        }
    }
}
