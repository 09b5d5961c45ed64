//! The kernel as far as mptm sees it, in memory: both traits over one world, for tests that need no root. It refuses
//! what the real one refuses, counts what changes it, and fails where it is told to.

mod data_plane;
mod dispatchers;
mod maps;
mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

pub use maps::{Entries, Maps};

use super::dispatcher::Dispatcher;
use super::{AttachedXdp, Build, Feature, KernelError, Link, Program};
use crate::config::model::{Mode, Name, NetnsRef};
use crate::mac::MacAddr;

/// A handle of a world; its clones are of the same one.
#[derive(Debug, Clone, Default)]
pub struct Fake(Arc<Mutex<World>>);

impl Fake {
    /// A world of one's own making.
    pub fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    /// The world, to look at and to meddle with. Don't hold on to it.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another world that is the same until something changes in either.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::new(self.world().clone())
    }
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// The build that this mptm carries.
    pub build: Build,
    /// The first is the managed one.
    pub namespaces: Vec<Namespace>,
    /// Of the managed namespace.
    pub routes: Vec<RouteEntry>,
    /// The neighbour table of the managed namespace.
    pub neighbours: BTreeMap<(u32, IpAddr), MacAddr>,
    /// Who answers when asked for.
    pub answers: BTreeMap<(u32, IpAddr), MacAddr>,
    /// Who was asked for, in order.
    pub solicited: Vec<(u32, IpAddr)>,
    /// The pinned maps; None: there is no data plane.
    pub maps: Option<Maps>,
    /// There are maps, but `settle` has yet to load the programs and to pin it all.
    pub unsettled: bool,
    /// How many entries fit into maps that have less room than the real ones.
    pub room: BTreeMap<super::Map, usize>,
    /// How many entries any map may have, if memory is scarce.
    pub most_entries: Option<u32>,
    /// The pinned programs.
    pub pinned: BTreeMap<Program, u32>,
    /// What `replace_programs` took out.
    pub replaced: BTreeMap<Program, u32>,
    /// What `migrate` took out: maps and programs.
    pub former: Option<(Maps, BTreeMap<Program, u32>)>,
    /// The pinned links.
    pub links: BTreeMap<String, XdpLink>,
    /// Those of mptm_flood.
    pub flood_links: BTreeMap<String, XdpLink>,
    /// The pinned parts of dispatchers.
    pub dispatched: BTreeMap<String, Part>,
    /// The dispatchers, by the ids of their programs.
    pub dispatchers: BTreeMap<u32, Dispatcher>,
    /// Whether tc programs have links: since Linux 6.6.
    pub has_tcx: bool,
    /// Loaded programs and their names.
    pub programs: BTreeMap<u32, String>,
    /// How often something was changed, or was to be.
    pub changes: usize,
    /// The change, counted from zero, that fails.
    pub fail_at: Option<usize>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            build: Build([7; 32]),
            namespaces: vec![Namespace { cookie: 1, ..Namespace::default() }],
            routes: Vec::new(),
            neighbours: BTreeMap::new(),
            answers: BTreeMap::new(),
            solicited: Vec::new(),
            maps: None,
            unsettled: false,
            room: BTreeMap::new(),
            most_entries: None,
            pinned: BTreeMap::new(),
            replaced: BTreeMap::new(),
            former: None,
            links: BTreeMap::new(),
            flood_links: BTreeMap::new(),
            dispatched: BTreeMap::new(),
            dispatchers: BTreeMap::new(),
            has_tcx: true,
            programs: BTreeMap::new(),
            changes: 0,
            fail_at: None,
        }
    }
}

/// A network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    /// SO_NETNS_COOKIE.
    pub cookie: u64,
    /// How it can be referred to; the first is what is found.
    pub references: Vec<NetnsRef>,
    /// By index.
    pub devices: BTreeMap<u32, Device>,
    /// net.ipv4.conf.all; those of net.ipv6.conf.all begin with `ipv6:`.
    pub sysctls: BTreeMap<String, u64>,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: Name,
    /// IFLA_INFO_KIND.
    pub kind: Option<Arc<str>>,
    /// Its MAC address.
    pub mac: Option<MacAddr>,
    /// Bytes.
    pub mtu: u32,
    /// IFF_UP.
    pub up: bool,
    /// IFF_PROMISC.
    pub promisc: bool,
    /// veth: the other end's namespace, by its place in the world, and its index.
    pub peer: Option<(usize, u32)>,
    /// ethtool.
    pub features: BTreeMap<String, Feature>,
    /// net.ipv4.conf.DEVICE.
    pub sysctls: BTreeMap<String, u64>,
    /// With host bits.
    pub addresses: Vec<IpNet>,
    /// What is attached.
    pub xdp: Option<AttachedXdp>,
    /// How programs can be attached.
    pub modes: BTreeSet<Mode>,
}

impl Device {
    /// One that is up, with the features of a veth, or of a network card without kind.
    pub fn new(name: &str, kind: Option<&str>, mac: MacAddr) -> Self {
        let feature = |active, changeable| Feature { active, changeable };
        let mut features = BTreeMap::from([
            ("rx-gro".to_owned(), feature(kind.is_none(), true)),
            ("tx-checksum-ip-generic".to_owned(), feature(true, true)),
            ("tx-checksum-sctp".to_owned(), feature(true, true)),
            ("highdma".to_owned(), feature(true, false)),
        ]);
        if kind.is_none() {
            for name in ["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"] {
                features.insert(name.to_owned(), feature(true, true));
            }
        }
        let sysctls = [("forwarding", 0), ("accept_local", 0), ("rp_filter", 2)];
        Self {
            name: name.into(),
            kind: kind.map(Into::into),
            mac: Some(mac),
            mtu: 1500,
            up: true,
            promisc: false,
            peer: None,
            features,
            sysctls: sysctls.map(|(name, value)| (name.to_owned(), value)).into(),
            addresses: Vec::new(),
            xdp: None,
            modes: [Mode::Native, Mode::Generic].into(),
        }
    }
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteEntry {
    /// Where to.
    pub to: IpNet,
    /// The gateway.
    pub via: Option<IpAddr>,
    /// The device.
    pub ifindex: u32,
    /// What the route says of it.
    pub mtu: Option<u32>,
}

/// A pinned link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpLink {
    /// 0: the device is gone.
    pub ifindex: u32,
    /// Which program.
    pub program_id: u32,
}

/// A pinned part of a dispatcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its own id.
    pub program_id: u32,
    /// The pinned program that it is of one build with.
    pub made_from: u32,
}

impl World {
    /// Adds a namespace; the answer is its place.
    pub fn add_namespace(&mut self, name: &str) -> usize {
        let place = self.namespaces.len();
        self.namespaces.push(Namespace {
            cookie: 1 + place as u64,
            references: vec![NetnsRef::Name(name.into())],
            ..Namespace::default()
        });
        place
    }

    /// Adds a device.
    pub fn add_device(&mut self, namespace: usize, ifindex: u32, device: Device) {
        self.namespaces[namespace].devices.insert(ifindex, device);
    }

    /// Adds a veth: `ends` are (namespace, index, name).
    pub fn add_veth(&mut self, ends: [(usize, u32, &str); 2]) {
        for (end, other) in [(0, 1), (1, 0)] {
            let (namespace, ifindex, name) = ends[end];
            let mac = MacAddr([2, 0, 0, 1, namespace as u8, ifindex as u8]);
            let peer = Some((ends[other].0, ends[other].1));
            self.add_device(namespace, ifindex, Device { peer, ..Device::new(name, Some("veth"), mac) });
        }
    }

    /// A device of the managed namespace, by name.
    ///
    /// # Panics
    /// There is none.
    pub fn device(&mut self, name: &str) -> &mut Device {
        self.device_in(0, name)
    }

    /// A device by name.
    ///
    /// # Panics
    /// There is none.
    pub fn device_in(&mut self, namespace: usize, name: &str) -> &mut Device {
        let mut devices = self.namespaces[namespace].devices.values_mut();
        devices.find(|device| &*device.name == name).expect("there is such a device")
    }

    /// Deletes a device, and of a veth the other end: redirections to it and links on it die with it.
    pub fn delete_device(&mut self, namespace: usize, ifindex: u32) {
        let Some(device) = self.namespaces[namespace].devices.remove(&ifindex) else { return };
        if namespace == 0 {
            let links = self.links.values_mut().chain(self.flood_links.values_mut());
            links.filter(|link| link.ifindex == ifindex).for_each(|link| link.ifindex = 0);
            self.routes.retain(|route| route.ifindex != ifindex);
            self.neighbours.retain(|(at, _), _| *at != ifindex);
            if let Some(maps) = &mut self.maps {
                maps.forget_device(ifindex);
            }
        }
        if let Some((namespace, ifindex)) = device.peer {
            self.delete_device(namespace, ifindex);
        }
    }

    /// Loads a program that is not mptm's and attaches it without a pinned link of ours.
    pub fn attach_foreign(&mut self, device: &str, name: &str, mode: Mode) -> u32 {
        let program_id = self.load(name);
        self.device(device).xdp = Some(AttachedXdp { program_id, mode });
        program_id
    }

    fn load(&mut self, name: &str) -> u32 {
        let id = self.programs.last_key_value().map_or(100, |(last, _)| last + 1);
        self.programs.insert(id, name.to_owned());
        id
    }

    /// Counts a change, and fails if it is the one that shall.
    fn change(&mut self, what: impl FnOnce() -> String) -> Result<(), KernelError> {
        let number = self.changes;
        self.changes += 1;
        if self.fail_at == Some(number) {
            return Err(KernelError::plain(format!("{}: injected", what())));
        }
        Ok(())
    }

    fn link_of(&self, namespace: usize, ifindex: u32, device: &Device) -> Link {
        Link {
            name: device.name.clone(),
            ifindex,
            kind: device.kind.clone(),
            mac: device.mac,
            mtu: device.mtu,
            up: device.up,
            xdp: device.xdp,
            peer_ifindex: device.peer.map(|(_, ifindex)| ifindex),
            peer_nsid: device.peer.filter(|(other, _)| *other != namespace).map(|(other, _)| other as i32),
        }
    }
}
