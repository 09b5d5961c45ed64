//! Interfaces and their other ends.

use std::collections::BTreeMap;

use super::{Context, Findings, foreign};
use crate::config::model::{self, Location, Mode, Name, NetnsRef, PeerSpec};
use crate::kernel::{Link, Netns, Via};
use crate::mac::MacAddr;
use crate::state::{Attachment, Interface, Peer, Role, State};

/// The devices of an interface of the file.
pub struct End {
    /// Itself.
    pub link: Link,
    /// The other end of a veth.
    pub peer: Option<(Netns, Link)>,
}

/// By interface.
pub type Ends = BTreeMap<Name, End>;

/// Finds every device, and fills in `interfaces` and `links`.
pub fn resolve(context: &Context<'_>, state: &mut State, findings: &mut Findings) -> Ends {
    let mut ends = Ends::new();
    for (name, interface) in &context.config.interfaces {
        let link = match context.net.link(&None, name) {
            Ok(Some(link)) => link,
            Ok(None) => {
                findings.error(
                    &interface.at,
                    format!("interface {name}: there is no such device"),
                    "see `ip link` for those that are there; -n NETNS chooses another network namespace",
                );
                continue;
            }
            Err(error) => {
                findings.kernel(&interface.at, format!("interface {name}"), error);
                continue;
            }
        };
        let is_free = foreign::check(context, name, interface, &link, findings);
        if !link.up {
            findings.warn(format!("interface {name} is down: nothing passes (ip link set {name} up)"));
        }
        let peer = find_peer(context, name, interface, &link, findings);
        let role = role(&interface.role);
        if is_free {
            let (program, mode) = (Some(role.program()), Some(interface.mode));
            let via = if interface.dispatcher { Via::Dispatcher } else { Via::Link };
            state.links.insert(name.clone(), Attachment { ifindex: link.ifindex, program, mode, via });
        }
        state.interfaces.insert(
            name.clone(),
            Interface {
                ifindex: link.ifindex,
                role,
                mac: link.mac.unwrap_or(MacAddr::ZERO),
                device: Some(link.ifindex),
                peer: peer
                    .as_ref()
                    .map(|(netns, link)| Peer { netns: netns.clone(), name: link.name.clone() }),
                manage: interface.manage,
                native: interface.mode == Mode::Native,
            },
        );
        ends.insert(name.clone(), End { link, peer });
    }
    ends
}

fn role(role: &model::Role) -> Role {
    match role {
        model::Role::Underlay => Role::Underlay,
        model::Role::Workload { segment, .. } => Role::Workload { segment: segment.clone() },
        model::Role::Redirect { to } => Role::Redirect { to: to.clone() },
        model::Role::Pass => Role::Pass,
    }
}

/// Whether a role wants to know its other end when the file does not say.
fn wants_peer(role: &model::Role) -> bool {
    matches!(role, model::Role::Workload { .. } | model::Role::Redirect { .. })
}

fn find_peer(
    context: &Context<'_>,
    name: &Name,
    interface: &model::Interface,
    link: &Link,
    findings: &mut Findings,
) -> Option<(Netns, Link)> {
    match &interface.peer {
        PeerSpec::None => None,
        PeerSpec::At { netns, name: peer } => {
            written_peer(context, name, &interface.at, link, netns, peer, findings)
        }
        PeerSpec::Find => {
            if !wants_peer(&interface.role) || link.kind.as_deref() != Some("veth") {
                return None;
            }
            if let Some(peer) = remembered_peer(context, name, link) {
                return Some(peer);
            }
            match context.net.find_peer(link) {
                Ok(Some(peer)) => Some(peer),
                Ok(None) => {
                    findings.warn(format!(
                        "the other end of {name} is in no network namespace that can be found: its offloads and MTU \
                         are as they are (say peer = {{ netns = ..., name = ... }}, or peer = false)"
                    ));
                    None
                }
                Err(error) => {
                    findings.kernel(
                        &interface.at,
                        format!("interface {name}: cannot look for its other end"),
                        error,
                    );
                    None
                }
            }
        }
    }
}

/// The peer that the kernel's record names, if it still is that: one name for one end, however many it has.
fn remembered_peer(context: &Context<'_>, name: &Name, link: &Link) -> Option<(Netns, Link)> {
    let peer = context.live.state.interfaces.get(name)?.peer.as_ref()?;
    let found = context.net.link(&peer.netns, &peer.name).ok()??;
    is_other_end(context, &peer.netns, &found, link).then(|| (peer.netns.clone(), found))
}

/// Whether two devices are the ends of one veth. Indexes alone can agree by chance: the MAC-less identity of a veth is
/// its peer's index in its peer's namespace, and that the reverse is true, too.
fn is_other_end(context: &Context<'_>, netns: &Netns, end: &Link, link: &Link) -> bool {
    let matches = end.peer_ifindex == Some(link.ifindex) && link.peer_ifindex == Some(end.ifindex);
    let same_netns =
        netns.is_none() || context.net.netns_cookie(netns).ok() == context.net.netns_cookie(&None).ok();
    matches && same_netns == link.peer_nsid.is_none()
}

fn written_peer(
    context: &Context<'_>,
    name: &Name,
    at: &Location,
    link: &Link,
    netns: &Option<NetnsRef>,
    peer: &Name,
    findings: &mut Findings,
) -> Option<(Netns, Link)> {
    let place =
        netns.as_ref().map_or_else(|| "this network namespace".to_owned(), |netns| format!("netns {netns}"));
    match context.net.link(netns, peer) {
        Ok(Some(found)) => {
            if link.kind.as_deref() == Some("veth") && !is_other_end(context, netns, &found, link) {
                findings.error(
                    at,
                    format!("interface {name}: {peer} in {place} is not its other end"),
                    "leave `peer` out, and mptm finds it; `peer = false` leaves it alone",
                );
                return None;
            }
            Some((netns.clone(), found))
        }
        Ok(None) => {
            findings.error(
                at,
                format!("interface {name}: its peer {peer} is not in {place}"),
                "leave `peer` out, and mptm finds it; `peer = false` leaves it alone",
            );
            None
        }
        Err(error) => {
            findings.kernel(at, format!("interface {name}: cannot look at its peer {peer}"), error);
            None
        }
    }
}
