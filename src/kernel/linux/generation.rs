//! The map `generation`, by which the programs know whether what they keep of flows (bpf/flows.h) still holds: it is odd
//! while something is being changed, and another even number afterwards.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use libbpf_rs::{MapCore, MapHandle};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::bpf::BpfDataPlane;
use super::libbpf::cause;
use crate::kernel::KernelError;
use crate::kernel::data_plane::Map;

/// The map's only element, mapped into memory: changes are many, and must not cost two more system calls each.
pub(super) struct Generation {
    page: NonNull<libc::c_void>,
}

// SAFETY: the page is mapped for as long as this lives, whichever thread has it, and is only used through atomics.
unsafe impl Send for Generation {}
// SAFETY: as above.
unsafe impl Sync for Generation {}

/// A change that is going on; it is over when this is dropped.
pub(super) struct Changing<'a>(&'a AtomicU32);

impl Generation {
    const SIZE: NonZeroUsize = NonZeroUsize::new(size_of::<u32>()).expect("a number has bytes");

    /// Of the map that is given.
    pub(super) fn open(map: &MapHandle) -> io::Result<Self> {
        // SAFETY: a new mapping, of a map that is an array with one element of this size; nobody has it but us.
        let page = unsafe {
            mmap(
                None,
                Self::SIZE,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                map.as_fd(),
                0,
            )
        };
        Ok(Self { page: page? })
    }

    /// Whether programs keep what they looked up in this map.
    pub(super) fn covers(map: Map) -> bool {
        match map {
            Map::Interfaces
            | Map::Slots
            | Map::Routes
            | Map::Prefixes
            | Map::Endpoints
            | Map::UdpPorts
            | Map::Active
            | Map::Tunnels
            | Map::Meta => true,
            Map::Devices
            | Map::Cpus
            | Map::Floods
            | Map::TunnelState
            | Map::TunnelStats
            | Map::Actions
            | Map::Drops
            | Map::Events
            | Map::Names
            | Map::Saved => false,
        }
    }

    /// From now on, nothing that is kept holds. Whoever is killed before the change is over leaves it at that, and the next
    /// change or pass ends it: meanwhile packets are looked up one by one.
    pub(super) fn change(&self) -> Changing<'_> {
        // SAFETY: the page is mapped, aligned, and outlives the borrow.
        let number = unsafe { AtomicU32::from_ptr(self.page.as_ptr().cast()) };
        number.fetch_or(1, Ordering::SeqCst);
        Changing(number)
    }
}

impl BpfDataPlane {
    /// Ends the change that somebody was killed in, if there is one. Only for whoever holds the lock: nobody else is
    /// changing anything then.
    ///
    /// # Errors
    /// The map can't be read or written.
    pub fn end_interrupted_change(&self) -> Result<(), KernelError> {
        let path = self.pins.map("generation");
        if !path.exists() {
            return Ok(());
        }
        // Read by a call of its own: where nothing is to be written, nothing needs to be allowed to.
        let now = MapHandle::from_pinned_path(&path)
            .and_then(|map| map.lookup(&0_u32.to_ne_bytes(), libbpf_rs::MapFlags::ANY))
            .map_err(|error| {
                KernelError::new(format!("cannot read the map {}", path.display()), cause(&error))
            })?;
        let is_odd = now.and_then(|value| Some(u32::from_ne_bytes(value.try_into().ok()?) % 2 == 1));
        if is_odd == Some(true) { self.forget_flows() } else { Ok(()) }
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let next = |now: u32| Some((now | 1).wrapping_add(1).max(2));
        // It never refuses.
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `open`, with this size, and nothing borrows it any more.
        let _ = unsafe { munmap(self.page, Self::SIZE.get()) };
    }
}
