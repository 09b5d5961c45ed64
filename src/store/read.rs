//! From the kernel to a state.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use zerocopy::{FromBytes, IntoBytes};

use super::codec::{
    decode, decode_endpoint, decode_manage, decode_role, decode_tunnel, encode_gateway, encode_tunnel_route,
    read_netns, read_route_key,
};
use super::flood;
use super::ids::Ids;
use crate::config::model::Name;
use crate::kernel::abi::{self, interface_flags, name_kind, target};
use crate::kernel::{Build, DataPlane as Bpf, Feature, KernelError, Map, Netns, Network, Program, Setting};
use crate::mac::MacAddr;
use crate::protocol::Protocol;
use crate::state::{
    Attachment, DataPlane, FloodLink, Interface, Peer, Route, SavedSetting, SettingKey, State,
};

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

/// The names of peers, by kind and slot.
type Names = BTreeMap<(u32, u32), String>;

/// Reads everything that mptm owns.
///
/// # Errors
/// The pins are of another version of mptm or for another network namespace, or the kernel refuses a question.
pub fn read(bpf: &dyn Bpf, net: &dyn Network) -> Result<Live, KernelError> {
    read_some(bpf, net, true)
}

/// Reads everything but routes and endpoints; the segments are there, and empty.
pub(super) fn read_frame(bpf: &dyn Bpf, net: &dyn Network) -> Result<Live, KernelError> {
    read_some(bpf, net, false)
}

fn read_some(bpf: &dyn Bpf, net: &dyn Network, contents: bool) -> Result<Live, KernelError> {
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
    live.state.data_plane =
        Some(DataPlane { build: Build(meta.build), netns, layout: meta.layout, sizes: bpf.sizes()? });
    let names = read_names(bpf, &mut live.ids)?;
    read_links(bpf, net, &mut live)?;
    read_flood_links(bpf, &mut live)?;
    read_settings(bpf, net, &mut live)?;
    if meta.layout != abi::LAYOUT {
        // What else there is has to be made anew.
        return Ok(live);
    }
    for cpu in 0..bpf.possible_cpus()? {
        if bpf.get(Map::Cpus, cpu.as_bytes())?.is_some() {
            live.state.stack_cpus.insert(cpu);
        }
    }
    read_interfaces(bpf, &mut live, &names)?;
    read_tunnels(bpf, &mut live, &names)?;
    if contents {
        read_routes(bpf, &mut live)?;
        read_endpoints(bpf, &mut live)?;
    } else {
        let segments = live.ids.segments.iter().map(|(name, _)| (name.clone(), BTreeMap::new()));
        live.state.segments = segments.collect();
    }
    read_ports(bpf, &mut live)?;
    read_floods(bpf, &mut live)?;
    Ok(live)
}

/// The row of `meta`, if there is a data plane.
fn read_meta(bpf: &dyn Bpf) -> Result<Option<abi::Meta>, KernelError> {
    let Some(bytes) = bpf.meta()? else {
        return Ok(None);
    };
    let layout = bytes.first_chunk().map_or(0, |first| u32::from_ne_bytes(*first));
    let pins = bpf.pin_dir().display();
    match decode::<abi::Meta>(Map::Meta, &bytes) {
        Ok(meta) if (abi::OLDEST_LAYOUT..=abi::LAYOUT).contains(&layout) => Ok(Some(meta)),
        // Whatever else it looks like by then.
        _ if layout > abi::LAYOUT => {
            let what = format!(
                "the pins in {pins} were made by a newer mptm (layout {layout}, this one has {})",
                abi::LAYOUT
            );
            Err(KernelError::plain(what)
                .hint("use that one, or run its `mptm down` first, or choose another directory with --pin"))
        }
        _ => {
            let what = format!(
                "the pins in {pins} were made by another version of mptm (layout {layout}, this one has {})",
                abi::LAYOUT
            );
            Err(KernelError::plain(what)
                .hint("run `mptm down` of that version first, or choose another directory with --pin"))
        }
    }
}

/// Hands over what a map holds, as structs.
fn each<K: FromBytes, V: FromBytes>(
    bpf: &dyn Bpf,
    map: Map,
    mut each: impl FnMut(K, V) -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    bpf.each_entry(map, &mut |key, value| each(decode(map, key)?, decode(map, value)?))
}

fn read_names(bpf: &dyn Bpf, ids: &mut Ids) -> Result<Names, KernelError> {
    let mut names = Names::new();
    each(bpf, Map::Names, |key: abi::NameKey, value: abi::NameText| {
        let text = abi::field_text(&value.text);
        match key.kind {
            name_kind::INTERFACE => ids.interfaces.insert(text.as_str().into(), key.id),
            name_kind::TUNNEL => ids.tunnels.insert(text.as_str().into(), key.id),
            name_kind::SEGMENT => ids.segments.insert(text.as_str().into(), key.id),
            _ => drop(names.insert((key.kind, key.id), text)),
        }
        Ok(())
    })?;
    Ok(names)
}

fn read_interfaces(bpf: &dyn Bpf, live: &mut Live, names: &Names) -> Result<(), KernelError> {
    each(bpf, Map::Interfaces, |ifindex: u32, value: abi::Interface| {
        let name = live.ids.interfaces.named(value.slot);
        let role = decode_role(&value, &mut live.ids);
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
        let slot: abi::Slot = match bpf.get(Map::Slots, value.slot.as_bytes())? {
            Some(bytes) => decode(Map::Slots, &bytes)?,
            None => abi::Slot::default(),
        };
        // Written down twice; where they disagree, it is no interface's.
        let mac = if slot.mac == value.mac { MacAddr(value.mac) } else { MacAddr([0xff; 6]) };
        let manage = decode_manage(value.flags);
        let native = value.flags & interface_flags::CPUS != 0;
        let interface = Interface { ifindex, role, mac, device, peer, manage, native };
        // An interface that was interrupted on its way to another index has two entries: the old one has to go.
        if device != Some(ifindex) || !live.state.interfaces.contains_key(&name) {
            live.state.interfaces.insert(name, interface);
        }
        Ok(())
    })
}

fn read_tunnels(bpf: &dyn Bpf, live: &mut Live, names: &Names) -> Result<(), KernelError> {
    // Both are arrays, and read as a whole: asking for one tunnel after the other takes longer.
    let mut in_use = BTreeMap::new();
    each(bpf, Map::Active, |id: u32, active: u32| {
        if active != 0 {
            in_use.insert(id, active);
        }
        Ok(())
    })?;
    each(bpf, Map::Tunnels, |index: u32, value: abi::Tunnel| {
        let id = index / 2;
        let Some(active) = in_use.get(&id).filter(|active| (**active - 1) % 2 == index % 2) else {
            return Ok(());
        };
        let Some(name) = live.ids.tunnels.name(id).cloned() else { return Ok(()) };
        let mut tunnel = decode_tunnel(&value, &mut live.ids);
        tunnel.intact &= *active <= 2;
        tunnel.next_hop = names.get(&(name_kind::NEXT_HOP, id)).and_then(|text| text.parse().ok());
        live.state.tunnels.insert(name, tunnel);
        Ok(())
    })
}

type Tables = BTreeMap<u32, Vec<(IpNet, abi::Route)>>;

fn read_routes(bpf: &dyn Bpf, live: &mut Live) -> Result<(), KernelError> {
    let mut tables = Tables::new();
    let mut add = |table, address, bits, value| {
        if let Some((table, prefix)) = read_route_key(table, address, bits) {
            tables.entry(table).or_default().push((prefix, value));
        }
        Ok(())
    };
    each(bpf, Map::Routes, |key: abi::RouteKey, value: abi::Route| add(key.table, key.address, 128, value))?;
    each(bpf, Map::Prefixes, |key: abi::PrefixKey, value: abi::Route| {
        add(key.table, key.address, key.prefix_len.saturating_sub(32), value)
    })?;
    let ids = &mut live.ids;
    let referred: BTreeSet<u32> =
        tables.values().flatten().map(|(_, value)| value.pairs).filter(|pairs| *pairs != 0).collect();
    for table in tables.keys().filter(|table| !referred.contains(table)) {
        ids.segments.named(*table);
    }
    ids.tables = tables.keys().copied().chain(referred).collect();
    let segments: Vec<(Name, u32)> = ids.segments.iter().map(|(name, table)| (name.clone(), table)).collect();
    for (segment, table) in segments {
        let routes = tables.get(&table).into_iter().flatten();
        let routes = routes.map(|(prefix, value)| (*prefix, read_route(table, prefix, value, &tables, ids)));
        let routes = routes.collect();
        live.state.segments.insert(segment, routes);
    }
    Ok(())
}

fn read_route(table: u32, prefix: &IpNet, value: &abi::Route, tables: &Tables, ids: &mut Ids) -> Route {
    if value.target == target::WORKLOAD {
        let mut pairs = Box::<BTreeMap<_, _>>::default();
        if value.pairs != 0 {
            ids.pairs.insert((table, *prefix), value.pairs);
            for (destination, pair) in tables.get(&value.pairs).into_iter().flatten() {
                pairs.insert(*destination, read_tunnel_route(pair, ids));
            }
        }
        return Route::Workload {
            interface: ids.interfaces.named(value.id),
            mac: Some(MacAddr(value.mac)).filter(|mac| *mac != MacAddr::ZERO),
            pairs,
        };
    }
    if *value == encode_gateway() {
        return Route::Gateway;
    }
    Route::Tunnel(read_tunnel_route(value, ids))
}

/// The tunnel of a route. Where more is written than mptm writes, or less, it is one that no file has.
fn read_tunnel_route(value: &abi::Route, ids: &mut Ids) -> Name {
    if *value == encode_tunnel_route(value.id) {
        ids.tunnels.named(value.id)
    } else {
        format!("#{} damaged", value.id).into()
    }
}

fn read_endpoints(bpf: &dyn Bpf, live: &mut Live) -> Result<(), KernelError> {
    each(bpf, Map::Endpoints, |key: abi::Endpoint, id: u32| {
        if let Some(endpoint) = decode_endpoint(&key) {
            let name = live.ids.tunnels.named(id);
            live.state.endpoints.insert(endpoint, name);
        }
        Ok(())
    })
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

fn read_floods(bpf: &dyn Bpf, live: &mut Live) -> Result<(), KernelError> {
    each(bpf, Map::Floods, |table: u32, value: abi::Flood| {
        let flood = flood::decode(&value, &mut live.ids);
        live.state.floods.insert(live.ids.segments.named(table), flood);
        Ok(())
    })
}

fn read_flood_links(bpf: &dyn Bpf, live: &mut Live) -> Result<(), KernelError> {
    for (name, link) in bpf.flood_links()? {
        let current = link.program == Some(Program::Flood);
        live.state.flood_links.insert(name.into(), FloodLink { ifindex: link.ifindex, current });
    }
    Ok(())
}

fn read_links(bpf: &dyn Bpf, net: &dyn Network, live: &mut Live) -> Result<(), KernelError> {
    for (name, link) in bpf.links()? {
        let name: Name = name.into();
        let device = if link.ifindex == 0 { None } else { net.link_at(&None, link.ifindex)? };
        let xdp = device.and_then(|device| device.xdp).filter(|xdp| xdp.program_id == link.program_id);
        live.programs.insert(name.clone(), link.program_id);
        let attachment = Attachment {
            ifindex: link.ifindex,
            program: link.program,
            mode: xdp.map(|xdp| xdp.mode),
            via: link.via,
        };
        live.state.links.insert(name, attachment);
    }
    Ok(())
}

fn read_settings(bpf: &dyn Bpf, net: &dyn Network, live: &mut Live) -> Result<(), KernelError> {
    let mut devices = Devices {
        net,
        cookies: BTreeMap::new(),
        found: BTreeMap::new(),
        links: BTreeMap::new(),
        features: BTreeMap::new(),
    };
    each(bpf, Map::Saved, |key: abi::SavedKey, value: abi::Saved| {
        let recorded = read_netns(&abi::field_text(&value.netns));
        let netns = devices.netns(&recorded, key.netns)?;
        let setting = Setting::from_key(&abi::field_text(&key.setting));
        // A namespace or a device that is gone took the setting with it. One that was renamed has it still.
        let device = netns.as_ref().and_then(|netns| devices.name(netns, key.ifindex));
        // By what leads to it now, if anything does.
        let netns = netns.unwrap_or(recorded);
        let current = device.as_ref().and_then(|device| devices.setting(&netns, device, &setting));
        let device = device.unwrap_or_else(|| abi::field_text(&value.device).into());
        let at = SettingKey { netns, device, setting };
        // A device that came after it under the same name is the one that the name means.
        if current.is_none() && live.state.settings.contains_key(&at) {
            return Ok(());
        }
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
        Ok(())
    })
}

/// What was asked of devices already: a namespace is expensive to enter.
struct Devices<'a> {
    net: &'a dyn Network,
    cookies: BTreeMap<Netns, Option<u64>>,
    found: BTreeMap<u64, Option<Netns>>,
    links: BTreeMap<(Netns, u32), Option<Name>>,
    features: BTreeMap<(Netns, Name), BTreeMap<String, Feature>>,
}

impl Devices<'_> {
    /// What leads to the namespace with a cookie: the reference of the record, unless its process has ended or the name
    /// is another's now. None: the namespace is gone.
    fn netns(&mut self, recorded: &Netns, cookie: u64) -> Result<Option<Netns>, KernelError> {
        let net = self.net;
        let now = self.cookies.entry(recorded.clone()).or_insert_with(|| net.netns_cookie(recorded).ok());
        if *now == Some(cookie) {
            return Ok(Some(recorded.clone()));
        }
        if let Some(found) = self.found.get(&cookie) {
            return Ok(found.clone());
        }
        let found = net.find_netns(cookie)?;
        self.found.insert(cookie, found.clone());
        Ok(found)
    }

    /// The name that the device has now. None: it is gone.
    fn name(&mut self, netns: &Netns, ifindex: u32) -> Option<Name> {
        let net = self.net;
        let link = || net.link_at(netns, ifindex).ok().flatten().map(|link| link.name);
        self.links.entry((netns.clone(), ifindex)).or_insert_with(link).clone()
    }

    fn setting(&mut self, netns: &Netns, device: &Name, setting: &Setting) -> Option<u64> {
        let net = self.net;
        let Setting::Feature(name) = setting else {
            return net.setting(netns, device, setting).ok();
        };
        let features = || net.features(netns, device).unwrap_or_default();
        let features = self.features.entry((netns.clone(), device.clone())).or_insert_with(features);
        features.get(&**name).map(|feature| feature.active.into())
    }
}
