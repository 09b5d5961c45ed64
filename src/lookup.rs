//! The way of one inner pair, as the packet path would look it up.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::model::Name;
use crate::state::{Route, State};

/// Where a packet from one inner address to another goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// The segment has no route: to the host's stack.
    NoRoute,
    /// The source is no workload's of this node and segment: a drop.
    ForeignSource,
    /// To an address that mptm answers for: but for ARP and neighbour solicitations, to the host's stack.
    Gateway {
        /// The workload that it comes from.
        from: Name,
    },
    /// To another workload of this node.
    Local {
        /// The workload that it comes from.
        from: Name,
        /// The workload that it goes to.
        to: Name,
        /// The route that says so.
        prefix: IpNet,
    },
    /// Into a tunnel.
    Tunnel {
        /// The workload that it comes from.
        from: Name,
        /// The tunnel.
        tunnel: Name,
        /// The route that says so.
        prefix: IpNet,
    },
}

/// Looks up what mptm_encap would.
pub fn way(state: &State, segment: &str, source: IpAddr, destination: IpAddr) -> Way {
    let none = BTreeMap::new();
    let table = state.segments.get(segment).unwrap_or(&none);
    let own = match find(table, source) {
        Some((_, Route::Workload { interface, pairs, .. })) => Some((interface, pairs)),
        _ => None,
    };
    let pair = own.and_then(|(_, pairs)| find(pairs, destination));
    let into = |from: &Name, tunnel: &Name, prefix| Way::Tunnel {
        from: from.clone(),
        tunnel: tunnel.clone(),
        prefix,
    };
    if let (Some((prefix, tunnel)), Some((from, _))) = (pair, own) {
        return into(from, tunnel, prefix);
    }
    match (find(table, destination), own) {
        (None, _) => Way::NoRoute,
        (Some(_), None) => Way::ForeignSource,
        (Some((prefix, Route::Tunnel(tunnel))), Some((from, _))) => into(from, tunnel, prefix),
        (Some((prefix, Route::Workload { interface, .. })), Some((from, _))) => {
            Way::Local { from: from.clone(), to: interface.clone(), prefix }
        }
        (Some((_, Route::Gateway)), Some((from, _))) => Way::Gateway { from: from.clone() },
    }
}

/// The most specific prefix of a table that has an address.
fn find<T>(table: &BTreeMap<IpNet, T>, address: IpAddr) -> Option<(IpNet, &T)> {
    let mut prefix = Some(IpNet::from(address));
    while let Some(candidate) = prefix {
        if let Some(value) = table.get(&candidate) {
            return Some((candidate, value));
        }
        prefix = candidate.supernet();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_prefix_and_the_pair_before_it() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let workload = |interface: &str, pairs: &[(&str, &str)]| Route::Workload {
            interface: interface.into(),
            mac: None,
            pairs: Box::new(
                pairs.iter().map(|(prefix, tunnel)| (net(prefix), Name::from(*tunnel))).collect(),
            ),
        };
        let table = BTreeMap::from([
            (net("10.0.0.1/32"), workload("a", &[("10.9.0.0/16", "own")])),
            (net("10.0.0.2/32"), workload("b", &[])),
            (net("10.0.0.0/8"), Route::Tunnel("wide".into())),
            (net("10.9.0.9/32"), Route::Tunnel("host".into())),
        ]);
        let mut state = State::default();
        state.segments.insert("default".into(), table);
        let way = |from: &str, to: &str| way(&state, "default", from.parse().unwrap(), to.parse().unwrap());
        let tunnel = |way: Way| match way {
            Way::Tunnel { tunnel, .. } => tunnel.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(tunnel(way("10.0.0.1", "10.9.0.9")), "own", "a pair comes before the segment");
        assert_eq!(tunnel(way("10.0.0.2", "10.9.0.9")), "host");
        assert_eq!(tunnel(way("10.0.0.2", "10.9.0.8")), "wide");
        assert!(matches!(way("10.0.0.1", "10.0.0.2"), Way::Local { .. }));
        assert_eq!(way("10.0.0.1", "192.0.2.1"), Way::NoRoute);
        assert_eq!(way("10.0.0.3", "10.0.0.2"), Way::ForeignSource);
        assert_eq!(super::way(&state, "other", [10, 0, 0, 1].into(), [10, 0, 0, 2].into()), Way::NoRoute);
    }
}
