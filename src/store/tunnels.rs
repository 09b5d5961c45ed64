//! Tunnels, one by one, and many new ones at once.

use zerocopy::{FromZeros, IntoBytes};

use super::codec::{decode, encode_tunnel};
use super::ids::Ids;
use super::write::{delete_name, put_name};
use crate::config::model::Name;
use crate::kernel::abi::{self, name_kind};
use crate::kernel::{Batch, DataPlane as Bpf, KernelError, Map};
use crate::plan::{Change, Step};
use crate::state::Tunnel;

pub(super) fn tunnel(
    name: &Name,
    change: &Change<Tunnel>,
    bpf: &mut dyn Bpf,
    ids: &mut Ids,
) -> Result<(), KernelError> {
    // It has a number already when it comes from older maps; its counters are its own then.
    let is_new = change.before().is_none() && ids.tunnels.number(name).is_none();
    let id = ids.tunnel(name);
    let Some(after) = change.after() else {
        delete_name(bpf, name_kind::NEXT_HOP, id)?;
        delete_name(bpf, name_kind::TUNNEL, id)?;
        bpf.put(Map::Active, id.as_bytes(), 0_u32.as_bytes())?;
        ids.tunnels.remove(name);
        return Ok(());
    };
    let value = encode_tunnel(after, ids.interface(&after.underlay), ids.segment(&after.segment)?);
    // Of what was there before under its number, nothing can be left.
    let is_clean = is_new && ids.untouched;
    let active = if is_clean { None } else { bpf.get(Map::Active, id.as_bytes())? };
    let active = active.map_or(Ok(0), |bytes| decode::<u32>(Map::Active, &bytes))?;
    if (is_new && !is_clean) || change.before().is_some_and(|before| after.sequence && !before.sequence) {
        // What it has of sequence numbers is another tunnel's, or of long ago.
        bpf.put(Map::TunnelState, id.as_bytes(), abi::TunnelState::new_zeroed().as_bytes())?;
    }
    if is_new && !is_clean {
        bpf.put_per_cpu(Map::TunnelStats, id.as_bytes(), abi::TunnelStats::new_zeroed().as_bytes())?;
    }
    match after.next_hop {
        Some(next_hop) => put_name(bpf, name_kind::NEXT_HOP, id, &next_hop.to_string())?,
        None if is_clean => {}
        None => delete_name(bpf, name_kind::NEXT_HOP, id)?,
    }
    // Written aside, then brought into force by one store.
    let other: u32 = if active == 1 { 2 } else { 1 };
    bpf.put(Map::Tunnels, (2 * id + other - 1).as_bytes(), value.as_bytes())?;
    bpf.put(Map::Active, id.as_bytes(), other.as_bytes())?;
    if change.before().is_none() {
        // Last: a number without a name is free, whatever an interruption left there.
        put_name(bpf, name_kind::TUNNEL, id, name)?;
    }
    Ok(())
}

/// Whether nothing of a tunnel is there yet, nor of any other that has had its number: the maps have just been made.
pub(super) fn is_first(name: &Name, change: &Change<Tunnel>, ids: &Ids) -> bool {
    ids.untouched && matches!(change, Change::Add(_)) && ids.tunnels.number(name).is_none()
}

/// Writes tunnels that are the first to have their numbers: as `tunnel` does, but map by map. An error comes with how many
/// tunnels have all that was written so far.
pub(super) fn put_first(
    steps: &[Step],
    bpf: &mut dyn Bpf,
    ids: &mut Ids,
) -> Result<(), (usize, KernelError)> {
    let [mut next_hops, mut tunnels, mut active, mut names] = [(); 4].map(|()| Batch::default());
    // Whose next hop is which entry.
    let mut owners = Vec::new();
    let text = |text: &str| abi::NameText { text: abi::text_field(text) };
    for (place, step) in steps.iter().enumerate() {
        let Step::Tunnel(name, change) = step else { continue };
        let Some(after) = change.after() else { continue };
        let id = ids.tunnel(name);
        let table = ids.segment(&after.segment).map_err(|error| (place, error))?;
        let value = encode_tunnel(after, ids.interface(&after.underlay), table);
        if let Some(next_hop) = after.next_hop {
            let key = abi::NameKey { kind: name_kind::NEXT_HOP, id };
            next_hops.push(key.as_bytes(), text(&next_hop.to_string()).as_bytes());
            owners.push(place);
        }
        tunnels.push((2 * id).as_bytes(), value.as_bytes());
        active.push(id.as_bytes(), 1_u32.as_bytes());
        names.push(abi::NameKey { kind: name_kind::TUNNEL, id }.as_bytes(), text(name).as_bytes());
    }
    let owner = |done: usize| owners.get(done).copied().unwrap_or(0);
    bpf.put_all(Map::Names, &next_hops).map_err(|(done, error)| (owner(done), error))?;
    bpf.put_all(Map::Tunnels, &tunnels)?;
    bpf.put_all(Map::Active, &active)?;
    // Last: a number without a name is free, whatever an interruption left there.
    bpf.put_all(Map::Names, &names)
}
