//! From maps of an older layout to those of this mptm. New maps and programs are made beside the old ones, and take over
//! their pins; the old programs go on with the old maps where they are attached, until the links are updated one by one,
//! when the new maps are filled. Only two things can't be made anew from the file, and are carried over: what settings
//! were before mptm, and what was counted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use libbpf_rs::{Link, MapCore, MapHandle, ProgramHandle};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::bpf::BpfDataPlane;
use super::bpf_calls;
use super::copy::copy;
use super::dispatched::{self, Parts, Wanted};
use super::libbpf::cause;
use super::load::Maps;
use super::pins::Pins;
use crate::kernel::data_plane::{Map, Program};
use crate::kernel::{KernelError, Sizes, abi};

/// Maps and programs that were pinned, by the names of their pins.
pub(super) struct Former {
    maps: BTreeMap<String, MapHandle>,
    programs: BTreeMap<String, ProgramHandle>,
    pub(super) parts: Parts,
}

/// What must be readable, since it is nowhere else: layouts that have never changed. Names are read to keep their numbers,
/// by which is counted, and written again with what has them.
const FROZEN: [(Map, usize, usize); 2] = [
    (Map::Names, size_of::<abi::NameKey>(), size_of::<abi::NameText>()),
    (Map::Saved, size_of::<abi::SavedKey>(), size_of::<abi::Saved>()),
];
/// What is carried over as far as it goes: fields are only ever added at the end.
const GROWING: [Map; 4] = [Map::TunnelState, Map::TunnelStats, Map::Actions, Map::Drops];

impl BpfDataPlane {
    pub(super) fn migrate_to_own_layout(&mut self, meta: &[u8], sizes: &Sizes) -> Result<(), KernelError> {
        let former = Former::open(&self.pins)?;
        former.check(&self.pins)?;
        let staging = self.pins.make_staging()?;
        let result = self
            .load_into(&staging, meta, &Maps::new(sizes))
            .and_then(|()| former.carry_over(&staging))
            .and_then(|()| self.pins.make())
            .and_then(|()| exchange(&self.pins, &staging, ["programs", "maps"]));
        self.forget_maps();
        self.replaced = None;
        // Whichever of them did not make it.
        let removed = staging.remove();
        result?;
        self.former = Some(former);
        removed
    }

    pub(super) fn migrate_back(&mut self, former: &Former) -> Result<(), KernelError> {
        // Those that undoing has attached.
        let users = self.users()?;
        let staging = self.pins.make_staging()?;
        let result = former.pin(&staging).and_then(|()| exchange(&self.pins, &staging, ["maps", "programs"]));
        self.forget_maps();
        staging.remove()?;
        result?;
        users.iter().try_for_each(|(user, program)| self.give(user, *program, Some(&former.parts)))?;
        self.forget_flows()
    }

    /// Gives a link the program that it had before the migration; false: it is not at hand.
    pub(super) fn give_back(&self, name: &str, program: Program) -> Result<bool, KernelError> {
        let Some(all) = &self.former else { return Ok(false) };
        if let Some(part) = all.parts.get(name).filter(|_| program != Program::Flood) {
            return self.update_dispatched(name, &Wanted::Former(part)).map(|()| true);
        }
        let Some(former) = all.program(program) else { return Ok(false) };
        let path = if program == Program::Flood { self.pins.flood_link(name) } else { self.pins.link(name) };
        let what = || format!("cannot give {} its old program back", path.display());
        let link = Link::open(&path).map_err(|error| KernelError::new(what(), cause(&error)))?;
        bpf_calls::update_link(&link, former).map_err(|error| KernelError::new(what(), error))?;
        Ok(true)
    }
}

impl Former {
    pub(super) fn map(&self, map: Map) -> Option<&MapHandle> {
        self.maps.get(map.name())
    }

    pub(super) fn program(&self, program: Program) -> Option<&ProgramHandle> {
        self.programs.get(program.name())
    }

    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        let cannot =
            |path: &PathBuf, error| KernelError::new(format!("cannot open {}", path.display()), error);
        let parts = dispatched::parts(pins);
        let mut former = Self { maps: BTreeMap::new(), programs: BTreeMap::new(), parts };
        for (name, path) in list(pins.root().join("maps"))? {
            let map = MapHandle::from_pinned_path(&path).map_err(|error| cannot(&path, cause(&error)))?;
            former.maps.insert(name, map);
        }
        for (name, path) in list(pins.root().join("programs"))? {
            let program =
                ProgramHandle::from_pinned_path(&path).map_err(|error| cannot(&path, cause(&error)))?;
            former.programs.insert(name, program);
        }
        Ok(former)
    }

    /// Whether what can't be made anew can be read.
    fn check(&self, pins: &Pins) -> Result<(), KernelError> {
        let readable = FROZEN.iter().all(|(map, key, value)| {
            self.maps
                .get(map.name())
                .is_some_and(|map| (map.key_size() as usize, map.value_size() as usize) == (*key, *value))
        });
        if readable {
            return Ok(());
        }
        let what =
            format!("the pins in {} can't be taken over: their layout is too old", pins.root().display());
        Err(KernelError::plain(what).hint("run `mptm down` of the version that made them first"))
    }

    fn carry_over(&self, to: &Pins) -> Result<(), KernelError> {
        for map in [Map::Saved].into_iter().chain(GROWING) {
            let Some(old) = self.maps.get(map.name()) else { continue };
            let failed = |error| KernelError::new(format!("cannot carry over the map {}", map.name()), error);
            let new =
                MapHandle::from_pinned_path(to.map(map.name())).map_err(|error| failed(cause(&error)))?;
            copy(map, old, &new).map_err(failed)?;
        }
        Ok(())
    }

    fn pin(&self, pins: &Pins) -> Result<(), KernelError> {
        let failed = |name: &str, error| KernelError::new(format!("cannot pin {name} again"), error);
        for (name, map) in &self.maps {
            bpf_calls::pin(map, &pins.map(name)).map_err(|error| failed(name, error))?;
        }
        for (name, program) in &self.programs {
            bpf_calls::pin(program, &pins.program(name)).map_err(|error| failed(name, error))?;
        }
        Ok(())
    }
}

/// Exchanges directories of pins, each in one step, in this order. Whoever is interrupted in between has maps of the old
/// layout, and so migrates again.
pub(super) fn exchange(one: &Pins, other: &Pins, directories: [&str; 2]) -> Result<(), KernelError> {
    let swap = |name: &str| {
        let (one, other) = (one.root().join(name), other.root().join(name));
        renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE).map_err(|error| {
            KernelError::new(format!("cannot exchange {} and {}", one.display(), other.display()), error)
        })
    };
    let [first, second] = directories;
    swap(first)?;
    swap(second).inspect_err(|_| {
        // The error that led here is the one to tell.
        let _ = swap(first);
    })
}

/// The pins in a directory, and their names.
fn list(directory: PathBuf) -> Result<Vec<(String, PathBuf)>, KernelError> {
    let entries = fs::read_dir(&directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries =
        entries.map_err(|error| KernelError::new(format!("cannot list {}", directory.display()), error))?;
    Ok(entries.iter().map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect())
}
