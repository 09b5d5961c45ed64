//! Loading the programs, with new maps or with those that are pinned. The maps come first, by an object of their own; then
//! the programs, by threads with an object each, and whoever waits for them can fill the maps meanwhile.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::panic;
use std::path::Path;
use std::sync::Arc;

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle, OpenObject};

use super::bpf::BpfDataPlane;
use super::bpf_calls;
use super::cpus::cpus;
use super::libbpf::{cause, explain_load_failure, take_libbpf_log};
use super::pins::Pins;
use super::task::Task;
use crate::kernel::data_plane::{Map, Program};
use crate::kernel::skeleton::{MptmSkel, MptmSkelBuilder};
use crate::kernel::{KernelError, Sizes};

/// Which programs are loaded by one thread. The verifier needs three times as long for mptm_decap as for all others.
const GROUPS: [&[Program]; 2] =
    [&[Program::Decap], &[Program::Encap, Program::Redirect, Program::Pass, Program::Flood]];

/// Which maps a load takes: new ones of these sizes, but for those that are kept.
pub(super) struct Maps<'a> {
    /// Of new maps. None: there are none.
    pub sizes: Option<&'a Sizes>,
    /// Whether the pinned map of this name is used again.
    pub is_kept: &'a dyn Fn(&str) -> bool,
}

impl<'a> Maps<'a> {
    /// New ones only.
    pub(super) fn new(sizes: &'a Sizes) -> Self {
        Self { sizes: Some(sizes), is_kept: &|_| false }
    }

    /// Those that are there.
    pub(super) fn pinned() -> Self {
        Self { sizes: None, is_kept: &|_| true }
    }
}

/// All maps of the object, by their names in it.
pub(super) type Handles = BTreeMap<String, Arc<MapHandle>>;
/// Programs that are loaded, and pinned nowhere yet.
pub(super) type Loaded = Vec<(Program, OwnedFd)>;

/// Programs that are being loaded, with the maps that they will use.
pub(super) struct Loading {
    pub(super) maps: Handles,
    parts: Vec<Task<Result<Loaded, KernelError>>>,
}

impl Pins {
    /// Opens the maps that are kept, and makes the others.
    pub(super) fn handles(&self, maps: &Maps<'_>) -> Result<Handles, KernelError> {
        take_libbpf_log();
        let failed = |error: &libbpf_rs::Error| explain_load_failure(error, maps.sizes);
        let mut handles = Handles::new();
        let mut object = MaybeUninit::uninit();
        let mut open = MptmSkelBuilder::default().open(&mut object).map_err(|error| failed(&error))?;
        for mut map in open.open_object_mut().maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if (maps.is_kept)(&name) {
                let path = self.map(&name);
                let cannot = |error: libbpf_rs::Error| {
                    KernelError::new(format!("cannot use the map {} again", path.display()), cause(&error))
                };
                let handle = MapHandle::from_pinned_path(&path).map_err(cannot)?;
                map.reuse_fd(handle.as_fd()).map_err(cannot)?;
                handles.insert(name, Arc::new(handle));
                continue;
            }
            let size = match Map::named(&name) {
                Some(Map::Cpus) => Some(cpus("possible")?.last().map_or(1, |last| last + 1)),
                Some(own) => maps.sizes.and_then(|sizes| sizes.of(own)),
                None => None,
            };
            if let Some(size) = size {
                map.set_max_entries(size).map_err(|error| {
                    KernelError::new(format!("cannot size the map {name}"), cause(&error))
                })?;
            }
        }
        if maps.sizes.is_none() {
            return Ok(handles);
        }
        open.open_object_mut().progs_mut().for_each(|mut program| program.set_autoload(false));
        let skel = open.load().map_err(|error| failed(&error))?;
        for map in skel.object().maps() {
            if let Entry::Vacant(entry) = handles.entry(map.name().to_string_lossy().into_owned()) {
                let handle = MapHandle::try_from(&map).map_err(|error| failed(&error))?;
                entry.insert(Arc::new(handle));
            }
        }
        Ok(handles)
    }

    /// Makes the maps, and begins to load the programs.
    pub(super) fn begin_load(&self, maps: &Maps<'_>) -> Result<Loading, KernelError> {
        let maps = self.handles(maps)?;
        let part = |group: &'static &[Program]| {
            let maps = maps.clone();
            Task::begin("load", move || load_group(group, &maps))
        };
        let parts = GROUPS.iter().map(part).collect();
        Ok(Loading { maps, parts })
    }
}

impl BpfDataPlane {
    /// Makes maps and programs, pinned in a directory of their own.
    pub(super) fn load_into(&self, pins: &Pins, meta: &[u8], maps: &Maps<'_>) -> Result<(), KernelError> {
        self.pins.begin_load(maps)?.pin(pins, meta)
    }
}

impl Loading {
    /// Waits for the programs.
    pub(super) fn wait(self) -> Result<Loaded, KernelError> {
        // All of them, before any error or panic goes on.
        let parts: Vec<_> = self.parts.into_iter().map(Task::wait).collect();
        let parts =
            parts.into_iter().map(|part| part.unwrap_or_else(|panicked| panic::resume_unwind(panicked)));
        let parts: Vec<Loaded> = parts.collect::<Result<_, _>>()?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// Waits for the programs, pins them and the maps, and writes `meta`.
    pub(super) fn pin(self, pins: &Pins, meta: &[u8]) -> Result<(), KernelError> {
        let maps = self.maps.clone();
        let programs = self.wait()?;
        for (name, map) in &maps {
            let path = pins.map(name);
            bpf_calls::pin(map, &path)
                .map_err(|error| KernelError::new(format!("cannot pin {}", path.display()), error))?;
        }
        pin_programs(&programs, pins, "")?;
        let cannot = |error| KernelError::new("cannot write the map meta", error);
        let map = maps.get(Map::Meta.name()).ok_or_else(|| cannot(std::io::ErrorKind::NotFound.into()))?;
        map.update(&0_u32.to_ne_bytes(), meta, MapFlags::ANY).map_err(|error| cannot(cause(&error)))
    }
}

/// Loads the object with these maps, as `prepare` leaves it.
pub(super) fn load<'o>(
    object: &'o mut MaybeUninit<OpenObject>,
    maps: &Handles,
    prepare: impl FnOnce(&mut OpenObject) -> libbpf_rs::Result<()>,
) -> Result<MptmSkel<'o>, KernelError> {
    take_libbpf_log();
    let failed = |error: &libbpf_rs::Error| explain_load_failure(error, None);
    let mut open = MptmSkelBuilder::default().open(object).map_err(|error| failed(&error))?;
    for mut map in open.open_object_mut().maps_mut() {
        if let Some(handle) = maps.get(&*map.name().to_string_lossy()) {
            map.reuse_fd(handle.as_fd()).map_err(|error| failed(&error))?;
        }
    }
    prepare(open.open_object_mut()).map_err(|error| failed(&error))?;
    open.load().map_err(|error| failed(&error))
}

/// Loads some programs, one after the other.
fn load_group(group: &[Program], maps: &Handles) -> Result<Loaded, KernelError> {
    let mut object = MaybeUninit::uninit();
    let skel = load(&mut object, maps, |open| {
        for mut program in open.progs_mut() {
            let is_wanted = group.iter().any(|wanted| program.name() == wanted.name());
            program.set_autoload(is_wanted);
        }
        Ok(())
    })?;
    let mut programs = Loaded::new();
    for program in group {
        let loaded = skel.object().progs().find(|loaded| loaded.name() == program.name());
        let fd = match &loaded {
            Some(loaded) => loaded.as_fd().try_clone_to_owned(),
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        programs
            .push((*program, fd.map_err(|error| KernelError::new("cannot load the BPF programs", error))?));
    }
    Ok(programs)
}

/// Pins programs below their names, with `suffix`.
pub(super) fn pin_programs(programs: &Loaded, pins: &Pins, suffix: &str) -> Result<(), KernelError> {
    programs
        .iter()
        .try_for_each(|(program, fd)| pin_program(fd, &pins.program(&format!("{}{suffix}", program.name()))))
}

fn pin_program(program: impl AsFd, path: &Path) -> Result<(), KernelError> {
    bpf_calls::pin(program, path)
        .map_err(|error| KernelError::new(format!("cannot pin {}", path.display()), error))
}
