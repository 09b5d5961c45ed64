//! From what the files say to what they mean: keys that go together, defaults, and what refers to what.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use ipnet::IpNet;

use super::clash;
use super::defaults;
use super::diagnostic::{Diagnostic, Lines, Report, Span};
use super::keys;
use super::load::Source;
use super::model::{
    Addresses, Config, DEFAULT_SEGMENT, Df, FlowLabel, Interface, Location, Name, Payload, Pcp, PeerSpec, Role, Tos,
    Ttl, Tunnel,
};
use super::raw::{At, Field, Raw, RawAddresses, RawInterface, RawPeer, RawTunnel, RoleName};
use crate::protocol::Protocol;

/// All that the files say together. What it returns is not to be used if the report has errors.
pub(super) fn config(mut raw: Raw, sources: &[Source], report: &mut Report) -> Config {
    if let Some(shared) = &raw.defaults {
        raw.tunnels.iter_mut().for_each(|tunnel| defaults::apply(tunnel, shared));
    }
    once("interface", &mut raw.interfaces, |interface| &interface.name, report);
    once("tunnel", &mut raw.tunnels, |tunnel| &tunnel.name, report);
    let mut validator = Validator {
        locate: Locator::new(sources),
        underlays: Underlays::of(&raw.interfaces),
        interfaces: raw
            .interfaces
            .iter()
            .map(|interface| (interface.name.value.clone(), interface))
            .collect(),
        report,
    };
    let mut config = Config::default();
    for interface in &raw.interfaces {
        if let Some(valid) = validator.interface(interface) {
            config.interfaces.insert(interface.name.value.clone(), valid);
        }
    }
    let mut underlays: Vec<Option<Name>> = Vec::with_capacity(raw.tunnels.len());
    for tunnel in &raw.tunnels {
        let underlay = validator.underlay(tunnel);
        if let Some(valid) = validator.tunnel(tunnel, underlay.clone()) {
            config.tunnels.insert(tunnel.name.value.clone(), valid);
        }
        underlays.push(underlay);
    }
    if !report.is_incomplete() {
        clash::interfaces(&raw.interfaces, report);
        clash::tunnels(&raw.tunnels, &underlays, report);
        clash::segments(&raw.interfaces, &raw.tunnels, report);
    }
    config
}

/// Leaves the first of each name. TOML sees to it that others are in other files.
fn once<T>(kind: &str, all: &mut Vec<T>, name: impl Fn(&T) -> &At<Name>, report: &mut Report) {
    let mut first: HashMap<Name, Span> = HashMap::new();
    all.retain(|one| {
        let name = name(one);
        match first.entry(name.value.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(name.span);
                true
            }
            Entry::Occupied(entry) => {
                let error = Diagnostic::at(
                    name.span,
                    format!("{kind} {} is in two files", name.value),
                    "leave one of them",
                );
                report.error(error.also(*entry.get(), "first here"));
                false
            }
        }
    });
}

/// What tunnels that name no underlay may be given.
enum Underlays {
    /// The only one.
    One(Name),
    /// None, or these.
    Several(Vec<Name>),
    /// Some interface's role is not known.
    Unknown,
}

impl Underlays {
    fn of(interfaces: &[RawInterface]) -> Self {
        if interfaces.iter().any(|interface| interface.role.given().is_none()) {
            return Self::Unknown;
        }
        let underlay = |interface: &&RawInterface| interface.role.value() == Some(&RoleName::Underlay);
        let names: Vec<Name> =
            interfaces.iter().filter(underlay).map(|interface| interface.name.value.clone()).collect();
        match &names[..] {
            [name] => Self::One(name.clone()),
            _ => Self::Several(names),
        }
    }
}

struct Validator<'a, 'r> {
    locate: Locator<'a>,
    underlays: Underlays,
    interfaces: HashMap<Name, &'a RawInterface>,
    report: &'r mut Report,
}

impl Validator<'_, '_> {
    /// A key that must be there is not; the file may have it where it could not be read.
    fn missing<T>(&mut self, owner: &str, name: &At<Name>, key: &str, label: &str) -> Option<T> {
        if !self.report.is_incomplete() {
            let title = format!("{owner} {} has no `{key}`", name.value);
            self.report.error(Diagnostic::at(name.span, title, label));
        }
        None
    }

    fn interface(&mut self, raw: &RawInterface) -> Option<Interface> {
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
            peer: peer?,
            manage: raw.manage.value().copied().unwrap_or_default(),
        })
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
        Some(Role::Workload { segment: segment_of(&raw.segment)?, addresses: addresses?, mac, gateway: Vec::new() })
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

    /// A name that is no interface of the file.
    fn no_interface(&mut self, name: &At<Name>, otherwise: &str) {
        if self.report.is_incomplete() {
            return;
        }
        let nearest = keys::nearest(&name.value, self.interfaces.keys().map(|name| &**name));
        let label = nearest.map_or(otherwise.to_owned(), |nearest| format!("did you mean \"{nearest}\"?"));
        let title = format!("{:?} is no interface of the file", super::value::short(&name.value));
        self.report.error(Diagnostic::at(name.span, title, label));
    }

    /// The interface that a tunnel goes out of.
    fn underlay(&mut self, raw: &RawTunnel) -> Option<Name> {
        let given = match &raw.underlay {
            Field::Given(given) => given,
            Field::Bad => return None,
            Field::Missing => {
                let label = match &self.underlays {
                    Underlays::One(name) => return Some(name.clone()),
                    Underlays::Unknown => return None,
                    Underlays::Several(names) if names.is_empty() => {
                        "the file has no interface with `role = \"underlay\"`: add one".to_owned()
                    }
                    Underlays::Several(names) => {
                        let some: Vec<&str> = names.iter().take(4).map(|name| &**name).collect();
                        let more = if some.len() < names.len() { ", ..." } else { "" };
                        format!("add `underlay = \"NAME\"`, one of: {}{more}", some.join(", "))
                    }
                };
                return self.missing("tunnel", &raw.name, "underlay", &label);
            }
        };
        match self.interfaces.get(&given.value) {
            None => self.no_interface(given, "add it as one, with `role = \"underlay\"`"),
            Some(interface) => {
                if let Some(role) = interface.role.given().filter(|role| role.value != RoleName::Underlay) {
                    let title = format!("interface {} is not an underlay", given.value);
                    let error =
                        Diagnostic::at(given.span, title, "name an interface with `role = \"underlay\"`");
                    self.report.error(error.also(role.span, "its role"));
                }
            }
        }
        Some(given.value.clone())
    }

    fn tunnel(&mut self, raw: &RawTunnel, underlay: Option<Name>) -> Option<Tunnel> {
        let name = &raw.name;
        let protocol = match &raw.protocol {
            Field::Missing => {
                let label = format!("add `protocol = \"PROTOCOL\"`: {}", keys::protocols());
                self.missing("tunnel", name, "protocol", &label)
            }
            field => field.given(),
        };
        if let Some(protocol) = protocol {
            self.protocol_keys(raw, protocol);
        }
        let id = match &raw.id {
            Field::Missing => {
                let what = protocol.map_or("VNI or VLAN id", |protocol| protocol.value.id_range().0);
                self.missing("tunnel", name, "id", &format!("add `id = NUMBER`, the {what}"))
            }
            field => field.given().and_then(|id| self.id(raw, id, protocol?)),
        };
        let inner = match &raw.inner {
            Field::Missing => {
                let label = "add `inner = [\"ADDRESS\"]`, what lives behind the far end";
                self.missing("tunnel", name, "inner", label)
            }
            field => field.value(),
        };
        let remote = match (&raw.remote, protocol) {
            (Field::Missing, Some(protocol)) if protocol.value.has_outer_ip() => self.missing(
                "tunnel",
                name,
                "remote",
                "add `remote = \"ADDRESS\"`, the far end's outer address",
            ),
            (Field::Missing, _) => Some(None),
            (field, _) => field.value().map(|remote| Some(*remote)),
        };
        if let (Some(local), Some(remote)) = (raw.local.given(), raw.remote.given())
            && local.value == remote.value
        {
            let error = Diagnostic::at(
                local.span,
                "`local` and `remote` are one address",
                "write this end's address",
            );
            self.report.error(error.also(remote.span, "the far end's"));
        }
        let protocol = protocol?.value;
        Some(Tunnel {
            at: self.locate.line(name.span),
            protocol,
            id: Some(id?),
            local_id: None,
            service_id: None,
            payload: Payload::Ethernet,
            segment: segment_of(&raw.segment)?,
            underlay: underlay?,
            remote: remote?,
            local: raw.local.value().copied(),
            local_mac: raw.local_mac.value().copied(),
            remote_mac: raw.remote_mac.value().copied(),
            inner: sorted(inner?),
            from: raw.from.value().map(|from| sorted(from)).unwrap_or_default(),
            src_port: raw.src_port.value().copied().unwrap_or_default(),
            dst_port: raw.dst_port.value().copied().or(protocol.default_port()).unwrap_or(0),
            ttl: Ttl::default(),
            tos: Tos::default(),
            df: Df::default(),
            flow_label: FlowLabel::default(),
            udp_checksum: None,
            pcp: Pcp::default(),
            gbp: None,
            options: Vec::new(),
            checksum: false,
            sequence: false,
            variant: 0,
            qfi: None,
            uplink: false,
            mss_clamp: false,
            flood: false,
            inner_mac: raw.inner_mac.value().copied(),
            mtu: raw.mtu.value().copied(),
            redirect: raw.redirect.value().copied().unwrap_or(true),
            debug: raw.debug.value().copied().unwrap_or(false),
        })
    }

    /// Keys that the tunnel has written and its protocol does not have.
    fn protocol_keys(&mut self, raw: &RawTunnel, protocol: &At<Protocol>) {
        for (key, span) in &raw.keys {
            if !keys::has_key(protocol.value, key) {
                let with: Vec<&str> = Protocol::ALL
                    .into_iter()
                    .filter(|protocol| keys::has_key(*protocol, key))
                    .map(Protocol::name)
                    .collect();
                let title = format!("`{key}` does not go with protocol {}", protocol.value);
                let error = Diagnostic::at(*span, title, format!("only {} have it", with.join(" and ")));
                self.report.error(error.also(protocol.span, format!("the protocol of {}", raw.name.value)));
            }
        }
    }

    fn id(&mut self, raw: &RawTunnel, id: &At<i128>, protocol: &At<Protocol>) -> Option<u32> {
        let (what, min, max) = protocol.value.id_range();
        match u32::try_from(id.value) {
            Ok(value) if (min..=max).contains(&value) => Some(value),
            _ => {
                let title = if id.value > max.into() && max == 0xff_ffff {
                    format!("{what} does not fit in 24 bits")
                } else {
                    format!("{what} out of range")
                };
                let error = Diagnostic::at(id.span, title, format!("allowed: {min} to {max}"));
                let own = raw.keys.iter().any(|(key, _)| *key == "id");
                let label = format!("a {} tunnel, which takes this default", protocol.value);
                self.report.error(if own { error } else { error.also(raw.name.span, label) });
                None
            }
        }
    }
}

/// What a segment is called, unless that is not known.
pub(super) fn segment_of(segment: &Field<Name>) -> Option<Name> {
    match segment {
        Field::Missing => Some(DEFAULT_SEGMENT.into()),
        field => field.value().cloned(),
    }
}

fn sorted(list: &[At<IpNet>]) -> Vec<IpNet> {
    let mut list: Vec<IpNet> = list.iter().map(|at| at.value).collect();
    list.sort_unstable();
    list
}

/// From spans to lines.
struct Locator<'a>(Vec<(Arc<str>, Lines<'a>)>);

impl<'a> Locator<'a> {
    fn new(sources: &'a [Source]) -> Self {
        Self(sources.iter().map(|source| (source.name.clone(), Lines::new(source.body()))).collect())
    }

    fn line(&self, span: Span) -> Location {
        let (file, lines) = &self.0[span.file];
        Location { file: file.clone(), line: lines.line(span.start) + 1 }
    }
}
