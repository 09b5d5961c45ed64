//! Loading the programs, with new maps or with those that are pinned.

use std::mem::MaybeUninit;

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, OpenObject};

use super::bpf::BpfDataPlane;
use super::libbpf::{cause, explain_load_failure, take_libbpf_log};
use super::pins::Pins;
use crate::kernel::data_plane::{DataPlane, Map};
use crate::kernel::skeleton::{MptmSkel, MptmSkelBuilder};
use crate::kernel::{KernelError, Sizes};

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

impl BpfDataPlane {
    /// Loads the object.
    pub(super) fn load<'o>(
        &self,
        object: &'o mut MaybeUninit<OpenObject>,
        maps: &Maps<'_>,
    ) -> Result<MptmSkel<'o>, KernelError> {
        take_libbpf_log();
        let failed = |error: &libbpf_rs::Error| explain_load_failure(error, maps.sizes);
        let mut open = MptmSkelBuilder::default().open(object).map_err(|error| failed(&error))?;
        let cpus = self.possible_cpus()?;
        for mut map in open.open_object_mut().maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if (maps.is_kept)(&name) {
                let path = self.pins.map(&name);
                map.reuse_pinned_map(&path).map_err(|error| {
                    KernelError::new(format!("cannot use the map {} again", path.display()), cause(&error))
                })?;
                continue;
            }
            let size = match Map::named(&name) {
                Some(Map::Cpus) => Some(cpus),
                Some(own) => maps.sizes.and_then(|sizes| sizes.of(own)),
                None => None,
            };
            if let Some(size) = size {
                map.set_max_entries(size).map_err(|error| {
                    KernelError::new(format!("cannot size the map {name}"), cause(&error))
                })?;
            }
        }
        open.load().map_err(|error| failed(&error))
    }

    /// Makes maps and programs, pinned in a directory of their own.
    pub(super) fn load_into(&self, pins: &Pins, meta: &[u8], maps: &Maps<'_>) -> Result<(), KernelError> {
        let mut object = MaybeUninit::uninit();
        let mut skel = self.load(&mut object, maps)?;
        for mut map in skel.object_mut().maps_mut() {
            let path = pins.map(&map.name().to_string_lossy());
            map.pin(&path)
                .map_err(|error| KernelError::new(format!("cannot pin {}", path.display()), cause(&error)))?;
        }
        Self::pin_programs(&skel, pins, "")?;
        skel.maps
            .meta
            .update(&0_u32.to_ne_bytes(), meta, MapFlags::ANY)
            .map_err(|error| KernelError::new("cannot write the map meta", cause(&error)))
    }

    pub(super) fn pin_programs(skel: &MptmSkel<'_>, pins: &Pins, suffix: &str) -> Result<(), KernelError> {
        for mut program in skel.object().progs_mut() {
            let path = pins.program(&(program.name().to_string_lossy() + suffix));
            program
                .pin(&path)
                .map_err(|error| KernelError::new(format!("cannot pin {}", path.display()), cause(&error)))?;
        }
        Ok(())
    }
}
