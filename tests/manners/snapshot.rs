//! What a machine and a data plane look like, to be compared before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, MapType, ProgramHandle};

use crate::lab::{Lab, shell_in, soon};

/// Every device with its details, offloads and sysctls, the routes and neighbours; the pins and mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    lines: BTreeSet<String>,
}

/// As lines, since that is how a difference is read. Carriers come and go by themselves, after a device is made.
const NAMESPACE: &str = r#"
ip -d -o link | sed 's/^/link: /; s/NO-CARRIER,//; s/,LOWER_UP//; s/ state [A-Z]*//; s/_timer *[0-9.]*//g'
ip -4 route show table all | sed 's/^/route: /'
for device in $(ip -o link | cut -d' ' -f2 | cut -d: -f1 | cut -d@ -f1); do
    ethtool -k $device 2>/dev/null | sed "s/^/offload of $device: /"
done
cd /proc/sys/net/ipv4
grep . conf/*/forwarding conf/*/accept_local conf/*/rp_filter ip_forward
ip -4 -o neigh | sed 's/^/neighbour: /; s/ used [0-9/]*//; s/ [A-Z_]* *$//'
"#;

impl Machine {
    pub fn look(lab: &Lab) -> Self {
        Self::look_at(lab, &lab.namespaces())
    }

    /// At some of the namespaces only.
    pub fn look_at(lab: &Lab, namespaces: &[String]) -> Self {
        let mut lines = BTreeSet::new();
        for netns in namespaces {
            lines.extend(shell_in(netns, NAMESPACE).lines().map(|line| format!("{netns}: {line}")));
        }
        lines.extend(lab.pins().into_iter().map(|pin| format!("pin: {pin}")));
        // Other tests make namespaces meanwhile, and those are mounts.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        lines.extend(
            mounts.lines().filter(|line| !line.contains("netns")).map(|line| format!("mount: {line}")),
        );
        Self { lines }
    }

    /// Without what it says of some device.
    #[must_use]
    pub fn without(mut self, netns: &str, device: &str) -> Self {
        self.lines.retain(|line| !is_about(line, netns, device));
        self
    }

    /// With nothing but what it says of some device.
    #[must_use]
    pub fn only(mut self, netns: &str, device: &str) -> Self {
        self.lines.retain(|line| is_about(line, netns, device));
        assert!(!self.lines.is_empty(), "there is no {device} in {netns}");
        self
    }

    /// Without what may change in the minutes that a long test takes: neighbours, and mounts of others.
    #[must_use]
    pub fn in_the_long_run(mut self) -> Self {
        self.lines.retain(|line| !line.contains(": neighbour: ") && !line.starts_with("mount: "));
        self
    }

    /// Panics with the lines that differ.
    #[track_caller]
    pub fn must_be(&self, before: &Self) {
        let gone: Vec<&String> = before.lines.difference(&self.lines).collect();
        let new: Vec<&String> = self.lines.difference(&before.lines).collect();
        assert!(gone.is_empty() && new.is_empty(), "the machine differs: before {gone:#?}, after {new:#?}");
    }

    /// Panics unless something differs: or else the snapshots would prove nothing.
    #[track_caller]
    pub fn must_differ_from(&self, before: &Self) {
        assert_ne!(self, before, "nothing has changed");
    }
}

fn is_about(line: &str, netns: &str, device: &str) -> bool {
    let Some(line) = line.strip_prefix(netns).and_then(|line| line.strip_prefix(": ")) else { return false };
    let names = [
        format!(": {device}@"),
        format!("offload of {device}:"),
        format!("conf/{device}/"),
        format!(" dev {device} "),
    ];
    names.iter().any(|name| line.contains(name.as_str()))
}

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// What is pinned in a directory: the kernel's ids, and what the maps hold, counters aside.
#[derive(Debug, PartialEq, Eq)]
pub struct Pinned {
    /// By pin.
    pub maps: BTreeMap<String, u32>,
    pub programs: BTreeMap<String, u32>,
    /// Link and program.
    pub links: BTreeMap<String, (u32, u32)>,
    pub contents: BTreeMap<String, Contents>,
}

fn pins_in(pin: &Path, kind: &str) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(pin.join(kind)).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path())).collect()
}

fn contents(map: &MapHandle) -> Option<Contents> {
    match map.map_type() {
        MapType::PercpuArray | MapType::PercpuHash | MapType::RingBuf | MapType::PerfEventArray => None,
        _ => Some(
            map.keys()
                .filter_map(|key| {
                    let value = map.lookup(&key, MapFlags::ANY).unwrap()?;
                    Some((key, value))
                })
                .collect(),
        ),
    }
}

impl Pinned {
    pub fn look(pin: &Path) -> Self {
        let open_map = |path: &Path| MapHandle::from_pinned_path(path).unwrap();
        let maps: BTreeMap<String, MapHandle> =
            pins_in(pin, "maps").into_iter().map(|(name, path)| (name, open_map(&path))).collect();
        Self {
            maps: maps.iter().map(|(name, map)| (name.clone(), map.info().unwrap().info.id)).collect(),
            programs: pins_in(pin, "programs")
                .into_iter()
                .map(|(name, path)| (name, ProgramHandle::from_pinned_path(path).unwrap().id()))
                .collect(),
            links: pins_in(pin, "links")
                .into_iter()
                .map(|(name, path)| {
                    let info = Link::open(path).unwrap().info().unwrap();
                    (name, (info.id, info.prog_id))
                })
                .collect(),
            // `generation` says how often something was changed, not what is there; `ways` is what packets asked for.
            contents: maps
                .iter()
                .filter(|(name, _)| !["generation", "ways"].contains(&name.as_str()))
                .filter_map(|(name, map)| Some((name.clone(), contents(map)?)))
                .collect(),
        }
    }

    /// Everything is as it was: no program loaded, none attached again, no byte written.
    #[track_caller]
    pub fn must_be(&self, before: &Self) {
        self.must_have_the_objects_of(before);
        for (name, now) in &self.contents {
            let before = &before.contents[name];
            let differ = now.keys().chain(before.keys()).find(|key| now.get(*key) != before.get(*key));
            assert!(differ.is_none(), "the map {name} differs at {differ:?}");
        }
    }

    /// The same maps, programs and links, whatever the maps hold.
    #[track_caller]
    pub fn must_have_the_objects_of(&self, before: &Self) {
        assert_eq!(self.maps, before.maps, "other maps");
        assert_eq!(self.programs, before.programs, "other programs");
        assert_eq!(self.links, before.links, "other links");
    }

    /// All maps and programs are others now, and nothing of these lives on in the kernel.
    #[track_caller]
    pub fn must_be_replaced_by(&self, now: &Self) {
        assert!(
            self.maps.values().all(|id| !now.maps.values().any(|other| other == id)),
            "old maps are pinned"
        );
        self.must_be_gone();
    }

    /// Nothing of it lives on in the kernel.
    #[track_caller]
    pub fn must_be_gone(&self) {
        let gone = || {
            self.maps.values().all(|id| MapHandle::from_map_id(*id).is_err())
                && self.programs.values().all(|id| ProgramHandle::from_prog_id(*id).is_err())
        };
        // The kernel frees them after a grace period.
        assert!(soon(gone), "maps or programs are still loaded");
    }
}

/// Writes one byte of the row of `meta`, as another version or build of mptm would.
pub fn poke_meta(pin: &Path, offset: usize, byte: u8) {
    let meta = MapHandle::from_pinned_path(pin.join("maps/meta")).unwrap();
    let key = 0_u32.to_ne_bytes();
    let mut row = meta.lookup(&key, MapFlags::ANY).unwrap().unwrap();
    row[offset] = byte;
    meta.update(&key, &row, MapFlags::ANY).unwrap();
}
