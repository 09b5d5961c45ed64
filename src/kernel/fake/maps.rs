//! The pinned maps as bytes, with the sizes and the room of the real ones.

use std::collections::BTreeMap;
use std::io;
use std::mem::size_of;

use crate::kernel::abi;
use crate::kernel::{Map, Sizes};
use crate::reason::Reason;

/// How a map keeps what it holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hash,
    Trie,
    Array,
    PerCpu,
    Devices,
}

/// Kind, bytes of a key and of a value, and entries.
struct Shape {
    kind: Kind,
    key: usize,
    value: usize,
    room: usize,
}

pub(super) const CPUS: usize = 2;
const PORTS: usize = 65536;

fn shape(map: Map, sizes: &Sizes) -> Shape {
    let follows = sizes.of(map).unwrap_or(0) as usize;
    let route = size_of::<abi::Route>();
    let (kind, key, value, room) = match map {
        Map::Interfaces => (Kind::Hash, 4, size_of::<abi::Interface>(), follows),
        Map::Slots => (Kind::Array, 4, size_of::<abi::Slot>(), follows),
        Map::Devices => (Kind::Devices, 4, 4, follows),
        Map::Cpus => (Kind::Hash, 4, 4, CPUS),
        Map::Routes => (Kind::Hash, size_of::<abi::RouteKey>(), route, follows),
        Map::Prefixes => (Kind::Trie, size_of::<abi::PrefixKey>(), route, 1 << 29),
        Map::Endpoints => (Kind::Hash, size_of::<abi::Endpoint>(), 4, follows),
        Map::UdpPorts => (Kind::Array, 4, PORTS, 1),
        Map::Active => (Kind::Array, 4, 4, follows),
        Map::Tunnels => (Kind::Array, 4, size_of::<abi::Tunnel>(), follows),
        Map::Floods => (Kind::Hash, 4, size_of::<abi::Flood>(), follows),
        Map::TunnelState => (Kind::Array, 4, size_of::<abi::TunnelState>(), follows),
        Map::TunnelStats => (Kind::PerCpu, 4, size_of::<abi::TunnelStats>(), follows),
        Map::Actions => {
            (Kind::PerCpu, 4, size_of::<abi::Counter>(), (abi::PROGRAM_COUNT * abi::ACTIONS) as usize)
        }
        Map::Drops => (Kind::PerCpu, 4, size_of::<abi::Counter>(), Reason::ALL.len() + 1),
        // A ring buffer has no entries.
        Map::Events => (Kind::Hash, 0, 0, 0),
        Map::Names => (Kind::Hash, size_of::<abi::NameKey>(), size_of::<abi::NameText>(), follows),
        Map::Saved => (Kind::Hash, size_of::<abi::SavedKey>(), size_of::<abi::Saved>(), follows),
        Map::Meta => (Kind::Array, 4, size_of::<abi::Meta>(), 1),
    };
    Shape { kind, key, value, room }
}

fn refuse(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// Keys and values of a map.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// All maps. Of arrays, only what is not zero is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maps {
    entries: BTreeMap<Map, BTreeMap<Vec<u8>, Vec<u8>>>,
    sizes: Sizes,
}

impl Maps {
    pub(super) fn new(sizes: Sizes) -> Self {
        Self { entries: BTreeMap::new(), sizes }
    }

    pub(super) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// The same in maps of other sizes; E2BIG: it has no room there. What is left in an array of what is no more is
    /// dropped.
    pub(super) fn resized(&self, sizes: &Sizes) -> io::Result<Self> {
        let mut new = Self::new(*sizes);
        for (map, entries) in &self.entries {
            let shape = new.shape(*map);
            let is_array = matches!(shape.kind, Kind::Array | Kind::PerCpu) && *map != Map::Active;
            for (key, value) in entries.iter().filter(|(key, _)| !is_array || index(key) < shape.room) {
                new.put(*map, key, value, None)?;
            }
        }
        Ok(new)
    }

    fn shape(&self, map: Map) -> Shape {
        shape(map, &self.sizes)
    }

    /// How many entries a map has room for.
    pub(super) fn room(&self, map: Map) -> usize {
        self.shape(map).room
    }

    /// What a map holds; of an array, what is not zero.
    pub fn entries(&self, map: Map) -> Entries {
        let entries = self.entries.get(&map).into_iter().flatten();
        entries.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Writes whatever, as another tool with root's rights could.
    pub fn poke(&mut self, map: Map, key: &[u8], value: &[u8]) {
        self.entries.entry(map).or_default().insert(key.to_owned(), value.to_owned());
    }

    /// Removes whatever.
    pub fn remove(&mut self, map: Map, key: &[u8]) {
        self.entries.entry(map).or_default().remove(key);
    }

    /// One value; of a trie, the longest match.
    pub(super) fn get(&self, map: Map, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let shape = self.shape(map);
        if key.len() != shape.key {
            return Err(refuse(libc::EINVAL));
        }
        let entries = self.entries.get(&map);
        let exact = entries.and_then(|entries| entries.get(key)).cloned();
        Ok(match shape.kind {
            Kind::Array | Kind::PerCpu if index(key) >= shape.room => None,
            Kind::Array | Kind::PerCpu => exact.or_else(|| Some(vec![0; shape.value])),
            Kind::Trie => {
                let matches = entries.into_iter().flatten().filter(|(prefix, _)| is_in(key, prefix));
                matches.max_by_key(|(prefix, _)| index(prefix)).map(|(_, value)| value.clone())
            }
            Kind::Hash | Kind::Devices => exact,
        })
    }

    /// Writes a value; `room` is how many fit, if not as many as in the real map.
    pub(super) fn put(&mut self, map: Map, key: &[u8], value: &[u8], room: Option<usize>) -> io::Result<()> {
        let shape = self.shape(map);
        if key.len() != shape.key || value.len() != shape.value {
            return Err(refuse(libc::EINVAL));
        }
        let room = room.unwrap_or(shape.room);
        let entries = self.entries.entry(map).or_default();
        match shape.kind {
            Kind::Array | Kind::PerCpu | Kind::Devices => {
                if index(key) >= room {
                    return Err(refuse(libc::E2BIG));
                }
                if shape.kind != Kind::Devices && value.iter().all(|byte| *byte == 0) {
                    entries.remove(key);
                    return Ok(());
                }
            }
            Kind::Hash | Kind::Trie => {
                if !entries.contains_key(key) && entries.len() >= room {
                    return Err(refuse(if shape.kind == Kind::Trie { libc::ENOSPC } else { libc::E2BIG }));
                }
            }
        }
        entries.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    pub(super) fn delete(&mut self, map: Map, key: &[u8]) -> io::Result<()> {
        let shape = self.shape(map);
        if key.len() != shape.key || matches!(shape.kind, Kind::Array | Kind::PerCpu) {
            return Err(refuse(libc::EINVAL));
        }
        self.remove(map, key);
        Ok(())
    }

    /// What the devmap does when a device goes.
    pub(super) fn forget_device(&mut self, ifindex: u32) {
        if let Some(devices) = self.entries.get_mut(&Map::Devices) {
            devices.retain(|_, value| index(value) != ifindex as usize);
        }
    }
}

/// Whether the values of a map are one for each CPU.
pub(super) fn is_per_cpu(map: Map) -> bool {
    shape(map, &Sizes::default()).kind == Kind::PerCpu
}

/// One value for each CPU.
pub(super) fn per_cpu(value: Option<Vec<u8>>) -> Vec<Vec<u8>> {
    value.map(|value| vec![value; CPUS]).unwrap_or_default()
}

/// The number that bytes begin with.
fn index(bytes: &[u8]) -> usize {
    bytes.first_chunk().map_or(0, |first| u32::from_ne_bytes(*first) as usize)
}

/// Whether `key` is in `prefix`: both begin with their length in bits.
fn is_in(key: &[u8], prefix: &[u8]) -> bool {
    let bits = index(prefix);
    let (whole, rest) = (4 + bits / 8, bits % 8);
    let mask = !(0xff_u8.checked_shr(rest as u32).unwrap_or(0));
    bits <= index(key)
        && key[4..whole] == prefix[4..whole]
        && (rest == 0 || (key[whole] ^ prefix[whole]) & mask == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    fn prefix(prefix_len: u32, last: u8) -> abi::PrefixKey {
        let mut address = [0; 16];
        address[15] = last;
        abi::PrefixKey { prefix_len: 32 + prefix_len, table: 1, address }
    }

    #[test]
    fn a_trie_has_the_longest_match() {
        let mut maps = Maps::new(Sizes::each(|_| 128));
        for (length, id) in [(0, 1), (120, 2), (125, 3)] {
            let value = abi::Route { id, ..Default::default() };
            maps.put(Map::Prefixes, prefix(length, 0).as_bytes(), value.as_bytes(), None).unwrap();
        }
        let id = |length, last| {
            let value = maps.get(Map::Prefixes, prefix(length, last).as_bytes()).unwrap();
            value.map(|value| index(&value))
        };
        assert_eq!(id(128, 7), Some(3));
        assert_eq!(id(128, 8), Some(2));
        assert_eq!(id(124, 0), Some(2), "a shorter key is not in a longer prefix");
        assert_eq!(id(119, 0), Some(1));
    }

    #[test]
    fn arrays_are_full_of_zeroes() {
        let mut maps = Maps::new(Sizes::each(|_| 128));
        let key = 127_u32.to_ne_bytes();
        assert_eq!(maps.get(Map::Active, &key).unwrap(), Some(vec![0; 4]));
        assert_eq!(maps.get(Map::Active, &128_u32.to_ne_bytes()).unwrap(), None);
        maps.put(Map::Active, &key, &[1, 0, 0, 0], None).unwrap();
        assert_eq!(maps.entries(Map::Active).len(), 1);
        maps.put(Map::Active, &key, &[0; 4], None).unwrap();
        assert!(maps.entries(Map::Active).is_empty());
        assert_eq!(maps.delete(Map::Active, &key).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn what_is_full_takes_no_more() {
        let mut maps = Maps::new(Sizes::each(|_| 128));
        let value = abi::Interface::default();
        let mut put = |ifindex: u32| maps.put(Map::Interfaces, ifindex.as_bytes(), value.as_bytes(), Some(1));
        put(5).unwrap();
        put(5).unwrap();
        assert_eq!(put(6).unwrap_err().raw_os_error(), Some(libc::E2BIG));
    }
}
