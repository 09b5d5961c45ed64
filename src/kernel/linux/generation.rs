//! The map `generation`, by which the programs know whether what they keep of flows (bpf/flows.h) still holds: it is odd
//! while something is being changed, and another even number afterwards.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use libbpf_rs::MapHandle;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

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
    /// change ends it: meanwhile packets are looked up one by one.
    pub(super) fn change(&self) -> Changing<'_> {
        // SAFETY: the page is mapped, aligned, and outlives the borrow.
        let number = unsafe { AtomicU32::from_ptr(self.page.as_ptr().cast()) };
        number.fetch_or(1, Ordering::SeqCst);
        Changing(number)
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
