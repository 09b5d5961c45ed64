//! Whether the maps have room. What comes is there before what goes is gone, so both count.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{Findings, ResolveError};
use crate::kernel::abi;
use crate::state::{Route, State};

/// How many there shall be, and how many more there are until the old ones are gone.
#[derive(Default)]
struct Count {
    desired: usize,
    leaving: usize,
}

impl Count {
    fn of<K: Ord, V>(desired: &BTreeMap<K, V>, actual: &BTreeMap<K, V>) -> Self {
        let leaving = actual.keys().filter(|key| !desired.contains_key(key)).count();
        Self { desired: desired.len(), leaving }
    }

    fn check(&self, what: &str, limit: u32, findings: &mut Findings) {
        let Self { desired, leaving } = *self;
        let (problem, hint) = if desired > limit as usize {
            (format!("there are {desired} {what}, and room for {limit}"), "spread them over several nodes")
        } else if desired + leaving > limit as usize {
            let problem = format!(
                "there is room for {limit} {what}, and not for {desired} beside the {leaving} that are to go"
            );
            (problem, "remove them first, by a file that has neither them nor the new ones")
        } else {
            return;
        };
        findings.errors.push(ResolveError { at: None, what: problem, source: None, hint: Some(hint.into()) });
    }
}

/// Counts a table's entries by the map that they are in: that of single addresses, and that of prefixes.
#[derive(Default)]
struct Routes {
    hosts: Count,
    prefixes: Count,
}

impl Routes {
    fn add(&mut self, prefix: &IpNet, is_desired: bool) {
        let is_host = prefix.prefix_len() == prefix.max_prefix_len();
        let count = if is_host { &mut self.hosts } else { &mut self.prefixes };
        if is_desired { count.desired += 1 } else { count.leaving += 1 }
    }
}

/// The destinations of a route's pairs.
fn pairs(route: Option<&Route>) -> impl Iterator<Item = &IpNet> {
    let pairs = match route {
        Some(Route::Workload { pairs, .. }) => Some(pairs),
        _ => None,
    };
    pairs.into_iter().flat_map(BTreeMap::keys)
}

/// Says what there is too much of, before anything is changed.
pub fn check(desired: &State, actual: &State, findings: &mut Findings) {
    Count::of(&desired.interfaces, &actual.interfaces).check("interfaces", abi::MAX_INTERFACES, findings);
    Count::of(&desired.tunnels, &actual.tunnels).check("tunnels", abi::MAX_TUNNELS, findings);
    Count::of(&desired.floods, &actual.floods).check("segments that flood", abi::MAX_FLOODS, findings);

    let mut routes = Routes::default();
    for (prefix, route) in desired.segments.values().flatten() {
        routes.add(prefix, true);
        pairs(Some(route)).for_each(|prefix| routes.add(prefix, true));
    }
    for (segment, table) in &actual.segments {
        let after = desired.segments.get(segment);
        for (prefix, route) in table {
            let after = after.and_then(|after| after.get(prefix));
            if after.is_none() {
                routes.add(prefix, false);
            }
            let stay: BTreeSet<&IpNet> = pairs(after).collect();
            pairs(Some(route))
                .filter(|prefix| !stay.contains(prefix))
                .for_each(|prefix| routes.add(prefix, false));
        }
    }
    routes.hosts.check("routes to single addresses", abi::MAX_ROUTES, findings);
    routes.prefixes.check("routes to prefixes", abi::MAX_ROUTES, findings);
}
