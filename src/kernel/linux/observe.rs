//! Looking at the data plane at work: what it does with a packet, what it tells of packets, what memory it takes.

use std::cell::Cell;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use libbpf_rs::{ErrorKind, MapHandle, RingBufferBuilder};
use zerocopy::FromBytes;

use super::bpf::BpfDataPlane;
use super::bpf_calls::{self, TestRun};
use super::libbpf::cause;
use crate::kernel::data_plane::{Map, Program};
use crate::kernel::{KernelError, abi};

/// How long one wait for packets may take.
const EVENT_WAIT: Duration = Duration::from_millis(200);

impl BpfDataPlane {
    /// Runs a pinned program once over `frame`, as if it had come in by device `ifindex`, and lets the counters move.
    ///
    /// # Errors
    /// There is no data plane, no such device in the caller's network namespace, or the kernel refuses the frame.
    pub fn test_run(&self, program: Program, frame: &[u8], ifindex: u32) -> Result<TestRun, KernelError> {
        bpf_calls::test_run(self.program(program)?, frame, ifindex)
            .map_err(|error| KernelError::new(format!("cannot run {} over a packet", program.name()), error))
    }

    /// Hands over the packets of tunnels with `debug = true` as they happen, until `each` returns false. A packet is
    /// handed to one caller only, however many there are.
    ///
    /// # Errors
    /// There is no data plane, or the kernel refuses.
    pub fn watch_events(&self, mut each: impl FnMut(&abi::Event) -> bool) -> Result<(), KernelError> {
        let map = self.map(Map::Events)?;
        let go_on = Cell::new(true);
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&*map, |bytes| {
                if let Ok((event, _)) = abi::Event::read_from_prefix(bytes) {
                    go_on.set(go_on.get() && each(&event));
                }
                0
            })
            .map_err(|error| KernelError::new("cannot read the map events", cause(&error)))?;
        let ring =
            builder.build().map_err(|error| KernelError::new("cannot read the map events", cause(&error)))?;
        while go_on.get() {
            match ring.poll(EVENT_WAIT) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    return Err(KernelError::new("cannot wait for packets", cause(&error)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Bytes of kernel memory that the pinned maps take.
    ///
    /// # Errors
    /// A map can't be looked at.
    pub fn memory(&self) -> Result<u64, KernelError> {
        let cannot = |error| KernelError::new("cannot tell what memory the maps take", error);
        let mut total = 0;
        for path in self.pins.maps().map_err(cannot)? {
            let map = MapHandle::from_pinned_path(path).map_err(|error| cannot(cause(&error)))?;
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd()));
            let info = info.map_err(cannot)?;
            let bytes = info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
            total += bytes.unwrap_or(0_u64);
        }
        Ok(total)
    }
}
