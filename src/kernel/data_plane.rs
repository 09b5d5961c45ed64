//! The BPF half of the boundary: the pinned maps, programs and links.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use super::dispatcher::Dispatcher;
use super::{KernelError, Sizes};
use crate::config::model::Mode;

/// The pinned maps, by their names in bpf/maps.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "bpf/maps.h says what each one holds")]
pub enum Map {
    Interfaces,
    Slots,
    Devices,
    Cpus,
    Routes,
    Prefixes,
    Endpoints,
    UdpPorts,
    Active,
    Tunnels,
    Floods,
    TunnelState,
    TunnelStats,
    Actions,
    Drops,
    Events,
    Names,
    Saved,
    Meta,
}

impl Map {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Interfaces,
        Self::Slots,
        Self::Devices,
        Self::Cpus,
        Self::Routes,
        Self::Prefixes,
        Self::Endpoints,
        Self::UdpPorts,
        Self::Active,
        Self::Tunnels,
        Self::Floods,
        Self::TunnelState,
        Self::TunnelStats,
        Self::Actions,
        Self::Drops,
        Self::Events,
        Self::Names,
        Self::Saved,
        Self::Meta,
    ];

    /// Its name in the object, and of its pin.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interfaces => "interfaces",
            Self::Slots => "slots",
            Self::Devices => "devices",
            Self::Cpus => "cpus",
            Self::Routes => "routes",
            Self::Prefixes => "prefixes",
            Self::Endpoints => "endpoints",
            Self::UdpPorts => "udp_ports",
            Self::Active => "active",
            Self::Tunnels => "tunnels",
            Self::Floods => "floods",
            Self::TunnelState => "tunnel_state",
            Self::TunnelStats => "tunnel_stats",
            Self::Actions => "actions",
            Self::Drops => "drops",
            Self::Events => "events",
            Self::Names => "names",
            Self::Saved => "saved",
            Self::Meta => "meta",
        }
    }

    /// The map of a name. The object has others, which only its programs use.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|map| map.name() == name)
    }
}

/// The programs, by their numbers in bpf/abi.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Program {
    /// Workloads.
    Encap = 0,
    /// Underlays.
    Decap = 1,
    /// Patch cables.
    Redirect = 2,
    /// Nothing but a counter.
    Pass = 3,
    /// Copies of multicast and broadcast: the only one that is not XDP's, but tc's.
    Flood = 4,
}

impl Program {
    /// In the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Encap, Self::Decap, Self::Redirect, Self::Pass, Self::Flood];
    /// Those of XDP.
    pub const XDP: [Self; 4] = [Self::Encap, Self::Decap, Self::Redirect, Self::Pass];

    /// Its name in the object, and of its pin.
    pub fn name(self) -> &'static str {
        match self {
            Self::Encap => "mptm_encap",
            Self::Decap => "mptm_decap",
            Self::Redirect => "mptm_redirect",
            Self::Pass => "mptm_pass",
            Self::Flood => "mptm_flood",
        }
    }
}

/// Which build of the programs: a SHA-256 of the object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Build(pub [u8; 32]);

impl fmt::Display for Build {
    /// Its first twelve digits: enough to tell builds apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a program of XDP is attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// By a link of its own: the device is its alone.
    #[default]
    Link,
    /// As a part of a dispatcher of libxdp, which others can be part of, too.
    Dispatcher,
}

/// A pinned link, or a pinned part of a dispatcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinnedLink {
    /// Where it is attached; 0: nowhere, since the device is gone, or no dispatcher has it.
    pub ifindex: u32,
    /// The id of the program that the device runs for it: its own, or the dispatcher.
    pub program_id: u32,
    /// Which of the pinned programs its own is; None: another, from an earlier build.
    pub program: Option<Program>,
    /// How.
    pub via: Via,
}

/// Keys and values for a map, each kind one after the other. They are of one map, and so of one size; what is to be removed
/// has no value.
#[derive(Debug, Default)]
pub struct Batch {
    keys: Vec<u8>,
    values: Vec<u8>,
    count: usize,
}

impl Batch {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One more.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        self.keys.extend_from_slice(key);
        self.values.extend_from_slice(value);
        self.count += 1;
    }

    /// Keeps nothing but the memory.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
        self.count = 0;
    }

    /// All keys, and all values.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        (&self.keys, &self.values)
    }

    /// Key by key.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.each(&self.keys)
    }

    /// Entry by entry.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.keys().zip(self.each(&self.values))
    }

    fn each<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        bytes.chunks_exact((bytes.len() / self.count.max(1)).max(1))
    }
}

/// Takes a key and its value.
pub type Each<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), KernelError>;

/// What mptm asks of the kernel's BPF side. Keys and values are the bytes of bpf/abi.h.
pub trait DataPlane {
    /// Where the pins are.
    fn pin_dir(&self) -> &Path;

    /// The build that this mptm carries.
    fn build(&self) -> Build;

    /// How many CPUs this machine may have: the size of `cpus`.
    ///
    /// # Errors
    /// /sys is not mounted.
    fn possible_cpus(&self) -> Result<u32, KernelError>;

    /// The CPUs that are there now.
    ///
    /// # Errors
    /// /sys is not mounted.
    fn online_cpus(&self) -> Result<BTreeSet<u32>, KernelError>;

    /// The row of `meta`, as it stands; None: there is no data plane.
    ///
    /// # Errors
    /// The pins can't be read, or are not mptm's.
    fn meta(&self) -> Result<Option<Vec<u8>>, KernelError>;

    /// How large the maps are; 0: there is no such map.
    ///
    /// # Errors
    /// A map can't be looked at.
    fn sizes(&self) -> Result<Sizes, KernelError>;

    /// Makes the maps, and begins to load the programs. The maps can be filled at once; for all else, `settle` comes first.
    /// All of it or nothing.
    ///
    /// # Errors
    /// Missing rights or memory; a pin directory that can't be made.
    fn create(&mut self, meta: &[u8], sizes: &Sizes) -> Result<(), KernelError>;

    /// Ends what `create` has begun, if it has: waits for the programs, pins all, and writes `meta`. All of it or nothing,
    /// the maps and what is in them included.
    ///
    /// # Errors
    /// Missing rights or kernel features; another data plane that has come into being meanwhile.
    fn settle(&mut self) -> Result<(), KernelError>;

    /// Makes maps of other sizes in the place of those that are there, with the same in them, and this mptm's programs,
    /// which use them; writes `meta`. Every link gets the new program before this returns. No packet is without a
    /// complete table, and what was counted stays. The old maps and programs stay at hand until the next call, for
    /// `restore_programs`, in case they are of another build. All of it or nothing.
    ///
    /// # Errors
    /// As for `create` and `settle`; what is there has no room in so little.
    fn resize(&mut self, meta: &[u8], sizes: &Sizes) -> Result<(), KernelError>;

    /// Loads this mptm's programs with the maps that are there, puts them in the place of the old in the pins and in
    /// every link, and writes `meta`. The old ones stay at hand until the next call, for `restore_programs`.
    ///
    /// # Errors
    /// As for `create` and `settle`.
    fn replace_programs(&mut self, meta: &[u8]) -> Result<(), KernelError>;

    /// Makes maps of this mptm's layout in the place of older ones, with `meta` in them, and programs that use them.
    /// Saved settings and counters are carried over, the rest is empty. The links keep the old programs, which go on
    /// with the old maps, until each is updated. Both stay at hand, for `restore_programs`.
    ///
    /// # Errors
    /// As for `create` and `settle`; maps that can't be read.
    fn migrate(&mut self, meta: &[u8], sizes: &Sizes) -> Result<(), KernelError>;

    /// After `migrate`: gives a link the program back that it had before; false: it is not at hand.
    ///
    /// # Errors
    /// The kernel refuses.
    fn restore_link(&mut self, name: &str, program: Program) -> Result<bool, KernelError>;

    /// Whether programs that were replaced are at hand, and use the maps that are there.
    fn can_restore(&self) -> bool;

    /// Undoes `replace_programs`, and writes `meta`; or undoes `migrate`, or `resize`.
    ///
    /// # Errors
    /// There is nothing to restore; as for `create` and `settle`.
    fn restore_programs(&mut self, meta: &[u8]) -> Result<(), KernelError>;

    /// Removes maps and programs. The links must be gone.
    ///
    /// # Errors
    /// A pin can't be removed.
    fn destroy(&mut self) -> Result<(), KernelError>;

    /// Hands over everything in a hash or a trie, entry by entry: keys and values.
    ///
    /// # Errors
    /// The map can't be read; the first error of `each`.
    fn each_entry(&self, map: Map, each: Each<'_>) -> Result<(), KernelError>;

    /// One value; in a trie, the longest match.
    ///
    /// # Errors
    /// The map can't be read.
    fn get(&self, map: Map, key: &[u8]) -> Result<Option<Vec<u8>>, KernelError>;

    /// One value of a per-CPU array, for each CPU.
    ///
    /// # Errors
    /// The map can't be read.
    fn get_per_cpu(&self, map: Map, key: &[u8]) -> Result<Vec<Vec<u8>>, KernelError>;

    /// Writes a value.
    ///
    /// # Errors
    /// The map is full or can't be written.
    fn put(&mut self, map: Map, key: &[u8], value: &[u8]) -> Result<(), KernelError>;

    /// Writes many values to a map that is no per-CPU array, in order. An error comes with how many were written before.
    ///
    /// # Errors
    /// As for `put`.
    fn put_all(&mut self, map: Map, entries: &Batch) -> Result<(), (usize, KernelError)> {
        entries
            .iter()
            .enumerate()
            .try_for_each(|(done, (key, value))| self.put(map, key, value).map_err(|error| (done, error)))
    }

    /// Writes a value of a per-CPU array, the same for each CPU.
    ///
    /// # Errors
    /// The map can't be written.
    fn put_per_cpu(&mut self, map: Map, key: &[u8], value: &[u8]) -> Result<(), KernelError>;

    /// Removes a value; one that is not there is fine.
    ///
    /// # Errors
    /// The map can't be written.
    fn delete(&mut self, map: Map, key: &[u8]) -> Result<(), KernelError>;

    /// Removes many values; those that are not there are fine. An error comes with how many were removed before.
    ///
    /// # Errors
    /// As for `delete`.
    fn delete_all(&mut self, map: Map, entries: &Batch) -> Result<(), (usize, KernelError)> {
        entries
            .keys()
            .enumerate()
            .try_for_each(|(done, key)| self.delete(map, key).map_err(|error| (done, error)))
    }

    /// The pinned links of XDP and parts of dispatchers, by their names.
    ///
    /// # Errors
    /// A pin can't be read.
    fn links(&self) -> Result<BTreeMap<String, PinnedLink>, KernelError>;

    /// Attaches a pinned program of XDP to a device of the managed namespace, in this mode and no other, and pins the
    /// link; or makes it part of the device's dispatcher, which is made if there is none, and pins it.
    ///
    /// # Errors
    /// The driver refuses the mode, or has a program already; a dispatcher that can't be joined.
    fn attach(
        &mut self,
        name: &str,
        program: Program,
        ifindex: u32,
        mode: Mode,
        via: Via,
    ) -> Result<(), KernelError>;

    /// What the program of XDP on a device of the managed namespace is, if it is a dispatcher.
    ///
    /// # Errors
    /// The kernel refuses the question.
    fn dispatcher(&self, ifindex: u32) -> Result<Option<Dispatcher>, KernelError>;

    /// Puts a pinned program in the place of the one that a link or a dispatcher has; no packet goes by in between.
    ///
    /// # Errors
    /// The kernel refuses.
    fn update_link(&mut self, name: &str, program: Program) -> Result<(), KernelError>;

    /// Detaches a link and removes its pin; a dead one, too. Of a dispatcher, the other parts go on.
    ///
    /// # Errors
    /// The kernel refuses.
    fn detach(&mut self, name: &str) -> Result<(), KernelError>;

    /// The pinned links of mptm_flood, by their names.
    ///
    /// # Errors
    /// A pin can't be read.
    fn flood_links(&self) -> Result<BTreeMap<String, PinnedLink>, KernelError>;

    /// Attaches mptm_flood to what a device of the managed namespace receives, before all other tc programs, and pins
    /// the link.
    ///
    /// # Errors
    /// The kernel has no such links yet (before 6.6), or the device is gone.
    fn attach_flood(&mut self, name: &str, ifindex: u32) -> Result<(), KernelError>;

    /// As `update_link`, for a link of mptm_flood.
    ///
    /// # Errors
    /// The kernel refuses.
    fn update_flood(&mut self, name: &str) -> Result<(), KernelError>;

    /// Detaches a link of mptm_flood and removes its pin; a dead one, too.
    ///
    /// # Errors
    /// The kernel refuses.
    fn detach_flood(&mut self, name: &str) -> Result<(), KernelError>;

    /// The name of a loaded program, ours or not.
    ///
    /// # Errors
    /// There is none of that id.
    fn program_name(&self, id: u32) -> Result<String, KernelError>;
}
