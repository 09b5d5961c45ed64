//! From the kernel to a state.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use zerocopy::IntoBytes;

use super::codec::{
    decode, decode_endpoint, decode_manage, decode_role, decode_tunnel, read_netns, read_prefix,
};
use super::ids::Ids;
use crate::config::model::Name;
use crate::kernel::abi::{self, name_kind, target};
use crate::kernel::{Build, DataPlane as Bpf, KernelError, Map, Network, Setting};
use crate::mac::MacAddr;
use crate::protocol::Protocol;
use crate::state::{Attachment, DataPlane, Interface, Peer, Route, SavedSetting, SettingKey, State};

/// What is there.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// All of it.
    pub state: State,
    /// By which numbers the maps know it.
    pub ids: Ids,
    /// The programs on our links, by interface: anything else on an interface is foreign.
    pub programs: BTreeMap<Name, u32>,
}

type Names = BTreeMap<(u32, u32), String>;

/// Reads everything that mptm owns.
///
/// # Errors
/// The pins are of another version of mptm or for another network namespace, or the kernel refuses a question.
pub fn read(bpf: &dyn Bpf, net: &dyn Network) -> Result<Live, KernelError> {
    let mut live = Live::default();
    let Some(meta) = read_meta(bpf)? else {
        return Ok(live);
    };
    let netns = net.netns_cookie(&None)?;
    if meta.netns != netns {
        return Err(KernelError::plain(format!(
            "the pins in {} are those of another network namespace",
            bpf.pin_dir().display()
        ))
        .hint(
            "a namespace has its own pin directory: choose it with --pin, and the namespace with -n; \
               if that namespace is gone, remove the directory",
        ));
    }
    live.state.data_plane = Some(DataPlane { build: Build(meta.build), netns });
    let names = read_names(bpf, &mut live.ids)?;
    read_interfaces(bpf, &mut live, &names)?;
    read_tunnels(bpf, &mut live)?;
    read_routes(bpf, &mut live)?;
    read_endpoints(bpf, &mut live)?;
    read_ports(bpf, &mut live)?;
    read_links(bpf, net, &mut live)?;
    read_settings(bpf, net, &mut live)?;
    Ok(live)
}

/// The row of `meta`, if there is a data plane.
fn read_meta(bpf: &dyn Bpf) -> Result<Option<abi::Meta>, KernelError> {
    let Some(bytes) = bpf.meta()? else {
        return Ok(None);
    };
    let layout = bytes.first_chunk().map(|first| u32::from_ne_bytes(*first));
    match decode::<abi::Meta>(Map::Meta, &bytes) {
        Ok(meta) if meta.layout == abi::LAYOUT => Ok(Some(meta)),
        _ => Err(KernelError::plain(format!(
            "the pins in {} were made by another version of mptm (layout {}, this one has {})",
            bpf.pin_dir().display(),
            layout.unwrap_or(0),
            abi::LAYOUT
        ))
        .hint("run `mptm down` of that version first, or choose another directory with --pin")),
    }
}

fn read_names(bpf: &dyn Bpf, ids: &mut Ids) -> Result<Names, KernelError> {
    let mut names = Names::new();
    for (key, value) in bpf.entries(Map::Names)? {
        let key: abi::NameKey = decode(Map::Names, &key)?;
        let value: abi::NameText = decode(Map::Names, &value)?;
        let text = abi::field_text(&value.text);
        match key.kind {
            name_kind::INTERFACE => ids.interfaces.insert(text.as_str().into(), key.id),
            name_kind::TUNNEL => ids.tunnels.insert(text.as_str().into(), key.id),
            name_kind::SEGMENT => ids.segments.insert(text.as_str().into(), key.id),
            _ => {}
        }
        names.insert((key.kind, key.id), text);
    }
    Ok(names)
}

fn read_interfaces(bpf: &dyn Bpf, live: &mut Live, names: &Names) -> Result<(), KernelError> {
    for (key, value) in bpf.entries(Map::Interfaces)? {
        let ifindex: u32 = decode(Map::Interfaces, &key)?;
        let value: abi::Interface = decode(Map::Interfaces, &value)?;
        let (Some(name), Some(role)) = (live.ids.interfaces.name(value.slot), decode_role(&value, &live.ids))
        else {
            continue;
        };
        let device = match bpf.get(Map::Devices, value.slot.as_bytes())? {
            // Linux 5.8 appended a program's id to a devmap's value; the index comes first.
            Some(bytes) => {
                bytes.first_chunk().map(|first| u32::from_ne_bytes(*first)).filter(|index| *index != 0)
            }
            None => None,
        };
        let peer = names.get(&(name_kind::PEER, value.slot)).map(|peer| Peer {
            netns: names.get(&(name_kind::PEER_NETNS, value.slot)).and_then(|text| read_netns(text)),
            name: peer.as_str().into(),
        });
        let manage = decode_manage(value.manage);
        let interface = Interface { ifindex, role, mac: MacAddr(value.mac), device, peer, manage };
        live.state.interfaces.insert(name.clone(), interface);
    }
    for (segment, _) in live.ids.segments.iter() {
        live.state.segments.insert(segment.clone(), BTreeMap::new());
    }
    Ok(())
}

fn read_tunnels(bpf: &dyn Bpf, live: &mut Live) -> Result<(), KernelError> {
    for (name, id) in live.ids.tunnels.iter() {
        let Some(bytes) = bpf.get(Map::Active, id.as_bytes())? else { continue };
        let active: u32 = decode(Map::Active, &bytes)?;
        if active == 0 {
            continue;
        }
        let Some(bytes) = bpf.get(Map::Tunnels, (2 * id + active - 1).as_bytes())? else { continue };
        let value: abi::Tunnel = decode(Map::Tunnels, &bytes)?;
        if let Some(tunnel) = decode_tunnel(&value, &live.ids) {
            live.state.tunnels.insert(name.clone(), tunnel);
        }
    }
    Ok(())
}

/// What has no name any more: it shows, and goes with the next apply.
fn nameless(number: u32) -> Name {
    format!("#{number}").into()
}

fn read_routes(bpf: &dyn Bpf, live: &mut Live) -> Result<(), KernelError> {
    let mut tables: BTreeMap<u32, Vec<(IpNet, abi::Route)>> = BTreeMap::new();
    let mut add = |table, address, bits, value: &[u8]| -> Result<(), KernelError> {
        let value: abi::Route = decode(Map::Routes, value)?;
        if let Some(prefix) = read_prefix(address, bits) {
            tables.entry(table).or_default().push((prefix, value));
        }
        Ok(())
    };
    for (key, value) in bpf.entries(Map::Routes)? {
        let key: abi::RouteKey = decode(Map::Routes, &key)?;
        add(key.table, key.address, 128, &value)?;
    }
    for (key, value) in bpf.entries(Map::Prefixes)? {
        let key: abi::PrefixKey = decode(Map::Prefixes, &key)?;
        add(key.table, key.address, key.prefix_len.saturating_sub(32), &value)?;
    }
    let referred: BTreeSet<u32> =
        tables.values().flatten().map(|(_, value)| value.pairs).filter(|pairs| *pairs != 0).collect();
    for table in tables.keys() {
        if !referred.contains(table) && live.ids.segments.name(*table).is_none() {
            live.ids.segments.insert(nameless(*table), *table);
        }
    }
    let ids = &mut live.ids;
    let tunnel_name = |ids: &Ids, id| ids.tunnels.name(id).cloned().unwrap_or_else(|| nameless(id));
    for (segment, table) in ids.segments.iter() {
        let routes = live.state.segments.entry(segment.clone()).or_default();
        for (prefix, value) in tables.get(&table).into_iter().flatten() {
            let route = if value.target == target::WORKLOAD {
                let pairs = tables.get(&value.pairs).filter(|_| value.pairs != 0).into_iter().flatten();
                Route::Workload {
                    interface: ids.interfaces.name(value.id).cloned().unwrap_or_else(|| nameless(value.id)),
                    mac: Some(MacAddr(value.mac)).filter(|mac| *mac != MacAddr::ZERO),
                    pairs: pairs.map(|(prefix, pair)| (*prefix, tunnel_name(ids, pair.id))).collect(),
                }
            } else {
                Route::Tunnel(tunnel_name(ids, value.id))
            };
            routes.insert(*prefix, route);
        }
    }
    live.ids.pairs = referred;
    Ok(())
}

fn read_endpoints(bpf: &dyn Bpf, live: &mut Live) -> Result<(), KernelError> {
    for (key, value) in bpf.entries(Map::Endpoints)? {
        let key: abi::Endpoint = decode(Map::Endpoints, &key)?;
        let id: u32 = decode(Map::Endpoints, &value)?;
        if let Some(endpoint) = decode_endpoint(&key) {
            let name = live.ids.tunnels.name(id).cloned().unwrap_or_else(|| nameless(id));
            live.state.endpoints.insert(endpoint, name);
        }
    }
    Ok(())
}

fn read_ports(bpf: &dyn Bpf, live: &mut Live) -> Result<(), KernelError> {
    let ports = bpf.get(Map::UdpPorts, 0_u32.as_bytes())?.unwrap_or_default();
    for (port, number) in (0..=u16::MAX).zip(&ports) {
        if let Some(protocol) = Protocol::from_number(*number) {
            live.state.ports.insert(port, protocol);
        }
    }
    Ok(())
}

fn read_links(bpf: &dyn Bpf, net: &dyn Network, live: &mut Live) -> Result<(), KernelError> {
    for (name, link) in bpf.links()? {
        let name: Name = name.into();
        let device = if link.ifindex == 0 { None } else { net.link_at(&None, link.ifindex)? };
        let xdp = device.and_then(|device| device.xdp).filter(|xdp| xdp.program_id == link.program_id);
        live.programs.insert(name.clone(), link.program_id);
        let attachment =
            Attachment { ifindex: link.ifindex, program: link.program, mode: xdp.map(|xdp| xdp.mode) };
        live.state.links.insert(name, attachment);
    }
    Ok(())
}

fn read_settings(bpf: &dyn Bpf, net: &dyn Network, live: &mut Live) -> Result<(), KernelError> {
    for (key, value) in bpf.entries(Map::Saved)? {
        let key: abi::SavedKey = decode(Map::Saved, &key)?;
        let value: abi::Saved = decode(Map::Saved, &value)?;
        let at = SettingKey {
            netns: read_netns(&abi::field_text(&value.netns)),
            device: abi::field_text(&value.device).into(),
            setting: Setting::from_key(&abi::field_text(&key.setting)),
        };
        // A namespace or a device that is gone took the setting with it.
        let is_there = net.netns_cookie(&at.netns).is_ok_and(|cookie| cookie == key.netns)
            && net
                .link(&at.netns, &at.device)
                .is_ok_and(|link| link.is_some_and(|link| link.ifindex == key.ifindex));
        let current = if is_there { net.setting(&at.netns, &at.device, &at.setting).ok() } else { None };
        live.state.settings.insert(
            at,
            SavedSetting {
                ifindex: key.ifindex,
                netns_cookie: key.netns,
                before: value.before,
                value: value.value,
                current,
            },
        );
    }
    Ok(())
}
