//! From a step to the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use ipnet::IpNet;
use zerocopy::IntoBytes;

use super::codec::{
    RouteKey, decode, encode_endpoint, encode_gateway, encode_interface, encode_tunnel_route,
    encode_workload_route, netns_text, route_key,
};
use super::flood;
use super::ids::Ids;
use super::tunnels::tunnel;
use crate::config::model::Name;
use crate::kernel::abi::{self, name_kind};
use crate::kernel::{DataPlane as Bpf, KernelError, Map, Network};
use crate::mac::MacAddr;
use crate::plan::{Change, Step};
use crate::protocol::Protocol;
use crate::state::{Attachment, DataPlane, Interface, Route, SavedSetting, SettingKey};

/// Carries out one step. `ids` are those of the data plane that is there, and follow.
///
/// # Errors
/// What the kernel refuses. The step may then be half done; carrying out its inverse is always possible.
pub fn execute(
    step: &Step,
    bpf: &mut dyn Bpf,
    net: &mut dyn Network,
    ids: &mut Ids,
) -> Result<(), KernelError> {
    match step {
        Step::DataPlane(change) => {
            begin(change, bpf, ids)?;
            bpf.settle()
        }
        Step::StackCpus(change) => stack_cpus(change, bpf),
        Step::Setting(key, change) => setting(key, change, bpf, net),
        Step::Segment(name, change) => segment(name, change, bpf, ids),
        Step::Interface(name, change) => interface(name, change, bpf, ids),
        Step::Port(port, change) => udp_port(*port, change.after().copied(), bpf),
        Step::Tunnel(name, change) => tunnel(name, change, bpf, ids),
        Step::Route(segment, prefix, change) => route(segment, prefix, change, bpf, ids),
        Step::Endpoint(endpoint, change) => {
            let key = encode_endpoint(endpoint);
            match change.after() {
                Some(tunnel) => {
                    let id = ids.tunnel(tunnel);
                    bpf.put(Map::Endpoints, key.as_bytes(), id.as_bytes())
                }
                None => bpf.delete(Map::Endpoints, key.as_bytes()),
            }
        }
        Step::FloodLink(name, change) => flood::link(name, change, bpf),
        Step::Flood(segment, change) => flood::flood(segment, change, bpf, ids),
        Step::Link(name, change) => link(name, change, bpf),
    }
}

/// Undoes a step that failed, and may be half done.
///
/// # Errors
/// What the kernel refuses.
pub fn revert(
    step: &Step,
    bpf: &mut dyn Bpf,
    net: &mut dyn Network,
    ids: &mut Ids,
) -> Result<(), KernelError> {
    if let Step::Link(name, change) = step
        && let Some(before) = change.before()
        && bpf.links()?.get(&**name).is_some_and(|now| {
            (now.ifindex, now.program, now.via) == (before.ifindex, before.program, before.via)
        })
    {
        return Ok(());
    }
    if let Step::FloodLink(name, change) = step {
        return flood::revert_link(name, change, bpf);
    }
    execute(&step.clone().inverse(), bpf, net, ids)
}

/// As `execute`, but for a data plane that is being made: its maps are there, and `settle` does the rest.
pub(super) fn begin(change: &Change<DataPlane>, bpf: &mut dyn Bpf, ids: &mut Ids) -> Result<(), KernelError> {
    ids.untouched = matches!(change, Change::Add(_));
    data_plane(change, bpf)
}

fn data_plane(change: &Change<DataPlane>, bpf: &mut dyn Bpf) -> Result<(), KernelError> {
    let row = |data_plane: &DataPlane| abi::Meta {
        layout: abi::LAYOUT,
        pad: 0,
        netns: data_plane.netns,
        build: data_plane.build.0,
        version: abi::text_field(env!("CARGO_PKG_VERSION")),
    };
    match change {
        Change::Modify { before, after } if before.layout != after.layout => {
            if after.layout == abi::LAYOUT {
                bpf.migrate(row(after).as_bytes(), &after.sizes)
            } else {
                bpf.restore_programs(row(after).as_bytes())
            }
        }
        Change::Add(after) => bpf.create(row(after).as_bytes(), &after.sizes),
        Change::Modify { before, after } if after.build == bpf.build() && before.sizes != after.sizes => {
            bpf.resize(row(after).as_bytes(), &after.sizes)
        }
        Change::Modify { after, .. } if after.build == bpf.build() => {
            bpf.replace_programs(row(after).as_bytes())
        }
        Change::Modify { after, .. } => bpf.restore_programs(row(after).as_bytes()),
        Change::Remove(_) => bpf.destroy(),
    }
}

/// How many frames may wait for a CPU's thread; it takes them in bulk.
const STACK_QUEUE: u32 = 2048;

fn stack_cpus(change: &Change<BTreeSet<u32>>, bpf: &mut dyn Bpf) -> Result<(), KernelError> {
    let none = BTreeSet::new();
    let (before, after) = (change.before().unwrap_or(&none), change.after().unwrap_or(&none));
    after
        .difference(before)
        .try_for_each(|cpu| bpf.put(Map::Cpus, cpu.as_bytes(), STACK_QUEUE.as_bytes()))?;
    before.difference(after).try_for_each(|cpu| bpf.delete(Map::Cpus, cpu.as_bytes()))
}

fn saved_key(key: &SettingKey, setting: &SavedSetting) -> abi::SavedKey {
    abi::SavedKey {
        setting: abi::text_field(&key.setting.key()),
        ifindex: setting.ifindex,
        pad: 0,
        netns: setting.netns_cookie,
    }
}

fn setting(
    key: &SettingKey,
    change: &Change<SavedSetting>,
    bpf: &mut dyn Bpf,
    net: &mut dyn Network,
) -> Result<(), KernelError> {
    let (before, after) = (change.before(), change.after());
    let same_device = |one, other| saved_key(key, one) == saved_key(key, other);
    if let Some(gone) = before.filter(|before| after.is_none_or(|after| !same_device(before, after))) {
        if let Err(error) = put_back(key, gone, net)
            && !is_gone(key, gone, net)
        {
            return Err(error);
        }
        bpf.delete(Map::Saved, saved_key(key, gone).as_bytes())?;
    }
    let Some(after) = after else { return Ok(()) };
    let value = abi::Saved {
        before: after.before,
        value: after.value,
        netns: abi::text_field(&netns_text(&key.netns)),
        device: abi::text_field(&key.device),
    };
    // Saved first: whatever happens then, it can be put back.
    bpf.put(Map::Saved, saved_key(key, after).as_bytes(), value.as_bytes())?;
    // Undoing, for a device that was out of reach by its old name: what mptm had made it.
    let is_reached = before.is_some_and(|before| before.current.is_some() && same_device(before, after));
    match after.current.or_else(|| is_reached.then_some(after.value)) {
        Some(value) => set(key, value, net),
        None => Ok(()),
    }
}

/// Makes a setting what it was before mptm. What somebody else has changed since is theirs.
fn put_back(key: &SettingKey, saved: &SavedSetting, net: &mut dyn Network) -> Result<(), KernelError> {
    if saved.current != Some(saved.value)
        || net.setting(&key.netns, &key.device, &key.setting)? != saved.value
    {
        return Ok(());
    }
    set(key, saved.before, net).map_err(|error| {
        let way = "set it by hand to the value that it should have, and run the command again: mptm leaves alone \
                   what is no longer as mptm made it";
        let hint = error.hint.as_ref().map_or_else(|| way.to_owned(), |hint| format!("{hint}; or {way}"));
        error.hint(hint)
    })
}

/// Whether the device, or its namespace, has gone since it was read, and took the setting with it.
fn is_gone(key: &SettingKey, saved: &SavedSetting, net: &dyn Network) -> bool {
    let is_there = net.netns_cookie(&key.netns).and_then(|cookie| {
        Ok(cookie == saved.netns_cookie && net.link_at(&key.netns, saved.ifindex)?.is_some())
    });
    match is_there {
        Ok(is_there) => !is_there,
        Err(error) => error.source.is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound),
    }
}

/// Sets what is not so already.
fn set(key: &SettingKey, value: u64, net: &mut dyn Network) -> Result<(), KernelError> {
    if net.setting(&key.netns, &key.device, &key.setting)? == value {
        return Ok(());
    }
    net.set(&key.netns, &key.device, &key.setting, value)
}

pub(super) fn put_name(bpf: &mut dyn Bpf, kind: u32, id: u32, text: &str) -> Result<(), KernelError> {
    let key = abi::NameKey { kind, id };
    bpf.put(Map::Names, key.as_bytes(), abi::NameText { text: abi::text_field(text) }.as_bytes())
}

pub(super) fn delete_name(bpf: &mut dyn Bpf, kind: u32, id: u32) -> Result<(), KernelError> {
    bpf.delete(Map::Names, abi::NameKey { kind, id }.as_bytes())
}

fn segment(name: &Name, change: &Change<()>, bpf: &mut dyn Bpf, ids: &mut Ids) -> Result<(), KernelError> {
    let table = ids.segment(name)?;
    if change.after().is_some() {
        return put_name(bpf, name_kind::SEGMENT, table, name);
    }
    delete_name(bpf, name_kind::SEGMENT, table)?;
    ids.segments.remove(name);
    Ok(())
}

fn interface(
    name: &Name,
    change: &Change<Interface>,
    bpf: &mut dyn Bpf,
    ids: &mut Ids,
) -> Result<(), KernelError> {
    let slot = ids.interface(name);
    let Some(after) = change.after() else {
        for kind in [name_kind::PEER_NETNS, name_kind::PEER, name_kind::INTERFACE] {
            delete_name(bpf, kind, slot)?;
        }
        if let Some(gone) = change.before() {
            delete_interface(gone.ifindex, slot, bpf, ids)?;
        }
        bpf.delete(Map::Devices, slot.as_bytes())?;
        put_slot(slot, MacAddr::ZERO, bpf)?;
        ids.interfaces.remove(name);
        return Ok(());
    };
    match after.device {
        Some(device) => bpf.put(Map::Devices, slot.as_bytes(), device.as_bytes())?,
        None => bpf.delete(Map::Devices, slot.as_bytes())?,
    }
    let value = encode_interface(name, after, ids)?;
    if let Some(other) = interface_at(after.ifindex, bpf)?.filter(|other| other.slot != slot) {
        ids.displaced.insert(after.ifindex, other);
    }
    put_slot(slot, after.mac, bpf)?;
    bpf.put(Map::Interfaces, after.ifindex.as_bytes(), value.as_bytes())?;
    if let Some(before) = change.before()
        && before.ifindex != after.ifindex
    {
        delete_interface(before.ifindex, slot, bpf, ids)?;
    }
    // The name comes last: without it, whatever an interruption leaves of the rest is seen to be nobody's.
    match &after.peer {
        Some(peer) => {
            put_name(bpf, name_kind::PEER_NETNS, slot, &netns_text(&peer.netns))?;
            put_name(bpf, name_kind::PEER, slot, &peer.name)?;
        }
        None => {
            delete_name(bpf, name_kind::PEER_NETNS, slot)?;
            delete_name(bpf, name_kind::PEER, slot)?;
        }
    }
    put_name(bpf, name_kind::INTERFACE, slot, name)
}

fn put_slot(slot: u32, mac: MacAddr, bpf: &mut dyn Bpf) -> Result<(), KernelError> {
    bpf.put(Map::Slots, slot.as_bytes(), abi::Slot { mac: mac.0, pad: [0; 2] }.as_bytes())
}

fn interface_at(ifindex: u32, bpf: &dyn Bpf) -> Result<Option<abi::Interface>, KernelError> {
    match bpf.get(Map::Interfaces, ifindex.as_bytes())? {
        Some(bytes) => Ok(Some(decode(Map::Interfaces, &bytes)?)),
        None => Ok(None),
    }
}

/// Removes an interface's entry, unless its index has become another interface's; what it took the place of comes back.
fn delete_interface(ifindex: u32, slot: u32, bpf: &mut dyn Bpf, ids: &mut Ids) -> Result<(), KernelError> {
    if interface_at(ifindex, bpf)?.is_some_and(|entry| entry.slot == slot) {
        match ids.displaced.get(&ifindex).filter(|other| other.slot != slot) {
            Some(other) => bpf.put(Map::Interfaces, ifindex.as_bytes(), other.as_bytes())?,
            None => bpf.delete(Map::Interfaces, ifindex.as_bytes())?,
        }
    }
    ids.displaced.remove(&ifindex);
    Ok(())
}

fn udp_port(port: u16, protocol: Option<Protocol>, bpf: &mut dyn Bpf) -> Result<(), KernelError> {
    let mut ports = bpf.get(Map::UdpPorts, 0_u32.as_bytes())?.unwrap_or_default();
    if let Some(entry) = ports.get_mut(usize::from(port)) {
        *entry = protocol.map_or(0, |protocol| protocol as u8);
    }
    bpf.put(Map::UdpPorts, 0_u32.as_bytes(), &ports)
}

fn put_route(
    table: u32,
    prefix: &IpNet,
    value: Option<abi::Route>,
    bpf: &mut dyn Bpf,
) -> Result<(), KernelError> {
    match (route_key(table, prefix), value) {
        (RouteKey::Host(key), Some(value)) => bpf.put(Map::Routes, key.as_bytes(), value.as_bytes()),
        (RouteKey::Host(key), None) => bpf.delete(Map::Routes, key.as_bytes()),
        (RouteKey::Prefix(key), Some(value)) => bpf.put(Map::Prefixes, key.as_bytes(), value.as_bytes()),
        (RouteKey::Prefix(key), None) => bpf.delete(Map::Prefixes, key.as_bytes()),
    }
}

fn tunnel_route(tunnel: &Name, ids: &mut Ids) -> abi::Route {
    encode_tunnel_route(ids.tunnel(tunnel))
}

/// The pairs of a route, if it has any.
pub(super) fn pairs_of(route: Option<&Route>) -> Option<&BTreeMap<IpNet, Name>> {
    match route {
        Some(Route::Workload { pairs, .. }) if !pairs.is_empty() => Some(pairs),
        _ => None,
    }
}

/// The value of a route whose pairs, if it has any, are in the table `pairs`.
pub(super) fn route_value(route: &Route, pairs: u32, ids: &mut Ids) -> abi::Route {
    match route {
        Route::Tunnel(tunnel) => tunnel_route(tunnel, ids),
        Route::Gateway => encode_gateway(),
        Route::Workload { interface, mac, pairs: _ } => {
            encode_workload_route(ids.interface(interface), pairs, *mac)
        }
    }
}

fn route(
    segment: &Name,
    prefix: &IpNet,
    change: &Change<Route>,
    bpf: &mut dyn Bpf,
    ids: &mut Ids,
) -> Result<(), KernelError> {
    let table = ids.segment(segment)?;
    let (old_pairs, new_pairs) = (pairs_of(change.before()), pairs_of(change.after()));
    let pairs = if old_pairs.or(new_pairs).is_some() { ids.pairs(table, *prefix)? } else { 0 };
    let has = |all: Option<&BTreeMap<IpNet, Name>>, destination, tunnel| {
        all.is_some_and(|all| all.get(destination) == Some(tunnel))
    };

    // A pair is there before the route that leads to it, and goes after it.
    for (destination, tunnel) in new_pairs.into_iter().flatten() {
        if !has(old_pairs, destination, tunnel) {
            put_route(pairs, destination, Some(tunnel_route(tunnel, ids)), bpf)?;
        }
    }
    let value =
        change.after().map(|after| route_value(after, if new_pairs.is_some() { pairs } else { 0 }, ids));
    put_route(table, prefix, value, bpf)?;
    for destination in old_pairs.into_iter().flat_map(BTreeMap::keys) {
        if new_pairs.is_none_or(|new| !new.contains_key(destination)) {
            put_route(pairs, destination, None, bpf)?;
        }
    }
    Ok(())
}

fn link(name: &Name, change: &Change<Attachment>, bpf: &mut dyn Bpf) -> Result<(), KernelError> {
    let Some(after) = change.after() else {
        return bpf.detach(name);
    };
    let (Some(program), Some(mode)) = (after.program, after.mode) else {
        // Only as the undoing of a step. What it mended was dead, or of a build that is no longer at hand.
        return match (after.mode, change.before()) {
            (Some(mode), Some(now)) if now.ifindex == after.ifindex && now.mode == Some(mode) => {
                if let Some(program) = now.program
                    && bpf.restore_link(name, program)?
                {
                    return Ok(());
                }
                let what = format!("{name} keeps the new program: the old one is no longer at hand");
                Err(KernelError::plain(what))
            }
            (Some(_), _) => {
                bpf.detach(name)?;
                Err(KernelError::plain(format!("{name} has no program: the old one is no longer at hand"))
                    .hint("run `mptm apply` when the cause is gone"))
            }
            (None, _) => bpf.detach(name),
        };
    };
    match change.before() {
        Some(before)
            if (before.ifindex, before.mode, before.via) == (after.ifindex, after.mode, after.via) =>
        {
            bpf.update_link(name, program)
        }
        Some(_) => {
            bpf.detach(name)?;
            bpf.attach(name, program, after.ifindex, mode, after.via)
        }
        None => bpf.attach(name, program, after.ifindex, mode, after.via),
    }
}
