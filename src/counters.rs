//! What the programs have counted, summed over the CPUs.

use std::collections::BTreeMap;

use serde::Serialize;
use zerocopy::{FromBytes, IntoBytes};

use crate::config::model::Name;
use crate::kernel::{DataPlane, KernelError, Map, Program, abi};
use crate::reason::Reason;
use crate::store::Ids;

/// Packets and bytes of whole frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, counter: abi::Counter) {
        self.packets = self.packets.wrapping_add(counter.packets);
        self.bytes = self.bytes.wrapping_add(counter.bytes);
    }
}

/// Inner frames into a tunnel and out of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TunnelCount {
    /// Encapsulated.
    pub encap: Count,
    /// Decapsulated.
    pub decap: Count,
}

/// The XDP actions, by their numbers.
pub const ACTIONS: [&str; 5] = ["aborted", "drop", "pass", "tx", "redirect"];

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// By tunnel.
    pub tunnels: BTreeMap<Name, TunnelCount>,
    /// By program, then in the order of `ACTIONS`.
    pub actions: BTreeMap<Program, [Count; 5]>,
    /// By reason.
    pub drops: BTreeMap<Reason, Count>,
}

/// Reads all counters of a data plane.
///
/// # Errors
/// The kernel refuses, or the maps are not mptm's.
pub fn read(bpf: &dyn DataPlane, ids: &Ids) -> Result<Counters, KernelError> {
    let mut counters = Counters::default();
    for (name, id) in ids.tunnels.iter() {
        let total: &mut TunnelCount = counters.tunnels.entry(name.clone()).or_default();
        for stats in per_cpu::<abi::TunnelStats>(bpf, Map::TunnelStats, id)? {
            total.encap.add(stats.encap);
            total.decap.add(stats.decap);
        }
    }
    for program in Program::ALL {
        let rows = counters.actions.entry(program).or_default();
        for (row, action) in rows.iter_mut().zip(0..) {
            let index = program as u32 * abi::ACTIONS + action;
            per_cpu(bpf, Map::Actions, index)?.into_iter().for_each(|counter| row.add(counter));
        }
    }
    for reason in Reason::ALL {
        let total: &mut Count = counters.drops.entry(*reason).or_default();
        per_cpu(bpf, Map::Drops, *reason as u32)?.into_iter().for_each(|counter| total.add(counter));
    }
    Ok(counters)
}

fn per_cpu<T: FromBytes>(bpf: &dyn DataPlane, map: Map, index: u32) -> Result<Vec<T>, KernelError> {
    bpf.get_per_cpu(map, index.as_bytes())?
        .iter()
        .map(|bytes| {
            T::read_from_bytes(bytes).map_err(|_| {
                KernelError::plain(format!("the map {} has entries of another size", map.name()))
            })
        })
        .collect()
}
