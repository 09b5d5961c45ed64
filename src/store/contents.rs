//! Whether the maps that grow with the file hold exactly what a state says: without making a state of them first.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use ipnet::IpNet;
use zerocopy::IntoBytes;

use super::codec::{
    RouteKey, encode_endpoint, encode_gateway, encode_tunnel_route, encode_workload_route, route_key,
};
use super::ids::Ids;
use crate::config::model::Name;
use crate::kernel::abi;
use crate::kernel::{DataPlane as Bpf, KernelError, Map};
use crate::state::{Endpoint, Route, State};

/// Whether routes and endpoints are those of the state, no more and no less. False also where that can't be told so
/// easily: then all has to be read.
///
/// # Errors
/// The kernel refuses a question.
pub fn contents_are_as_in(state: &State, bpf: &dyn Bpf, ids: &Ids) -> Result<bool, KernelError> {
    let digests = RandomState::new();
    let Some((routes, prefixes)) = wanted_routes(&state.segments, ids, &digests) else { return Ok(false) };
    let Some(endpoints) = wanted_endpoints(&state.endpoints, ids, &digests) else { return Ok(false) };
    for (map, wanted) in [(Map::Routes, routes), (Map::Prefixes, prefixes), (Map::Endpoints, endpoints)] {
        let mut there = Entries::default();
        bpf.each_entry(map, &mut |key, value| {
            there.add(key, value, &digests);
            Ok(())
        })?;
        if there != wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What stands for the entries of a map, in whichever order they come. Two sets of as many entries have the same sum by
/// chance only, once in 2^64: nobody knows the keys of the digests.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Entries {
    count: usize,
    sum: u64,
}

impl Entries {
    fn add(&mut self, key: &[u8], value: &[u8], digests: &RandomState) {
        let mut digest = digests.build_hasher();
        key.hash(&mut digest);
        value.hash(&mut digest);
        self.count += 1;
        self.sum = self.sum.wrapping_add(digest.finish());
    }
}

/// What should be in `routes` and in `prefixes`. None: something of it has no number.
fn wanted_routes(
    segments: &BTreeMap<Name, BTreeMap<IpNet, Route>>,
    ids: &Ids,
    digests: &RandomState,
) -> Option<(Entries, Entries)> {
    let (mut hosts, mut prefixes) = (Entries::default(), Entries::default());
    let mut add = |table, prefix: &IpNet, value: abi::Route| match route_key(table, prefix) {
        RouteKey::Host(key) => hosts.add(key.as_bytes(), value.as_bytes(), digests),
        RouteKey::Prefix(key) => prefixes.add(key.as_bytes(), value.as_bytes(), digests),
    };
    for (segment, routes) in segments {
        let table = ids.segments.number(segment)?;
        for (prefix, route) in routes {
            let value = match route {
                Route::Tunnel(tunnel) => encode_tunnel_route(ids.tunnels.number(tunnel)?),
                Route::Gateway => encode_gateway(),
                Route::Workload { interface, mac, pairs: among } => {
                    let pairs = if among.is_empty() { 0 } else { *ids.pairs.get(&(table, *prefix))? };
                    for (destination, tunnel) in among.iter() {
                        add(pairs, destination, encode_tunnel_route(ids.tunnels.number(tunnel)?));
                    }
                    encode_workload_route(ids.interfaces.number(interface)?, pairs, *mac)
                }
            };
            add(table, prefix, value);
        }
    }
    Some((hosts, prefixes))
}

/// What should be in `endpoints`. None: a tunnel has no number.
fn wanted_endpoints(
    endpoints: &BTreeMap<Endpoint, Name>,
    ids: &Ids,
    digests: &RandomState,
) -> Option<Entries> {
    let mut entries = Entries::default();
    for (endpoint, tunnel) in endpoints {
        let id = ids.tunnels.number(tunnel)?;
        entries.add(encode_endpoint(endpoint).as_bytes(), id.as_bytes(), digests);
    }
    Some(entries)
}
