//! Where multicast and broadcast go, as the map `floods` has it, and the links of mptm_flood.

use zerocopy::IntoBytes;

use super::ids::Ids;
use crate::config::model::Name;
use crate::kernel::abi::{self, MAX_FLOOD_MEMBERS};
use crate::kernel::{DataPlane as Bpf, KernelError, Map, Program};
use crate::plan::Change;
use crate::state::{Flood, FloodLink, FloodMember};

fn encode(flood: &Flood, ids: &mut Ids) -> abi::Flood {
    let Flood { tunnels, workloads, sum } = flood;
    let mut value = abi::Flood {
        tunnels: tunnels.len() as u32,
        workloads: workloads.len() as u32,
        flags: if *sum { abi::FLOOD_SUM } else { 0 },
        ..Default::default()
    };
    let mut members: Vec<(u32, u32)> =
        tunnels.iter().map(|member| (ids.tunnel(&member.name), member.ifindex)).collect();
    members.extend(workloads.iter().map(|member| (ids.interface(&member.name), member.ifindex)));
    for (entry, (id, ifindex)) in value.members.iter_mut().zip(members) {
        *entry = abi::FloodMember { id, ifindex };
    }
    value
}

/// What a value of `floods` says. One that mptm would not write has a member that no file has.
pub fn decode(value: &abi::Flood, ids: &mut Ids) -> Flood {
    let count = |count: u32| (count as usize).min(MAX_FLOOD_MEMBERS);
    let (tunnels, workloads) = (count(value.tunnels), count(value.workloads));
    let all = &value.members;
    let mut flood = Flood {
        tunnels: all[..tunnels]
            .iter()
            .map(|member| FloodMember { name: ids.tunnels.named(member.id), ifindex: member.ifindex })
            .collect(),
        workloads: all[tunnels..count((tunnels + workloads) as u32)]
            .iter()
            .map(|member| FloodMember { name: ids.interfaces.named(member.id), ifindex: member.ifindex })
            .collect(),
        sum: value.flags & abi::FLOOD_SUM != 0,
    };
    if encode(&flood, ids) != *value {
        flood.tunnels.push(FloodMember { name: "#damaged".into(), ifindex: 0 });
    }
    flood
}

/// Carries out a change of a segment's entry.
pub fn flood(
    segment: &Name,
    change: &Change<Flood>,
    bpf: &mut dyn Bpf,
    ids: &mut Ids,
) -> Result<(), KernelError> {
    let table = ids.segment(segment)?;
    match change.after() {
        Some(after) => bpf.put(Map::Floods, table.as_bytes(), encode(after, ids).as_bytes()),
        None => bpf.delete(Map::Floods, table.as_bytes()),
    }
}

/// Carries out a change of a link.
pub fn link(name: &Name, change: &Change<FloodLink>, bpf: &mut dyn Bpf) -> Result<(), KernelError> {
    if let (Some(before), Some(after)) = (change.before(), change.after())
        && before.ifindex == after.ifindex
        && before.ifindex != 0
    {
        // Another program in the same place: no packet goes by in between.
        if after.current {
            return bpf.update_flood(name);
        }
        if bpf.restore_link(name, Program::Flood)? {
            return Ok(());
        }
    }
    if change.before().is_some() {
        bpf.detach_flood(name)?;
    }
    match change.after() {
        Some(FloodLink { ifindex: 0, .. }) | None => bpf.detach_flood(name),
        Some(FloodLink { ifindex, current: true }) => bpf.attach_flood(name, *ifindex),
        // Only as the undoing of a step.
        Some(FloodLink { current: false, .. }) => {
            Err(KernelError::plain(format!("{name} does not flood: the old program is no longer at hand"))
                .hint("run `mptm apply` when the cause is gone"))
        }
    }
}

/// Undoes a change of a link that failed, and may be half done.
pub fn revert_link(name: &Name, change: &Change<FloodLink>, bpf: &mut dyn Bpf) -> Result<(), KernelError> {
    if let Some(before) = change.before()
        && bpf
            .flood_links()?
            .get(&**name)
            .is_some_and(|now| now.ifindex == before.ifindex && now.program.is_some() == before.current)
    {
        return Ok(());
    }
    link(name, &change.clone().inverse(), bpf)
}
