//! From one map to another of the same kind, whose size or whose values may be larger.

use std::io;

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::bpf_calls::{self, BATCH};
use super::libbpf::cause;
use crate::kernel::abi;
use crate::kernel::data_plane::{Batch, Map};

/// What the old programs may send of a tunnel's sequence numbers until the new ones take over.
const SENT_MEANWHILE: u32 = 1 << 20;

/// Copies all that is in use; what a value has grown by is zero.
pub fn copy(map: Map, old: &MapHandle, new: &MapHandle) -> io::Result<()> {
    match old.map_type() {
        MapType::PercpuArray => copy_per_cpu(old, new),
        MapType::Devmap => copy_devices(old, new),
        kind => copy_entries(map, kind == MapType::Array, old, new),
    }
}

fn copy_entries(map: Map, is_array: bool, old: &MapHandle, new: &MapHandle) -> io::Result<()> {
    let size = new.value_size() as usize;
    let mut batch = Batch::default();
    let flush = |batch: &Batch| {
        let (keys, values) = batch.parts();
        bpf_calls::update_batch(new, keys, values, batch.len()).map_err(|(_, error)| error)
    };
    let mut value = Vec::new();
    let (key_size, old_size) = (old.key_size() as usize, old.value_size() as usize);
    let mut result = Ok(());
    bpf_calls::each_entry(old, key_size, old_size, |key, bytes| {
        if result.is_err() || is_array && bytes.iter().all(|byte| *byte == 0) {
            return;
        }
        if is_array && index(key) >= new.max_entries() {
            // A number that is in use. Other arrays may have something left of one that was.
            if map == Map::Active {
                result = Err(io::Error::from_raw_os_error(libc::E2BIG));
            }
            return;
        }
        value.clear();
        value.extend_from_slice(bytes);
        value.resize(size, 0);
        if map == Map::TunnelState
            && let Ok((state, _)) = abi::TunnelState::mut_from_prefix(&mut value)
        {
            state.sent = state.sent.wrapping_add(SENT_MEANWHILE);
        }
        batch.push(key, &value);
        if batch.len() == BATCH {
            result = flush(&batch);
            batch.clear();
        }
    })?;
    result.and_then(|()| flush(&batch))
}

fn copy_per_cpu(old: &MapHandle, new: &MapHandle) -> io::Result<()> {
    let size = new.value_size() as usize;
    for index in 0..old.max_entries().min(new.max_entries()) {
        let key = index.to_ne_bytes();
        let values = old.lookup_percpu(&key, MapFlags::ANY).map_err(|error| cause(&error))?;
        let Some(mut values) = values.filter(|values| values.iter().flatten().any(|byte| *byte != 0)) else {
            continue;
        };
        values.iter_mut().for_each(|value| value.resize(size, 0));
        new.update_percpu(&key, &values, MapFlags::ANY).map_err(|error| cause(&error))?;
    }
    Ok(())
}

/// A devmap has no batches. What Linux 5.8 appended to its values is not mptm's.
fn copy_devices(old: &MapHandle, new: &MapHandle) -> io::Result<()> {
    for index in 0..old.max_entries() {
        let key = index.to_ne_bytes();
        let value = old.lookup(&key, MapFlags::ANY).map_err(|error| cause(&error))?;
        let Some(device) = value.and_then(|value| value.first_chunk::<4>().copied()) else { continue };
        if device == [0; 4] {
            continue;
        }
        new.update(&key, &device, MapFlags::ANY).map_err(|error| cause(&error))?;
    }
    Ok(())
}

fn index(key: &[u8]) -> u32 {
    key.first_chunk().map_or(0, |first| u32::from_ne_bytes(*first))
}

/// What the tunnels have counted, by their ids.
pub type Counted = Vec<abi::TunnelStats>;

/// Sums up the CPUs.
pub fn counted(stats: &MapHandle) -> io::Result<Counted> {
    (0..stats.max_entries())
        .map(|id| {
            let values = stats.lookup_percpu(id.as_bytes(), MapFlags::ANY).map_err(|error| cause(&error))?;
            let mut sum = abi::TunnelStats::new_zeroed();
            for value in values.unwrap_or_default() {
                let value = abi::TunnelStats::read_from_bytes(&value)
                    .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                sum = combine(&sum, &value, u64::wrapping_add);
            }
            Ok(sum)
        })
        .collect()
}

/// Field by field.
pub fn combine(
    one: &abi::TunnelStats,
    other: &abi::TunnelStats,
    each: fn(u64, u64) -> u64,
) -> abi::TunnelStats {
    let counter = |one: abi::Counter, other: abi::Counter| abi::Counter {
        packets: each(one.packets, other.packets),
        bytes: each(one.bytes, other.bytes),
    };
    abi::TunnelStats { encap: counter(one.encap, other.encap), decap: counter(one.decap, other.decap) }
}
