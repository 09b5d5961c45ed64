//! Programs of XDP that are there already, and not mptm's: somebody needs them. They stay, and what can be done is said.

use super::{Context, Findings};
use crate::config::model;
use crate::kernel::dispatcher::{Dispatcher, Keeper, Member, SLOTS};
use crate::kernel::{AttachedXdp, Link, Program, Via};

/// What stands in the way, and a way out.
struct Obstacle {
    what: String,
    hint: String,
}

/// Whether the program of an interface can be attached to its device. What stands in the way is reported.
pub(super) fn check(
    context: &Context<'_>,
    name: &str,
    interface: &model::Interface,
    link: &Link,
    findings: &mut Findings,
) -> bool {
    let Some(xdp) = link.xdp else { return true };
    let own = context.live.programs.iter().find(|(_, id)| **id == xdp.program_id);
    let is_shared = own.is_some_and(|(own, _)| {
        context.live.state.links.get(own).is_some_and(|link| link.via == Via::Dispatcher)
    });
    if own.is_some() && (!is_shared || interface.dispatcher) {
        return true;
    }
    let dispatcher = match context.bpf.dispatcher(link.ifindex) {
        Ok(dispatcher) => dispatcher,
        Err(error) => {
            findings.kernel(&interface.at, format!("interface {name}"), error);
            return false;
        }
    };
    let obstacle = match dispatcher {
        Some(dispatcher) => in_dispatcher(name, interface, xdp, &dispatcher),
        None => Some(alone(context, name, interface, xdp)),
    };
    let Some(Obstacle { what, hint }) = obstacle else { return true };
    if context.partial {
        // What others need of the interface is the same, whoever's program it has.
        findings.warn(format!("{what}: mptm's is not attached until it is gone ({hint})"));
    } else {
        findings.error(&interface.at, what, hint);
    }
    false
}

fn is_mptm(name: &str) -> bool {
    Program::XDP.iter().any(|own| own.name() == name)
}

fn of_another_mptm(what: String) -> Obstacle {
    let hint = "name that one with --pin, or take it down first: `mptm --pin DIR down`";
    Obstacle { what, hint: hint.into() }
}

/// A program that has the device for itself.
fn alone(context: &Context<'_>, name: &str, interface: &model::Interface, xdp: AttachedXdp) -> Obstacle {
    let id = xdp.program_id;
    // A program that vanishes while we look has no name any more; its id says enough.
    let program = context.bpf.program_name(id).unwrap_or_else(|_| "?".into());
    if is_mptm(&program) {
        return of_another_mptm(format!(
            "interface {name} has {program}, id {id}, of an mptm with another pin directory"
        ));
    }
    let mode = xdp.mode.name();
    let mut hint = format!(
        "whose it is: `bpftool prog show id {id}`; to take it off: `ip link set {name} xdp off`, or the tool that \
         attached it"
    );
    if interface.dispatcher {
        hint +=
            "; it can share the interface only where libxdp loads it into a dispatcher (`xdp-loader load`)";
    }
    let what =
        format!("interface {name} has an XDP program that is not mptm's: {program}, id {id}, in {mode} mode");
    Obstacle { what, hint }
}

/// A dispatcher: None if it can be joined, as the file wants.
fn in_dispatcher(
    name: &str,
    interface: &model::Interface,
    xdp: AttachedXdp,
    dispatcher: &Dispatcher,
) -> Option<Obstacle> {
    let (id, mode) = (xdp.program_id, xdp.mode.name());
    let obstacle = |what: String, hint: String| Some(Obstacle { what, hint });
    let programs = list(dispatcher.members.iter());
    match dispatcher.keeper {
        Keeper::Libxdp => {}
        Keeper::Link { bpfman: true } => {
            return obstacle(
                format!(
                    "interface {name} has a dispatcher of bpfman, id {id}, in {mode} mode, with {programs}: none but \
                     bpfman can add to it"
                ),
                "take bpfman's programs off the interface: `bpfman list programs` shows them, `bpfman unload ID` \
                 unloads one; loaded with xdp-loader instead, they can share it with mptm (`dispatcher = true`)"
                    .into(),
            );
        }
        Keeper::Link { bpfman: false } => {
            return obstacle(
                format!(
                    "interface {name} has a dispatcher, id {id}, in {mode} mode, with {programs}, attached by a link: \
                     none but the owner of the link can add to it"
                ),
                "`bpftool link show` and `bpftool prog show` tell whose it is; take it off with the tool that attached \
                 it"
                .into(),
            );
        }
        Keeper::Unpinned => {
            return obstacle(
                format!(
                    "interface {name} has a dispatcher of libxdp, id {id}, in {mode} mode, whose pins are missing: its \
                     programs can't be taken over"
                ),
                format!(
                    "load them again: `ip link set {name} xdp off`, then xdp-loader; or LIBXDP_BPFFS names the bpffs \
                     that they are pinned in"
                ),
            );
        }
        Keeper::Bound => {
            return obstacle(
                format!(
                    "interface {name} has a dispatcher of libxdp, id {id}, in {mode} mode, with {programs}, which is \
                     bound to the device: mptm's programs are not"
                ),
                format!("unload them: `xdp-loader unload {name} --all`"),
            );
        }
        Keeper::Version(version) => {
            return obstacle(
                format!(
                    "interface {name} has a dispatcher of libxdp, id {id}, in {mode} mode, of version {version}, and \
                     mptm knows versions 2 and 3"
                ),
                format!(
                    "unload its programs (`xdp-loader unload {name} --all`), and load them with xdp-tools 1.3 or later"
                ),
            );
        }
    }
    let others: Vec<&Member> = dispatcher.others().collect();
    if let Some(other) = others.iter().find(|member| is_mptm(&member.name)) {
        return Some(of_another_mptm(format!(
            "interface {name} has a dispatcher with {}, id {}, of an mptm with another pin directory",
            other.name, other.id
        )));
    }
    if !interface.dispatcher {
        // mptm's own alone: it leaves, and the dispatcher with it.
        if others.is_empty() {
            return None;
        }
        return obstacle(
            format!(
                "interface {name} has a dispatcher of libxdp, id {id}, in {mode} mode, with {}",
                list(others.into_iter())
            ),
            format!(
                "`dispatcher = true` in [interface.{name}] lets mptm join them; or unload them: `xdp-loader unload \
                 {name} --all`"
            ),
        );
    }
    if xdp.mode != interface.mode {
        return obstacle(
            format!(
                "interface {name} has a dispatcher of libxdp, id {id}, in {mode} mode, with {programs}, and the file \
                 wants {} mode",
                interface.mode.name()
            ),
            format!(
                "write mode = \"{mode}\", or load the others in {} mode: `xdp-loader load -m MODE`",
                interface.mode.name()
            ),
        );
    }
    if dispatcher.members.len() >= SLOTS {
        return obstacle(
            format!("interface {name} has a dispatcher of libxdp, id {id}, that is full: {programs}"),
            format!("it has room for {SLOTS}: unload one: `xdp-loader unload {name} --id ID`"),
        );
    }
    None
}

/// `xdpfilt_alw_all (priority 10), other (priority 50)`.
fn list<'a>(members: impl Iterator<Item = &'a Member>) -> String {
    let members: Vec<String> = members.map(ToString::to_string).collect();
    if members.is_empty() { "no program".into() } else { members.join(", ") }
}
