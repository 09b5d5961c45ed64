//! Prefixes: as text, and in a map that finds what overlaps.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

/// By masked prefix. Addresses are ordered before prefix lengths, and IPv4 before IPv6, so that what lies in a prefix
/// is one range.
#[derive(Debug)]
pub(super) struct PrefixMap<T> {
    map: BTreeMap<IpNet, T>,
    /// The prefix lengths that there are of each family: most maps have few of the 129.
    lengths: BTreeSet<(bool, u8)>,
}

impl<T> Default for PrefixMap<T> {
    fn default() -> Self {
        Self { map: BTreeMap::new(), lengths: BTreeSet::new() }
    }
}

impl<T> PrefixMap<T> {
    pub fn get(&self, prefix: IpNet) -> Option<&T> {
        self.map.get(&prefix)
    }

    /// Keeps what it has.
    pub fn insert(&mut self, prefix: IpNet, value: T) {
        self.lengths.insert((is_ipv4(prefix), prefix.prefix_len()));
        self.map.entry(prefix).or_insert(value);
    }

    /// One of the same family that contains `prefix` or lies in it.
    pub fn overlapping(&self, prefix: IpNet) -> Option<&T> {
        let family = is_ipv4(prefix);
        let around =
            self.lengths.range((family, 0)..(family, prefix.prefix_len())).find_map(|(_, length)| {
                let net = IpNet::new(prefix.addr(), *length).ok()?;
                self.map.get(&net.trunc())
            });
        around.or_else(|| {
            let last = IpNet::from(prefix.broadcast());
            self.map.range(prefix..=last).next().map(|(_, value)| value)
        })
    }
}

fn is_ipv4(net: IpNet) -> bool {
    net.addr().is_ipv4()
}

/// As files have it: a prefix of full length is written as an address.
pub(super) fn text(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use proptest::prelude::*;

    /// Few addresses, so that some overlap; of both families, with the same first bits.
    fn net() -> impl Strategy<Value = IpNet> {
        (any::<u32>(), 0..=32_u8, any::<bool>()).prop_map(|(bits, len, is_ipv4)| {
            let bits = bits & 0xc000_0003 | 0x0a00_0000;
            let v4 = Ipv4Addr::from(bits).into();
            let v6 = Ipv6Addr::from(u128::from(bits >> 16) << 112 | u128::from(bits & 0xffff)).into();
            let (address, len) = if is_ipv4 { (v4, len) } else { (v6, len * 4) };
            IpNet::new(address, len).unwrap().trunc()
        })
    }

    #[test]
    fn a_default_route_covers_its_own_family_only() {
        let mut map = PrefixMap::default();
        map.insert("::/0".parse().unwrap(), ());
        assert!(map.overlapping("0.0.0.0/0".parse().unwrap()).is_none());
        assert!(map.overlapping("10.0.0.1/32".parse().unwrap()).is_none());
        assert!(map.overlapping("fd00::/8".parse().unwrap()).is_some());
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
