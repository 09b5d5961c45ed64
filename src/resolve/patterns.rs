//! Patterns of interfaces become the devices that are there.

use std::borrow::Cow;

use super::ResolveError;
use crate::config::model::{Config, Interface, Name, Role, pattern};
use crate::kernel::{KernelError, Link, Network};

/// A file whose patterns are spelled out, and where two say different things of one device. An interface that has a table of
/// its own goes before patterns, and of those the one that says more.
pub fn expand<'a>(
    config: &'a Config,
    net: &dyn Network,
) -> Result<(Cow<'a, Config>, Vec<ResolveError>), KernelError> {
    let mut errors = Vec::new();
    if config.patterns.is_empty() {
        return Ok((Cow::Borrowed(config), errors));
    }
    let mut expanded = config.clone();
    for link in net.links()? {
        if config.interfaces.contains_key(&link.name) {
            continue;
        }
        let mut matching: Vec<(&Name, &Interface)> = config
            .patterns
            .iter()
            .filter(|(name, interface)| pattern::matches(name, &link.name) && can_be(interface, &link))
            .collect();
        matching.sort_by_cached_key(|(name, _)| pattern::weight(name));
        let Some((name, interface)) = matching.pop() else { continue };
        if let Some((other, first)) =
            matching.pop().filter(|(other, _)| pattern::weight(other) == pattern::weight(name))
        {
            errors.push(ResolveError {
                at: Some(interface.at.clone()),
                what: format!(
                    "device {} is one of {name} and of {other} ({}), and neither says more",
                    link.name, first.at
                ),
                source: None,
                hint: Some(format!(
                    "give {} a table of its own, or make one of the patterns narrower",
                    link.name
                )),
            });
            continue;
        }
        let mut interface = interface.clone();
        interface.at.device = Some(link.name.clone());
        expanded.interfaces.insert(link.name, interface);
    }
    Ok((Cow::Owned(expanded), errors))
}

/// Workloads whose addresses are those of their other ends are veths, whatever else has such a name.
fn can_be(interface: &Interface, link: &Link) -> bool {
    !matches!(interface.role, Role::Workload { .. }) || link.kind.as_deref() == Some("veth")
}
