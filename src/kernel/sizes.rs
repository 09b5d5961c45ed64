//! How many entries the maps have that follow the file. The other maps' sizes stand in bpf/maps.h.

use std::ops::{Index, IndexMut};

use super::Map;

/// Maps that have room for the same things, and so grow together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// By ifindex, and by slot.
    Interfaces,
    /// By id.
    Tunnels,
    /// Routes to single addresses.
    Routes,
    /// Outer packets' tunnels.
    Endpoints,
    /// Segments that flood.
    Floods,
    /// What has a name.
    Names,
    /// What settings were.
    Saved,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Interfaces,
        Self::Tunnels,
        Self::Routes,
        Self::Endpoints,
        Self::Floods,
        Self::Names,
        Self::Saved,
    ];

    /// Its maps, and how many entries of each one thing has room in. The first one tells the table's size.
    pub fn maps(self) -> &'static [(Map, u32)] {
        match self {
            Self::Interfaces => &[(Map::Interfaces, 1), (Map::Slots, 1), (Map::Devices, 1)],
            Self::Tunnels => {
                &[(Map::Active, 1), (Map::Tunnels, 2), (Map::TunnelState, 1), (Map::TunnelStats, 1)]
            }
            Self::Routes => &[(Map::Routes, 1)],
            Self::Endpoints => &[(Map::Endpoints, 1)],
            Self::Floods => &[(Map::Floods, 1)],
            Self::Names => &[(Map::Names, 1)],
            Self::Saved => &[(Map::Saved, 1)],
        }
    }
}

/// The sizes of all tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes([u32; Table::ALL.len()]);

impl Sizes {
    /// Of each table, what `size` says.
    pub fn each(size: impl FnMut(Table) -> u32) -> Self {
        Self(Table::ALL.map(size))
    }

    /// max_entries of a map; None: it does not follow the file.
    pub fn of(&self, map: Map) -> Option<u32> {
        let mut maps =
            Table::ALL.into_iter().flat_map(|table| table.maps().iter().map(move |maps| (table, maps)));
        let (table, (_, factor)) = maps.find(|(_, (other, _))| *other == map)?;
        // What is too much for the number is too much for the kernel, which says so.
        Some(self[table].saturating_mul(*factor))
    }
}

impl Index<Table> for Sizes {
    type Output = u32;

    fn index(&self, table: Table) -> &u32 {
        &self.0[table as usize]
    }
}

impl IndexMut<Table> for Sizes {
    fn index_mut(&mut self, table: Table) -> &mut u32 {
        &mut self.0[table as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_map_has_its_share() {
        let sizes = Sizes::each(|table| 100 * (table as u32 + 1));
        assert_eq!(sizes.of(Map::Devices), Some(100));
        assert_eq!(sizes.of(Map::Tunnels), Some(400));
        assert_eq!(sizes.of(Map::Saved), Some(700));
        assert_eq!(sizes.of(Map::Prefixes), None);
        for table in Table::ALL {
            assert_eq!(table.maps()[0].1, 1, "{table:?}");
        }
    }
}
