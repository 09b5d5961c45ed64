//! Runs of alike steps, which the kernel takes at once: of routes and endpoints there are many.

use zerocopy::IntoBytes;

use super::codec::{RouteKey, encode_endpoint, route_key};
use super::ids::Ids;
use super::tunnels::{is_first, put_first};
use super::write::{begin, execute, pairs_of, route_value};
use crate::config::model::Name;
use crate::kernel::{Batch, DataPlane as Bpf, KernelError, Map, Network};
use crate::plan::Step;

/// How many steps are written at once, at most.
const LONGEST: usize = 4096;

/// What a step does, if many like it can be done at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Put(Map),
    Delete(Map),
    /// Not of one map, but of a tunnel of which nothing is there.
    Tunnel,
}

fn kind(step: &Step, ids: &Ids) -> Option<Kind> {
    let (map, stays) = match step {
        Step::Tunnel(name, change) if is_first(name, change, ids) => return Some(Kind::Tunnel),
        Step::Route(_, prefix, change) => {
            if pairs_of(change.before()).or(pairs_of(change.after())).is_some() {
                return None;
            }
            let is_host = prefix.prefix_len() == prefix.max_prefix_len();
            (if is_host { Map::Routes } else { Map::Prefixes }, change.after().is_some())
        }
        Step::Endpoint(_, change) => (Map::Endpoints, change.after().is_some()),
        _ => return None,
    };
    Some(if stays { Kind::Put(map) } else { Kind::Delete(map) })
}

/// Carries out the first of some steps, or more of them. The answer is how many. A data plane that is added is left to
/// [`settle`](Bpf::settle).
///
/// # Errors
/// What the kernel refuses, and how many steps were carried out before the one that is refused.
pub fn execute_some(
    steps: &[Step],
    bpf: &mut dyn Bpf,
    net: &mut dyn Network,
    ids: &mut Ids,
) -> Result<usize, (usize, KernelError)> {
    let Some(first) = steps.first() else { return Ok(0) };
    let of = kind(first, ids);
    let run = steps.iter().take(LONGEST).take_while(|step| kind(step, ids) == of).count();
    match of {
        Some(Kind::Tunnel) if run > 1 => put_first(&steps[..run], bpf, ids).map(|()| run),
        Some(kind) if run > 1 => {
            let entries = encode(&steps[..run], ids).map_err(|error| (0, error))?;
            match kind {
                Kind::Put(map) => bpf.put_all(map, &entries)?,
                Kind::Delete(map) => bpf.delete_all(map, &entries)?,
                Kind::Tunnel => {}
            }
            Ok(run)
        }
        _ if let Step::DataPlane(change) = first => {
            begin(change, bpf, ids).map(|()| 1).map_err(|error| (0, error))
        }
        _ => execute(first, bpf, net, ids).map(|()| 1).map_err(|error| (0, error)),
    }
}

/// The entries of a run. What goes has no value.
fn encode(run: &[Step], ids: &mut Ids) -> Result<Batch, KernelError> {
    let mut entries = Batch::default();
    let mut last: Option<(&Name, u32)> = None;
    for step in run {
        match step {
            Step::Route(segment, prefix, change) => {
                let table = match last {
                    Some((name, table)) if name == segment => table,
                    _ => ids.segment(segment)?,
                };
                last = Some((segment, table));
                let value = change.after().map(|route| route_value(route, 0, ids));
                let value = value.as_ref().map_or(&[][..], IntoBytes::as_bytes);
                match route_key(table, prefix) {
                    RouteKey::Host(key) => entries.push(key.as_bytes(), value),
                    RouteKey::Prefix(key) => entries.push(key.as_bytes(), value),
                }
            }
            Step::Endpoint(endpoint, change) => {
                let id = change.after().map(|tunnel| ids.tunnel(tunnel));
                let value = id.as_ref().map_or(&[][..], IntoBytes::as_bytes);
                entries.push(encode_endpoint(endpoint).as_bytes(), value);
            }
            _ => {}
        }
    }
    Ok(entries)
}
