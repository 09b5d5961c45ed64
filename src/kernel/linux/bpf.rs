//! The real data plane: libbpf-rs over the pinned maps, programs and links.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use libbpf_rs::query::LinkTypeInfo;
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle, ProgramHandle};

use super::bpf_calls;
use super::cpus::cpus;
use super::generation::{Changing, Generation};
use super::libbpf::{NO_MEMORY, capture_libbpf, cause};
use super::load::Loading;
use super::making::Making;
use super::migrate::Former;
use super::pins::{Pins, RIGHTS};
use super::programs::Replaced;
use super::task::Task;
use crate::config::model::Mode;
use crate::kernel::data_plane::{Batch, Build, DataPlane, Each, Map, PinnedLink, Program, Via};
use crate::kernel::dispatcher::Dispatcher;
use crate::kernel::{KernelError, Sizes, Table};

/// The data plane below one pin directory.
pub struct BpfDataPlane {
    pub(super) pins: Pins,
    maps: Mutex<BTreeMap<Map, Arc<MapHandle>>>,
    /// What `prepare` has begun.
    pub(super) prepared: Option<(Sizes, Task<Result<Loading, KernelError>>)>,
    /// What `create` has begun, and `settle` ends.
    pub(super) making: Option<Making>,
    /// Opened by the first change.
    generation: OnceLock<Generation>,
    /// What `replace_programs` took out.
    pub(super) replaced: Option<Replaced>,
    /// What `migrate` or `resize` took out.
    pub(super) former: Option<Former>,
}

impl BpfDataPlane {
    /// Below `pin_dir`, whether there is one there yet or not.
    pub fn new(pin_dir: &Path) -> Self {
        capture_libbpf();
        Self {
            pins: Pins::new(pin_dir),
            maps: Mutex::default(),
            prepared: None,
            making: None,
            generation: OnceLock::new(),
            replaced: None,
            former: None,
        }
    }

    /// Removes what an interrupted creation or removal has left, and the bpffs if that was all that kept it.
    ///
    /// # Errors
    /// A pin can't be removed.
    pub fn clear_leftovers(&self) -> Result<(), KernelError> {
        self.pins.clear_leftovers()
    }

    pub(super) fn map(&self, map: Map) -> Result<Arc<MapHandle>, KernelError> {
        let mut maps = self.maps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(handle) = maps.get(&map) {
            return Ok(Arc::clone(handle));
        }
        let path = self.pins.map(map.name());
        let handle = MapHandle::from_pinned_path(&path).map_err(|error| {
            KernelError::new(format!("cannot open the map {}", path.display()), cause(&error))
        })?;
        let handle = Arc::new(handle);
        maps.insert(map, Arc::clone(&handle));
        Ok(handle)
    }

    /// To be held while a map is changed: what the programs keep of flows does not hold any more. Maps of older layouts
    /// have none.
    fn changing(&self, map: Map) -> Result<Option<Changing<'_>>, KernelError> {
        // No program runs yet.
        if self.making.is_some() {
            return Ok(None);
        }
        let path = self.pins.map("generation");
        if !Generation::covers(map) || (self.generation.get().is_none() && !path.exists()) {
            return Ok(None);
        }
        if self.generation.get().is_none() {
            let opened = MapHandle::from_pinned_path(&path)
                .map_err(|error| cause(&error))
                .and_then(|map| Generation::open(&map))
                .map_err(|error| KernelError::new(format!("cannot use the map {}", path.display()), error))?;
            // Whoever was faster has opened the same one.
            let _ = self.generation.set(opened);
        }
        Ok(self.generation.get().map(Generation::change))
    }

    /// Programs have been put in the place of others, which may have kept what is in other maps.
    pub(super) fn forget_flows(&self) -> Result<(), KernelError> {
        self.changing(Map::Meta).map(drop)
    }

    /// Maps that are not pinned yet.
    pub(super) fn use_maps(&mut self, maps: BTreeMap<Map, Arc<MapHandle>>) {
        self.forget_maps();
        self.maps = Mutex::new(maps);
    }

    /// Other maps are pinned now.
    pub(super) fn forget_maps(&mut self) {
        self.generation = OnceLock::new();
        self.maps.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    }
}

impl DataPlane for BpfDataPlane {
    fn pin_dir(&self) -> &Path {
        self.pins.root()
    }

    fn build(&self) -> Build {
        let mut build = [0; 32];
        for (byte, digits) in build.iter_mut().zip(env!("MPTM_BUILD").as_bytes().chunks(2)) {
            *byte = std::str::from_utf8(digits)
                .ok()
                .and_then(|text| u8::from_str_radix(text, 16).ok())
                .unwrap_or(0);
        }
        Build(build)
    }

    fn possible_cpus(&self) -> Result<u32, KernelError> {
        Ok(cpus("possible")?.last().map_or(1, |last| last + 1))
    }

    fn online_cpus(&self) -> Result<BTreeSet<u32>, KernelError> {
        cpus("online")
    }

    fn meta(&self) -> Result<Option<Vec<u8>>, KernelError> {
        let mut entries = match fs::read_dir(self.pins.root()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let denied = error.kind() == io::ErrorKind::PermissionDenied;
                let dot =
                    self.pins.root().file_name().is_some_and(|name| name.as_encoded_bytes().contains(&b'.'));
                let failed = KernelError::new(
                    format!("cannot look into the pin directory {}", self.pins.root().display()),
                    error,
                );
                return Err(failed.hint(match (denied, dot) {
                    (true, true) => "a bpffs takes no names with dots: choose another with --pin",
                    (true, false) => RIGHTS,
                    _ => "--pin chooses another",
                }));
            }
        };
        if !self.pins.exists() {
            if entries.next().is_none() {
                return Ok(None);
            }
            return Err(KernelError::plain(format!(
                "{} holds something else than mptm's pins",
                self.pins.root().display()
            ))
            .hint("choose another directory with --pin"));
        }
        self.get(Map::Meta, &0_u32.to_ne_bytes())
    }

    fn sizes(&self) -> Result<Sizes, KernelError> {
        let mut sizes = Sizes::default();
        for table in Table::ALL {
            let (map, _) = table.maps()[0];
            // One that an older mptm did not have is made by the next one that has.
            if self.pins.map(map.name()).exists() {
                sizes[table] = self.map(map)?.max_entries();
            }
        }
        Ok(sizes)
    }

    fn create(&mut self, meta: &[u8], sizes: &Sizes) -> Result<(), KernelError> {
        self.begin(meta, sizes)
    }

    fn settle(&mut self) -> Result<(), KernelError> {
        self.end()
    }

    fn resize(&mut self, meta: &[u8], sizes: &Sizes) -> Result<(), KernelError> {
        self.resize_maps(meta, sizes)
    }

    fn migrate(&mut self, meta: &[u8], sizes: &Sizes) -> Result<(), KernelError> {
        self.migrate_to_own_layout(meta, sizes)
    }

    fn restore_link(&mut self, name: &str, program: Program) -> Result<bool, KernelError> {
        self.give_back(name, program)
    }

    fn replace_programs(&mut self, meta: &[u8]) -> Result<(), KernelError> {
        self.load_and_replace(meta)
    }

    fn can_restore(&self) -> bool {
        self.has_replaced()
    }

    fn restore_programs(&mut self, meta: &[u8]) -> Result<(), KernelError> {
        self.put_back_programs(meta)
    }

    fn destroy(&mut self) -> Result<(), KernelError> {
        if self.making.take().is_some() {
            // Nothing of it is pinned yet: what is in its place by now is somebody else's.
            self.forget_maps();
            return self.clear_leftovers();
        }
        self.forget_maps();
        self.replaced = None;
        self.former = None;
        // Renamed first: whoever is interrupted in the middle leaves nothing that looks like a data plane.
        let staging = self.pins.staging();
        staging.remove()?;
        match fs::rename(self.pins.root(), staging.root()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(KernelError::new(
                    format!("cannot remove the pin directory {}", self.pins.root().display()),
                    error,
                ));
            }
            _ => {}
        }
        self.clear_leftovers()
    }

    fn each_entry(&self, map: Map, each: Each<'_>) -> Result<(), KernelError> {
        let handle = self.map(map)?;
        let (key_size, value_size) = (handle.key_size() as usize, handle.value_size() as usize);
        let mut result = Ok(());
        bpf_calls::each_entry(&*handle, key_size, value_size, |key, value| {
            if result.is_ok() {
                result = each(key, value);
            }
        })
        .map_err(|error| KernelError::new(format!("cannot read the map {}", map.name()), error))?;
        result
    }

    fn get(&self, map: Map, key: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        self.map(map)?
            .lookup(key, MapFlags::ANY)
            .map_err(|error| KernelError::new(format!("cannot read the map {}", map.name()), cause(&error)))
    }

    fn get_per_cpu(&self, map: Map, key: &[u8]) -> Result<Vec<Vec<u8>>, KernelError> {
        let values = self.map(map)?.lookup_percpu(key, MapFlags::ANY).map_err(|error| {
            KernelError::new(format!("cannot read the map {}", map.name()), cause(&error))
        })?;
        Ok(values.unwrap_or_default())
    }

    fn put(&mut self, map: Map, key: &[u8], value: &[u8]) -> Result<(), KernelError> {
        let handle = self.map(map)?;
        let _changing = self.changing(map)?;
        handle.update(key, value, MapFlags::ANY).map_err(|error| not_written(map, &handle, cause(&error)))
    }

    fn put_all(&mut self, map: Map, entries: &Batch) -> Result<(), (usize, KernelError)> {
        let handle = self.map(map).map_err(|error| (0, error))?;
        let _changing = self.changing(map).map_err(|error| (0, error))?;
        let (keys, values) = entries.parts();
        bpf_calls::update_batch(&*handle, keys, values, entries.len())
            .map_err(|(done, error)| (done, not_written(map, &handle, error)))
    }

    fn put_per_cpu(&mut self, map: Map, key: &[u8], value: &[u8]) -> Result<(), KernelError> {
        let write = || {
            let values = vec![value.to_vec(); libbpf_rs::num_possible_cpus()?];
            Ok::<_, libbpf_rs::Error>(values)
        };
        let values = write().map_err(|error| KernelError::new("cannot count the CPUs", cause(&error)))?;
        self.map(map)?.update_percpu(key, &values, MapFlags::ANY).map_err(|error| {
            KernelError::new(format!("cannot write to the map {}", map.name()), cause(&error))
        })
    }

    fn delete(&mut self, map: Map, key: &[u8]) -> Result<(), KernelError> {
        let handle = self.map(map)?;
        let _changing = self.changing(map)?;
        match handle.delete(key) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(KernelError::new(format!("cannot delete from the map {}", map.name()), cause(&error)))
            }
            _ => Ok(()),
        }
    }

    fn delete_all(&mut self, map: Map, entries: &Batch) -> Result<(), (usize, KernelError)> {
        let handle = self.map(map).map_err(|error| (0, error))?;
        let _changing = self.changing(map).map_err(|error| (0, error))?;
        bpf_calls::delete_batch(&*handle, entries.parts().0, entries.len()).map_err(|(done, error)| {
            (done, KernelError::new(format!("cannot delete from the map {}", map.name()), error))
        })
    }

    fn links(&self) -> Result<BTreeMap<String, PinnedLink>, KernelError> {
        let mut links = self.describe(self.pins.links(), |info| match info {
            LinkTypeInfo::Xdp(xdp) => Some(xdp.ifindex),
            _ => None,
        })?;
        links.extend(self.dispatched()?);
        Ok(links)
    }

    fn dispatcher(&self, ifindex: u32) -> Result<Option<Dispatcher>, KernelError> {
        self.describe_dispatcher(ifindex)
    }

    fn attach(
        &mut self,
        name: &str,
        program: Program,
        ifindex: u32,
        mode: Mode,
        via: Via,
    ) -> Result<(), KernelError> {
        self.attach_xdp(name, program, ifindex, mode, via)
    }

    fn update_link(&mut self, name: &str, program: Program) -> Result<(), KernelError> {
        self.update_xdp(name, program)
    }

    fn detach(&mut self, name: &str) -> Result<(), KernelError> {
        Self::remove_link(name, &self.pins.link(name))?;
        self.detach_dispatched(name)
    }

    fn flood_links(&self) -> Result<BTreeMap<String, PinnedLink>, KernelError> {
        self.describe(self.pins.flood_links(), |info| match info {
            LinkTypeInfo::Tcx(tcx) => Some(tcx.ifindex),
            _ => None,
        })
    }

    fn attach_flood(&mut self, name: &str, ifindex: u32) -> Result<(), KernelError> {
        self.attach_tcx(name, ifindex)
    }

    fn update_flood(&mut self, name: &str) -> Result<(), KernelError> {
        self.update(&self.pins.flood_link(name), Program::Flood)
    }

    fn detach_flood(&mut self, name: &str) -> Result<(), KernelError> {
        Self::remove_link(name, &self.pins.flood_link(name))
    }

    fn program_name(&self, id: u32) -> Result<String, KernelError> {
        let handle = ProgramHandle::from_prog_id(id)
            .map_err(|error| KernelError::new(format!("cannot look at BPF program {id}"), cause(&error)))?;
        Ok(handle.name().to_string_lossy().into_owned())
    }
}

/// Why a value could not be written.
fn not_written(map: Map, handle: &MapHandle, error: io::Error) -> KernelError {
    let code = error.raw_os_error();
    let error = KernelError::new(format!("cannot write to the map {}", map.name()), error);
    match code {
        Some(libc::E2BIG | libc::ENOSPC) => {
            error.hint(format!("it is full: it has room for {} entries", handle.max_entries()))
        }
        Some(libc::ENOMEM) => error.hint(NO_MEMORY),
        _ => error,
    }
}

pub(super) fn remove_file(path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::new(format!("cannot remove the pin {}", path.display()), error))
        }
        _ => Ok(()),
    }
}
