//! From what the file says to the state that it means on this machine: names become indexes, routes and neighbours
//! become outer headers, and what can't be is said, all at once.

mod flood;
mod interfaces;
mod partial;
mod patterns;
mod routes;
mod settings;
mod tunnels;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

pub use partial::{Partial, Subject, resolve_what_can_be};

use crate::config::model::{Config, Location, Name, Role};
use crate::kernel::abi::LAYOUT;
use crate::kernel::{DataPlane as Bpf, KernelError, Network, Sizes};
use crate::protocol::Protocol;
use crate::sizing;
use crate::state::{self, Endpoint, State, Tunnel};
use crate::store::Live;
use interfaces::Ends;

/// RFC 8200, 5: a link that carries IPv6 takes packets of this size. Linux turns IPv6 off where the MTU is less.
const IPV6_MIN_MTU: u32 = 1280;

/// What stands in the way of a file on this machine.
#[derive(Debug, thiserror::Error)]
pub struct ResolveError {
    /// Where the file asks for it.
    pub at: Option<Location>,
    /// The object and what is wrong with it.
    pub what: String,
    /// What the kernel said.
    #[source]
    pub source: Option<KernelError>,
    /// A way out.
    pub hint: Option<String>,
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// How to treat what is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbours {
    /// Ask the kernel to find missing neighbours, and wait for them a little.
    Solicit,
    /// Ask the kernel to find missing neighbours, and go on without them.
    Ask,
    /// Touch nothing.
    Look,
}

/// What a file means here.
#[derive(Debug)]
pub struct Resolved {
    /// What should be.
    pub state: State,
    /// What will not work as it stands.
    pub warnings: Vec<String>,
}

/// Collects errors and warnings, so that all are said at once.
#[derive(Debug, Default)]
struct Findings {
    errors: Vec<ResolveError>,
    warnings: Vec<String>,
}

impl Findings {
    fn error(&mut self, at: &Location, what: impl Into<String>, hint: impl Into<String>) {
        self.errors.push(ResolveError {
            at: Some(at.clone()),
            what: what.into(),
            source: None,
            hint: Some(hint.into()),
        });
    }

    fn kernel(&mut self, at: &Location, what: impl Into<String>, mut source: KernelError) {
        let hint = source.hint.take();
        self.errors.push(ResolveError {
            at: Some(at.clone()),
            what: what.into(),
            source: Some(source),
            hint,
        });
    }

    fn warn(&mut self, what: impl Into<String>) {
        self.warnings.push(what.into());
    }
}

/// Everything that the parts need.
struct Context<'a> {
    config: &'a Config,
    net: &'a dyn Network,
    bpf: &'a dyn Bpf,
    live: &'a Live,
    neighbours: Neighbours,
    /// Whether what can't be done for one object may be left out, for the sake of the others.
    partial: bool,
}

/// What `config` means on this machine, where `live` is what mptm has there now.
///
/// # Errors
/// Everything that the machine lacks: interfaces, namespaces, routes, room in an MTU; and foreign XDP programs.
pub fn resolve(
    config: &Config,
    bpf: &dyn Bpf,
    net: &dyn Network,
    live: &Live,
    neighbours: Neighbours,
) -> Result<Resolved, Vec<ResolveError>> {
    let (config, clashes) = spelled_out(config, net)?;
    let (state, mut findings, _) =
        all(&Context { config: &config, net, bpf, live, neighbours, partial: false });
    findings.errors.extend(clashes);
    if findings.errors.is_empty() {
        Ok(Resolved { state, warnings: findings.warnings })
    } else {
        Err(findings.errors)
    }
}

/// The file with the devices that its patterns match.
fn spelled_out<'a>(
    config: &'a Config,
    net: &dyn Network,
) -> Result<(Cow<'a, Config>, Vec<ResolveError>), Vec<ResolveError>> {
    patterns::expand(config, net).map_err(|source| {
        let hint = source.hint.clone();
        let what = "cannot look for the devices that patterns match".into();
        vec![ResolveError { at: None, what, source: Some(source), hint }]
    })
}

/// The state as far as it could be settled, all that was found, and the devices.
fn all(context: &Context<'_>) -> (State, Findings, Ends) {
    let Context { config, net, bpf, live, .. } = *context;
    let mut findings = Findings::default();
    let mut state = State::default();

    match net.netns_cookie(&None) {
        Ok(netns) => {
            state.data_plane =
                Some(state::DataPlane { build: bpf.build(), netns, layout: LAYOUT, sizes: Sizes::default() })
        }
        Err(source) => {
            findings.errors.push(ResolveError {
                at: None,
                what: "cannot tell this network namespace from others".into(),
                hint: source.hint.clone(),
                source: Some(source),
            });
        }
    }
    let ends = interfaces::resolve(context, &mut state, &mut findings);
    tunnels::resolve(context, &ends, &mut state, &mut findings);
    stack_cpus(context, &mut state, &mut findings);
    for segment in segments(config) {
        state.segments.insert(segment, BTreeMap::new());
    }
    routes::resolve(context, &ends, &mut state, &mut findings);
    endpoints(config, &mut state, &mut findings);
    flood::resolve(context, &mut state, &mut findings);
    settings::resolve(context, &ends, &mut state, &mut findings);
    let sizes = sizing::settle(&state, live);
    if let Some(data_plane) = &mut state.data_plane {
        data_plane.sizes = sizes;
    }
    // A file that asks for nothing is a node without a data plane; one of which nothing can be had right now is not.
    if config.is_empty() && !context.partial {
        state = State::default();
    }
    (state, findings, ends)
}

/// Where outer packets can be handed to the host's stack, if a tunnel wants that.
fn stack_cpus(context: &Context<'_>, state: &mut State, findings: &mut Findings) {
    let Some((name, _)) = state.tunnels.iter().find(|(_, tunnel)| !tunnel.redirect) else { return };
    match context.bpf.online_cpus() {
        Ok(cpus) => state.stack_cpus = cpus,
        Err(error) => {
            let at = context.config.tunnels[name].at.clone();
            findings.kernel(&at, format!("tunnel {name}: redirect = false needs a CPU"), error);
        }
    }
}

/// The segments that the file speaks of.
fn segments(config: &Config) -> impl Iterator<Item = Name> {
    let of_interfaces = config.interfaces.values().filter_map(|interface| match &interface.role {
        Role::Workload { segment, .. } => Some(segment.clone()),
        _ => None,
    });
    of_interfaces.chain(config.tunnels.values().map(|tunnel| tunnel.segment.clone()))
}

/// The id that received packets of a tunnel bear.
fn received_id(tunnel: &Tunnel) -> Option<u32> {
    let id = tunnel.local_id.or(tunnel.id)?;
    Some(tunnel.service_id.unwrap_or(0) << 12 | id)
}

/// Whose outer packets are whose, and on which ports they come.
fn endpoints(config: &Config, state: &mut State, findings: &mut Findings) {
    for (name, tunnel) in &state.tunnels {
        let Some(underlay) = state.interfaces.get(&tunnel.underlay) else { continue };
        let endpoint = Endpoint {
            protocol: tunnel.protocol,
            ifindex: underlay.ifindex,
            id: received_id(tunnel),
            any_id: false,
            remote: tunnel.remote,
            local: tunnel.local,
            port: tunnel.dst_port,
        };
        if tunnel.dst_port != 0 {
            state.ports.insert(tunnel.dst_port, tunnel.protocol);
        }
        // What else a far end sends in a protocol whose tunnels are told apart by an id that either end chooses.
        if tunnel.protocol.has_local_id() {
            let any = Endpoint {
                // The programs see the key before they see what is in the packet.
                protocol: if tunnel.protocol == Protocol::Gretap { Protocol::Gre } else { tunnel.protocol },
                id: None,
                any_id: true,
                ..endpoint
            };
            state.endpoints.entry(any).or_insert_with(|| name.clone());
        }
        if let Some(other) = state.endpoints.insert(endpoint, name.clone()) {
            findings.error(
                &config.tunnels[name].at,
                format!("tunnel {name} has the outer addresses and id of tunnel {other}"),
                "a received packet could belong to either: give one of them another id, local or remote",
            );
        }
    }
}
