//! Whether what a plan has changed is there: without reading all of a large data plane for a few entries of it.

use ipnet::IpNet;
use zerocopy::IntoBytes;

use super::codec::{
    RouteKey, encode_endpoint, encode_gateway, encode_tunnel, encode_tunnel_route, route_key,
};
use super::contents::contents_are_as_in;
use super::ids::Ids;
use super::read::read_frame;
use crate::config::model::Name;
use crate::kernel::abi::{self, name_kind};
use crate::kernel::{DataPlane as Bpf, KernelError, Map, Network};
use crate::plan::{Plan, Step};
use crate::state::{Route, State, Tunnel};

/// With more steps, it is faster to read everything in batches.
const MOST: usize = 1024;

/// Whether every entry that the steps of a carried out plan are about is as they make it. False also when that can't be told
/// so easily: then all has to be read.
///
/// # Errors
/// The kernel refuses a question.
pub fn is_done(plan: &Plan, bpf: &dyn Bpf, ids: &Ids) -> Result<bool, KernelError> {
    if plan.steps.len() > MOST {
        return Ok(false);
    }
    for step in &plan.steps {
        let is_done = match step {
            Step::Route(segment, prefix, change) => route(segment, prefix, change.after(), bpf, ids)?,
            Step::Endpoint(endpoint, change) => {
                let value = change.after().map(|name| ids.tunnels.number(name));
                let key = encode_endpoint(endpoint);
                has(Map::Endpoints, key.as_bytes(), value.map(|id| Some(id?.as_bytes().to_vec())), bpf)?
            }
            Step::Tunnel(name, change) => match change.after() {
                Some(after) => tunnel(name, after, bpf, ids)?,
                None => false,
            },
            _ => false,
        };
        if !is_done {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a plan has made all as it is in a state. `contents` is whether routes and endpoints are, if that was looked at
/// already. False: there is a difference, or may be one.
///
/// # Errors
/// As for [`read`](super::read).
pub fn is_carried_out(
    plan: &Plan,
    state: &State,
    bpf: &dyn Bpf,
    net: &dyn Network,
    ids: &Ids,
    contents: Option<Result<bool, KernelError>>,
) -> Result<bool, KernelError> {
    if is_done(plan, bpf, ids)? {
        return Ok(true);
    }
    // It may be what had to go.
    if bpf.meta()?.is_none() {
        return Ok(false);
    }
    let contents = contents.unwrap_or_else(|| contents_are_as_in(state, bpf, ids))?;
    Ok(contents && is_as_in(state, bpf, net, ids)?)
}

/// Whether everything is as in a state whose routes and endpoints are known to be there, under the numbers of `ids`. False:
/// there is a difference, or may be one.
///
/// # Errors
/// As for [`read`](super::read).
pub fn is_as_in(state: &State, bpf: &dyn Bpf, net: &dyn Network, ids: &Ids) -> Result<bool, KernelError> {
    let live = read_frame(bpf, net)?;
    // Exhaustive, so that a new field fails to compile until it is compared.
    let State {
        data_plane,
        stack_cpus,
        settings,
        interfaces,
        ports,
        tunnels,
        segments,
        endpoints: _,
        floods,
        flood_links,
        links,
    } = state;
    let now = &live.state;
    Ok((data_plane, stack_cpus, settings) == (&now.data_plane, &now.stack_cpus, &now.settings)
        && (interfaces, ports, tunnels) == (&now.interfaces, &now.ports, &now.tunnels)
        && (floods, flood_links, links) == (&now.floods, &now.flood_links, &now.links)
        && segments.keys().eq(now.segments.keys())
        && live.ids.has_same_numbers(ids))
}

/// Whether a map has this value, or no entry. Some(None): it can't be told what the value should be.
fn has(map: Map, key: &[u8], value: Option<Option<Vec<u8>>>, bpf: &dyn Bpf) -> Result<bool, KernelError> {
    let live = bpf.get(map, key)?;
    Ok(match value {
        None => live.is_none(),
        Some(None) => false,
        Some(value) => live == value,
    })
}

fn route(
    segment: &Name,
    prefix: &IpNet,
    after: Option<&Route>,
    bpf: &dyn Bpf,
    ids: &Ids,
) -> Result<bool, KernelError> {
    let Some(table) = ids.segments.number(segment) else { return Ok(false) };
    let value = after.map(|route| match route {
        Route::Tunnel(name) => Some(encode_tunnel_route(ids.tunnels.number(name)?)),
        Route::Gateway => Some(encode_gateway()),
        // It may have a table of its own.
        Route::Workload { .. } => None,
    });
    let value = value.map(|value| value.map(|value| value.as_bytes().to_vec()));
    match route_key(table, prefix) {
        RouteKey::Host(key) => has(Map::Routes, key.as_bytes(), value, bpf),
        RouteKey::Prefix(key) => {
            let live = bpf.get(Map::Prefixes, key.as_bytes())?;
            // A lookup in a trie answers with the next wider prefix where there is none like this.
            Ok(value.flatten().is_some_and(|value| live == Some(value)))
        }
    }
}

fn tunnel(name: &Name, after: &Tunnel, bpf: &dyn Bpf, ids: &Ids) -> Result<bool, KernelError> {
    let numbers = (
        ids.tunnels.number(name),
        ids.interfaces.number(&after.underlay),
        ids.segments.number(&after.segment),
    );
    let (Some(id), Some(device), Some(table)) = numbers else { return Ok(false) };
    let named = |kind, text: Option<String>| {
        let value = text.map(|text| Some(abi::NameText { text: abi::text_field(&text) }.as_bytes().to_vec()));
        has(Map::Names, abi::NameKey { kind, id }.as_bytes(), value, bpf)
    };
    let active = bpf
        .get(Map::Active, id.as_bytes())?
        .and_then(|bytes| Some(u32::from_ne_bytes(*bytes.first_chunk()?)));
    let Some(active @ (1 | 2)) = active else { return Ok(false) };
    let value = encode_tunnel(after, device, table).as_bytes().to_vec();
    Ok(has(Map::Tunnels, (2 * id + active - 1).as_bytes(), Some(Some(value)), bpf)?
        && named(name_kind::TUNNEL, Some(name.to_string()))?
        && named(name_kind::NEXT_HOP, after.next_hop.map(|next_hop| next_hop.to_string()))?)
}
