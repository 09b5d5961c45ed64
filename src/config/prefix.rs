//! A map by prefix that finds what overlaps.

use std::collections::BTreeMap;

use ipnet::IpNet;

/// By masked prefix. Addresses are ordered before prefix lengths, so that what lies in a prefix is one range.
#[derive(Debug)]
pub(super) struct PrefixMap<T>(BTreeMap<IpNet, T>);

impl<T> Default for PrefixMap<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> PrefixMap<T> {
    pub fn get(&self, prefix: IpNet) -> Option<&T> {
        self.0.get(&prefix)
    }

    /// Keeps what it has.
    pub fn insert(&mut self, prefix: IpNet, value: T) {
        self.0.entry(prefix).or_insert(value);
    }

    /// One that contains `prefix` or lies in it.
    pub fn overlapping(&self, prefix: IpNet) -> Option<&T> {
        let around =
            std::iter::successors(prefix.supernet(), IpNet::supernet).find_map(|net| self.0.get(&net));
        around.or_else(|| {
            let last = IpNet::from(prefix.broadcast());
            self.0.range(prefix..=last).next().map(|(_, value)| value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net() -> impl Strategy<Value = IpNet> {
        // Few addresses, so that some overlap.
        (any::<u32>(), 0..=32_u8).prop_map(|(bits, len)| {
            let address = std::net::Ipv4Addr::from(bits & 0xc000_0003 | 0x0a00_0000);
            IpNet::new(address.into(), len).unwrap().trunc()
        })
    }

    proptest! {
        #[test]
        fn finds_what_a_search_of_all_finds(all in prop::collection::vec(net(), 0..8), one in net()) {
            let mut map = PrefixMap::default();
            for prefix in &all {
                map.insert(*prefix, *prefix);
            }
            let overlap = |a: &IpNet| a.contains(&one) || one.contains(a);
            prop_assert_eq!(map.overlapping(one).is_some(), all.iter().any(overlap));
            prop_assert!(map.overlapping(one).is_none_or(overlap));
            prop_assert_eq!(map.get(one).is_some(), all.contains(&one));
        }
    }
}
