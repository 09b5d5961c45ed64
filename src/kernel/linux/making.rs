//! A data plane on its way into being: its maps are there and can be filled, its programs are being loaded, and nothing is
//! pinned yet. Whoever is killed meanwhile leaves nothing but an empty directory, which the next one removes.

use std::fs;
use std::panic;
use std::sync::Arc;

use super::bpf::BpfDataPlane;
use super::load::{Loading, Maps};
use super::pins::Pins;
use super::task::Task;
use crate::kernel::data_plane::Map;
use crate::kernel::{KernelError, Sizes};

/// What is there of it.
pub(super) struct Making {
    /// Where it will be pinned, before that becomes the pin directory.
    staging: Pins,
    loading: Loading,
    /// What `meta` will hold.
    meta: Vec<u8>,
}

impl BpfDataPlane {
    /// Does already what `create` will begin with, if it is for maps of these sizes. An error comes out there.
    pub fn prepare(&mut self, sizes: &Sizes) {
        let (pins, sizes) = (self.pins.clone(), *sizes);
        let begin = move || pins.begin_load(&Maps::new(&sizes));
        self.prepared = Some((sizes, Task::begin("prepare", begin)));
    }

    /// Makes the maps, and begins to load the programs.
    pub(super) fn begin(&mut self, meta: &[u8], sizes: &Sizes) -> Result<(), KernelError> {
        // First: where nothing can be pinned, that is what is said.
        let staging = self.pins.make_staging()?;
        let prepared = self.prepared.take().filter(|(of, _)| of == sizes);
        let loading = match prepared.map(|(_, task)| task.wait()) {
            Some(begun) => begun.unwrap_or_else(|panicked| panic::resume_unwind(panicked)),
            None => self.pins.begin_load(&Maps::new(sizes)),
        };
        match loading {
            Ok(loading) => {
                let maps =
                    loading.maps.iter().filter_map(|(name, map)| Some((Map::named(name)?, Arc::clone(map))));
                self.use_maps(maps.collect());
                self.making = Some(Making { staging, loading, meta: meta.to_vec() });
                Ok(())
            }
            Err(error) => {
                self.pins.clear_leftovers()?;
                Err(error)
            }
        }
    }

    /// Waits for the programs, and pins it all; after an error, nothing of it is left.
    pub(super) fn end(&mut self) -> Result<(), KernelError> {
        let Some(Making { staging, loading, meta }) = self.making.take() else { return Ok(()) };
        let result = loading.pin(&staging, &meta).and_then(|()| self.take_place(&staging));
        if result.is_err() {
            self.forget_maps();
            self.pins.clear_leftovers()?;
        }
        result
    }

    fn take_place(&self, staging: &Pins) -> Result<(), KernelError> {
        let root = self.pins.root();
        if root.exists() {
            fs::remove_dir(root).map_err(|error| {
                KernelError::new(format!("cannot replace {}", root.display()), error)
                    .hint("if another mptm has just made it, apply again")
            })?;
        }
        fs::rename(staging.root(), root)
            .map_err(|error| KernelError::new(format!("cannot rename {}", staging.root().display()), error))
    }
}
