//! Going back to what was, when an apply is not confirmed. There is no list of what was done: as always, what is there is
//! read, and made into what is wanted; here, into what was there before. So it does not matter where an apply ended.

use crate::apply::{ApplyError, apply};
use crate::kernel::{Build, DataPlane as Bpf, KernelError, Network};
use crate::plan::{Plan, plan};
use crate::sizing;
use crate::state::State;
use crate::store;

/// Why it could not go back.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// The kernel refused a question.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel refused a change.
    #[error("{0}: {source}", source = .0.source)]
    Apply(Box<ApplyError>),
}

/// Makes the kernel what it was; the answer is what had to be done for it.
///
/// # Errors
/// What the kernel refuses.
pub fn go_back(before: &State, bpf: &mut dyn Bpf, net: &mut dyn Network) -> Result<Plan, RollbackError> {
    let mut live = store::read(bpf, net)?;
    let mut wanted = wanted(before, &live.state, bpf.build());
    fit(&mut wanted, &live, bpf);
    let steps = plan(&wanted, &live.state);
    apply(&steps, bpf, net, &mut live.ids).map_err(|error| RollbackError::Apply(Box::new(error)))?;
    Ok(steps)
}

/// Makes the maps as large as they have to be for it, from what they are now: the numbers that things have may be others than
/// they were. Earlier programs know only the maps that they were loaded with.
fn fit(wanted: &mut State, live: &store::Live, bpf: &dyn Bpf) {
    let Some(now) = live.state.data_plane else { return };
    let sizes = sizing::settle(wanted, live);
    let Some(data_plane) = &mut wanted.data_plane else { return };
    data_plane.sizes = sizes;
    let (final_sizes, build) = (data_plane.sizes, data_plane.build);
    let same_maps = final_sizes == now.sizes && sizing::between(wanted, &live.state) == now.sizes;
    if let Some(data_plane) = wanted.data_plane.as_mut().filter(|_| build != now.build)
        && !(same_maps && bpf.can_restore())
    {
        data_plane.build = bpf.build();
    }
}

/// What was, as far as it can be wanted again. `own` is the build that this mptm carries.
fn wanted(before: &State, now: &State, own: Build) -> State {
    let mut wanted = before.clone();
    if let (Some(data_plane), None) = (&mut wanted.data_plane, &now.data_plane) {
        // The programs that were there are gone; these do the same.
        data_plane.build = own;
    }
    // What somebody else had damaged is mended, since it can't be written as it was.
    wanted.tunnels.values_mut().for_each(|tunnel| tunnel.intact = true);
    for setting in wanted.settings.values_mut().filter(|setting| setting.current.is_some()) {
        setting.current = Some(setting.value);
    }
    // Nor can a program be attached that was none of ours, or to a device that is gone.
    let lost = |link: &crate::state::Attachment| link.program.is_none() || link.mode.is_none();
    let links = std::mem::take(&mut wanted.links);
    wanted.links = links
        .into_iter()
        .filter_map(|(name, link)| {
            let link = if lost(&link) { now.links.get(&name).copied() } else { Some(link) };
            Some((name, link?))
        })
        .collect();
    let links = std::mem::take(&mut wanted.flood_links);
    wanted.flood_links = links
        .into_iter()
        .filter_map(|(name, link)| {
            let lost = link.ifindex == 0 || !link.current;
            let link = if lost { now.flood_links.get(&name).copied() } else { Some(link) };
            Some((name, link?))
        })
        .collect();
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Program, Sizes};
    use crate::state::{Attachment, DataPlane};

    #[test]
    fn what_can_be_wanted_again() {
        let dead = Attachment { ifindex: 0, program: None, mode: None };
        let (old, own) = (Build([1; 32]), Build([2; 32]));
        let mut before = State {
            data_plane: Some(DataPlane { build: old, netns: 1, layout: 2, sizes: Sizes::default() }),
            ..State::default()
        };
        before.links.insert("gone".into(), dead);
        before.links.insert("mended".into(), dead);
        let mended = Attachment { ifindex: 3, program: Some(Program::Pass), mode: None };
        let mut now = before.clone();
        now.links.remove("gone");
        now.links.insert("mended".into(), mended);
        let back = wanted(&before, &now, own);
        assert_eq!(back.links, now.links);
        assert_eq!(back.data_plane.unwrap().build, old);
        let back = wanted(&before, &State::default(), own);
        assert!(back.links.is_empty());
        assert_eq!(back.data_plane.unwrap().build, own);
    }
}
