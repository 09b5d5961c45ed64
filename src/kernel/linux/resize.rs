//! Maps of other sizes in the place of those that are there. New ones are made and filled, the programs loaded with them,
//! the pins exchanged, and then the programs of the links, one by one. Until a link's turn comes its program goes on with
//! the old maps, which say the same. Maps that keep their sizes are used by both.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapHandle, OpenObject};
use zerocopy::{FromZeros, IntoBytes};

use super::attached::User;
use super::bpf::BpfDataPlane;
use super::bpf_calls;
use super::copy::{Counted, combine, copy, counted};
use super::libbpf::cause;
use super::load::Maps;
use super::migrate::{Former, exchange};
use super::pins::Pins;
use crate::kernel::data_plane::{Map, Program};
use crate::kernel::skeleton::carry::{CarrySkel, CarrySkelBuilder};
use crate::kernel::{KernelError, Sizes, abi};

/// How long a program may take, where the kernel does not tell when the last one has ended.
const PROGRAMS_END: Duration = Duration::from_millis(50);

impl BpfDataPlane {
    pub(super) fn resize_maps(&mut self, meta: &[u8], sizes: &Sizes) -> Result<(), KernelError> {
        let former = Former::open(&self.pins)?;
        let users = self.users()?;
        let staging = self.pins.make_staging()?;
        let result = self.resize_into(&staging, &former, &users, meta, sizes);
        self.forget_maps();
        let removed = staging.remove();
        result?;
        self.forget_flows()?;
        self.replaced = None;
        self.former = Some(former);
        removed
    }

    fn resize_into(
        &self,
        staging: &Pins,
        former: &Former,
        users: &[(User, Program)],
        meta: &[u8],
        sizes: &Sizes,
    ) -> Result<(), KernelError> {
        // `meta` says whose the programs are: it comes with them, not before.
        let mut new: BTreeSet<Map> = [Map::Meta].into();
        let other_size = |map: &Map| match (former.map(*map), sizes.of(*map)) {
            (Some(handle), Some(size)) => handle.max_entries() != size,
            (handle, _) => handle.is_none(),
        };
        new.extend(Map::ALL.into_iter().filter(|map| other_size(map)));
        let is_kept = |name: &str| Map::named(name).is_none_or(|map| !new.contains(&map));
        self.load_into(staging, meta, &Maps { sizes: Some(sizes), is_kept: &is_kept })?;
        new.remove(&Map::Meta);

        // What is counted comes last: what the old programs count from here on has to be brought over.
        let stats = new.take(&Map::TunnelStats);
        for map in &new {
            former.copy_to(staging, *map)?;
        }
        let mut object = MaybeUninit::uninit();
        let counters = stats.map(|_| Counters::copy(former, staging, &mut object)).transpose()?;
        exchange(&self.pins, staging, ["programs", "maps"])?;
        let swapped = users.iter().try_for_each(|(user, program)| self.give(user, *program, None));
        swapped.map_err(|error| {
            let back = users
                .iter()
                .try_for_each(|(user, program)| match user {
                    User::Link(path) => former.give_back(path, *program),
                    User::Part(_) => self.give(user, *program, Some(&former.parts)),
                })
                .and_then(|()| exchange(&self.pins, staging, ["maps", "programs"]));
            match back {
                Ok(()) => error,
                Err(worse) => error.hint(format!("and the old maps and programs are not all back: {worse}")),
            }
        })?;
        if let Some(counters) = counters {
            counters.catch_up();
        }
        Ok(())
    }
}

impl Former {
    fn copy_to(&self, pins: &Pins, map: Map) -> Result<(), KernelError> {
        let Some(old) = self.map(map) else { return Ok(()) };
        let failed =
            |error| KernelError::new(format!("cannot copy the map {} into another", map.name()), error);
        let new = MapHandle::from_pinned_path(pins.map(map.name())).map_err(|error| failed(cause(&error)))?;
        copy(map, old, &new).map_err(failed)
    }

    fn give_back(&self, link: &Path, program: Program) -> Result<(), KernelError> {
        let what = || format!("cannot give {} its old program back", link.display());
        let handle = self.program(program).ok_or_else(|| KernelError::plain(what()))?;
        let link = Link::open(link).map_err(|error| KernelError::new(what(), cause(&error)))?;
        bpf_calls::update_link(&link, handle).map_err(|error| KernelError::new(what(), error))
    }
}

/// The counters of tunnels, on their way from one map to another.
struct Counters<'o> {
    old: &'o MapHandle,
    at_first: Counted,
    program: CarrySkel<'o>,
}

impl<'o> Counters<'o> {
    /// Copies them, and makes ready what `catch_up` needs.
    fn copy(
        former: &'o Former,
        to: &Pins,
        object: &'o mut MaybeUninit<OpenObject>,
    ) -> Result<Self, KernelError> {
        let failed = |error| KernelError::new("cannot carry over what tunnels have counted", error);
        let old = former.map(Map::TunnelStats).ok_or_else(|| KernelError::plain("there are no counters"))?;
        let path = to.map(Map::TunnelStats.name());
        let load = || {
            let new = MapHandle::from_pinned_path(path)?;
            let mut open = CarrySkelBuilder::default().open(object)?;
            open.maps.tunnel_stats.reuse_fd(new.as_fd())?;
            Ok((new, open.load()?))
        };
        let (new, program) = load().map_err(|error: libbpf_rs::Error| failed(cause(&error)))?;
        // Whatever is counted between the two is counted in both: so it is not brought over again.
        copy(Map::TunnelStats, old, &new).map_err(failed)?;
        let at_first = counted(&new).map_err(failed)?;
        Ok(Self { old, at_first, program })
    }

    /// Adds what the old programs have counted since. What can't be added is lost: nothing that runs depends on it, and it
    /// is too late for going back.
    fn catch_up(&self) {
        wait_for_programs();
        let Ok(now) = counted(self.old) else { return };
        let zero = abi::TunnelStats::new_zeroed();
        for (id, (now, before)) in (0_u32..).zip(now.iter().zip(&self.at_first)) {
            let more = combine(now, before, u64::wrapping_sub);
            if more != zero {
                let mut record = [id, 0].as_bytes().to_vec();
                record.extend(more.as_bytes());
                let _ = bpf_calls::test_run(&self.program.progs.mptm_carry, &record, 0);
            }
        }
    }
}

/// Waits until no program runs any more that was there when this was called.
fn wait_for_programs() {
    // SAFETY: it takes no pointers.
    let waited = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if waited != 0 {
        // Such as with nohz_full.
        thread::sleep(PROGRAMS_END);
    }
}

/// uapi linux/membarrier.h. The kernel waits for an RCU grace period: programs run within one.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
