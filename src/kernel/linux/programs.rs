//! The pinned programs: others in their place, and back.

use std::fs;

use libbpf_rs::{MapCore, ProgramHandle};

use super::attached::User;
use super::bpf::BpfDataPlane;
use super::bpf_calls;
use super::dispatched::{self, Parts};
use super::libbpf::cause;
use super::load::{Maps, pin_programs};
use crate::kernel::KernelError;
use crate::kernel::data_plane::{DataPlane, Map, Program};

/// Programs that were pinned, and the map `meta` that was pinned with them: other maps come with another one.
pub(super) struct Replaced {
    programs: Vec<(Program, ProgramHandle)>,
    parts: Parts,
    meta: u32,
}

impl BpfDataPlane {
    /// Keeps the programs that are pinned now, for `restore_programs`: another process is about to replace them. Where
    /// one is missing, there is nothing to go back to.
    pub fn hold_programs(&mut self) {
        self.replaced = self.replaceable().ok();
    }

    fn replaceable(&self) -> Result<Replaced, KernelError> {
        let programs = Program::ALL.iter().map(|program| Ok((*program, self.program(*program)?)));
        Ok(Replaced {
            programs: programs.collect::<Result<_, KernelError>>()?,
            parts: dispatched::parts(&self.pins),
            meta: self.meta_id()?,
        })
    }

    /// The id of the pinned map `meta`.
    fn meta_id(&self) -> Result<u32, KernelError> {
        let info = self.map(Map::Meta)?.info();
        Ok(info.map_err(|error| KernelError::new("cannot look at the map meta", cause(&error)))?.info.id)
    }

    pub(super) fn program(&self, program: Program) -> Result<ProgramHandle, KernelError> {
        let path = self.pins.program(program.name());
        ProgramHandle::from_pinned_path(&path).map_err(|error| {
            KernelError::new(format!("cannot open the program {}", path.display()), cause(&error))
        })
    }

    pub(super) fn load_and_replace(&mut self, meta: &[u8]) -> Result<(), KernelError> {
        self.drop_new_programs();
        let before = self.replaceable()?;
        let loaded = (|| {
            let programs = self.pins.begin_load(&Maps::pinned())?.wait()?;
            pin_programs(&programs, &self.pins, "-new")
        })();
        if let Err(error) = loaded {
            self.drop_new_programs();
            return Err(error);
        }
        self.replaced = Some(before);
        self.former = None;
        let users = self.users()?;
        let swapped =
            self.swap_programs(&users, None).and_then(|()| self.put(Map::Meta, &0_u32.to_ne_bytes(), meta));
        swapped.map_err(|error| match self.put_back(&users).and_then(|()| self.forget_flows()) {
            Ok(()) => error,
            Err(worse) => error.hint(format!("and the old programs are not all back: {worse}")),
        })
    }

    pub(super) fn has_replaced(&self) -> bool {
        let replaced = self.replaced.as_ref();
        replaced.is_some_and(|replaced| self.meta_id().is_ok_and(|meta| meta == replaced.meta))
    }

    pub(super) fn put_back_programs(&mut self, meta: &[u8]) -> Result<(), KernelError> {
        if let Some(former) = self.former.take() {
            return self.migrate_back(&former);
        }
        if !self.can_restore() {
            return Err(KernelError::plain("the programs of the earlier build are no longer at hand"));
        }
        let users = self.users()?;
        self.put_back(&users)?;
        self.put(Map::Meta, &0_u32.to_ne_bytes(), meta)
    }

    /// Renames the pins NAME-new to NAME, each replaced in one step, and then the programs of their users.
    fn swap_programs(
        &mut self,
        users: &[(User, Program)],
        former: Option<&Parts>,
    ) -> Result<(), KernelError> {
        for program in Program::ALL {
            let path = self.pins.program(program.name());
            let new = self.pins.program(&format!("{}-new", program.name()));
            fs::rename(&new, &path).map_err(|error| {
                KernelError::new(format!("cannot replace the pin {}", path.display()), error)
            })?;
        }
        users.iter().try_for_each(|(user, program)| self.give(user, *program, former))
    }

    /// Puts programs that were replaced back into pins and links.
    fn put_back(&mut self, users: &[(User, Program)]) -> Result<(), KernelError> {
        self.drop_new_programs();
        let replaced = self.replaced.take();
        let (programs, parts) =
            replaced.map(|replaced| (replaced.programs, replaced.parts)).unwrap_or_default();
        for (program, handle) in programs {
            let path = self.pins.program(&format!("{}-new", program.name()));
            bpf_calls::pin(&handle, &path)
                .map_err(|error| KernelError::new(format!("cannot pin {}", path.display()), error))?;
        }
        self.swap_programs(users, Some(&parts))
    }

    fn drop_new_programs(&self) {
        for program in Program::ALL {
            // Whoever calls this reports the error that led here; what can't be removed now goes with the next try.
            let _ = fs::remove_file(self.pins.program(&format!("{}-new", program.name())));
        }
    }
}
