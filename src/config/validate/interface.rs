//! `[interface.NAME]`.

use std::net::IpAddr;

use super::{Validator, segment_of, sorted};
use crate::config::diagnostic::Diagnostic;
use crate::config::keys;
use crate::config::model::pattern::is_pattern;
use crate::config::model::{Addresses, Interface, Mode, PeerSpec, Role};
use crate::config::raw::{At, Field, RawAddresses, RawInterface, RawPeer, RoleName};
use crate::config::value::short;

impl Validator<'_, '_> {
    pub fn interface(&mut self, raw: &RawInterface) -> Option<Interface> {
        let name = &raw.name;
        if let Some(role) = raw.role.given() {
            for (key, span) in &raw.keys {
                if let Some(owner) = keys::role_of(key).filter(|owner| *owner != role.value) {
                    let title = format!("`{key}` does not go with role {}", role.value.name());
                    let label = format!("only role {} has it", owner.name());
                    let error = Diagnostic::at(*span, title, label);
                    self.report.error(error.also(role.span, format!("the role of {}", name.value)));
                }
            }
        }
        if let (Some(At { value: Mode::Offload, span }), Some(dispatcher)) =
            (raw.mode.given(), raw.dispatcher.given().filter(|dispatcher| dispatcher.value))
        {
            let title = "there are no dispatchers in network cards";
            let error = Diagnostic::at(*span, title, "write \"native\" or \"generic\", or leave it out");
            self.report.error(error.also(dispatcher.span, "the dispatcher"));
        }
        if is_pattern(&name.value) {
            self.pattern(raw);
        }
        let role = match (&raw.role, raw.role.value()) {
            (Field::Missing, _) => {
                let label = "add `role = \"ROLE\"`: underlay, workload, redirect or pass";
                self.missing("interface", name, "role", label)
            }
            (_, None) => None,
            (_, Some(RoleName::Underlay)) => Some(Role::Underlay),
            (_, Some(RoleName::Pass)) => Some(Role::Pass),
            (_, Some(RoleName::Workload)) => self.workload(raw),
            (_, Some(RoleName::Redirect)) => self.redirect(raw),
        };
        let peer = match &raw.peer {
            Field::Missing => Some(PeerSpec::Find),
            Field::Bad => None,
            Field::Given(At { value: RawPeer::None, .. }) => Some(PeerSpec::None),
            Field::Given(At { value: RawPeer::At { netns, name: peer }, .. }) => {
                if netns.is_none() && peer.value == name.value {
                    let title = format!("interface {} cannot be its own peer", name.value);
                    let label = "name the other end of the veth, and its `netns` if it is in another";
                    self.report.error(Diagnostic::at(peer.span, title, label));
                }
                let netns = netns.as_ref().map(|netns| netns.value.clone());
                Some(PeerSpec::At { netns, name: peer.value.clone() })
            }
        };
        Some(Interface {
            at: self.locate.line(name.span),
            role: role?,
            mode: raw.mode.value().copied().unwrap_or_default(),
            dispatcher: raw.dispatcher.value().copied().unwrap_or_default(),
            peer: peer?,
            manage: raw.manage.value().copied().unwrap_or_default(),
        })
    }

    /// What several devices can share.
    fn pattern(&mut self, raw: &RawInterface) {
        let name = short(&raw.name.value);
        if let Some(role) =
            raw.role.given().filter(|role| !matches!(role.value, RoleName::Workload | RoleName::Pass))
        {
            let title = format!("{name:?} is a pattern, and role {} is for one device", role.value.name());
            self.report.error(Diagnostic::at(role.span, title, "patterns are for roles workload and pass"));
        }
        if let Field::Given(At { value: RawAddresses::List(_), span }) = &raw.addresses {
            let title = format!("{name:?} is a pattern, and addresses are behind one device");
            self.report.error(Diagnostic::at(
                *span,
                title,
                "write `addresses = \"peer\"`: what the other end of each has",
            ));
        }
        if let Field::Given(mac) = &raw.mac {
            let title = format!("{name:?} is a pattern, and a MAC address is that of one device");
            self.report.error(Diagnostic::at(
                mac.span,
                title,
                "leave it out: that of each other end is taken",
            ));
        }
        if let Field::Given(At { value: RawPeer::At { .. }, span }) = &raw.peer {
            let title = format!("{name:?} is a pattern, and a peer is one device");
            self.report.error(Diagnostic::at(*span, title, "leave it out, and mptm finds each"));
        }
    }

    fn workload(&mut self, raw: &RawInterface) -> Option<Role> {
        let addresses = match &raw.addresses {
            Field::Missing => {
                let label =
                    "add `addresses = [\"ADDRESS\"]`, what lives behind it, or `addresses = \"peer\"`";
                self.missing("workload", &raw.name, "addresses", label)
            }
            Field::Bad => None,
            Field::Given(At { value: RawAddresses::Peer, .. }) => Some(Addresses::Peer),
            Field::Given(At { value: RawAddresses::List(list), .. }) => Some(Addresses::List(sorted(list))),
        };
        let mac = raw.mac.value().copied();
        let mut gateway: Vec<IpAddr> = raw.gateway.value().into_iter().flatten().map(|at| at.value).collect();
        gateway.sort_unstable();
        Some(Role::Workload { segment: segment_of(&raw.segment)?, addresses: addresses?, mac, gateway })
    }

    fn redirect(&mut self, raw: &RawInterface) -> Option<Role> {
        let to = match &raw.to {
            Field::Missing => {
                let label = "add `to = \"INTERFACE\"`, where everything goes out";
                return self.missing("interface", &raw.name, "to", label);
            }
            Field::Bad => return None,
            Field::Given(to) => to,
        };
        if to.value == raw.name.value {
            let title = format!("interface {} cannot redirect to itself", raw.name.value);
            self.report.error(Diagnostic::at(to.span, title, "name another interface of the file"));
        } else if !self.interfaces.contains_key(&to.value) {
            self.no_interface(to, "add it as one, with role pass if nothing else");
        }
        Some(Role::Redirect { to: to.value.clone() })
    }
}
