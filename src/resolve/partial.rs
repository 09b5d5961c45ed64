//! What a file means on a machine that lacks some of it: who has to go on regardless leaves out what can't be, and
//! keeps the rest.

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, Neighbours, ResolveError, all, spelled_out};
use crate::config::model::{Config, Location, Name, Role};
use crate::kernel::{DataPlane as Bpf, Link, Network};
use crate::state::State;
use crate::store::Live;

/// What an error is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An interface of the file.
    Interface(Name),
    /// A tunnel of the file.
    Tunnel(Name),
}

/// What can be had of a file.
#[derive(Debug)]
pub struct Partial {
    /// What should be, without what was left out.
    pub state: State,
    /// What will not work as it stands.
    pub warnings: Vec<String>,
    /// Why something was left out.
    pub left_out: Vec<ResolveError>,
    /// The devices of the interfaces that are in.
    pub devices: BTreeMap<Name, Link>,
}

/// As `resolve`, but an interface or a tunnel that can't be is left out, with what hangs on it: an interface takes its
/// tunnels and the patch cables that lead to it along. It waits for nobody: neighbours that are missing are asked for. What
/// is `excluded` is left out from the start.
///
/// # Errors
/// What is wrong with no single object.
pub fn resolve_what_can_be(
    config: &Config,
    bpf: &dyn Bpf,
    net: &dyn Network,
    live: &Live,
    excluded: &BTreeSet<Subject>,
) -> Result<Partial, Vec<ResolveError>> {
    // A large file is copied only if something is left out of it.
    let (mut config, mut left_out) = spelled_out(config, net)?;
    excluded.iter().for_each(|subject| remove(config.to_mut(), subject));
    loop {
        let context = Context { config: &config, net, bpf, live, neighbours: Neighbours::Ask, partial: true };
        let (state, findings, ends) = all(&context);
        if findings.errors.is_empty() {
            let devices = ends.into_iter().map(|(name, end)| (name, end.link)).collect();
            return Ok(Partial { state, warnings: findings.warnings, left_out, devices });
        }
        let places: Vec<&Location> = findings.errors.iter().filter_map(|error| error.at.as_ref()).collect();
        let subjects = subjects(&config, &places);
        if subjects.is_empty() {
            return Err(findings.errors);
        }
        subjects.iter().for_each(|subject| remove(config.to_mut(), subject));
        left_out.extend(findings.errors.into_iter().filter(|error| error.at.is_some()));
    }
}

/// The tables at these places.
fn subjects(config: &Config, places: &[&Location]) -> Vec<Subject> {
    let interfaces = config.interfaces.iter().filter(|(_, interface)| places.contains(&&interface.at));
    let tunnels = config.tunnels.iter().filter(|(_, tunnel)| places.contains(&&tunnel.at));
    let interfaces = interfaces.map(|(name, _)| Subject::Interface(name.clone()));
    interfaces.chain(tunnels.map(|(name, _)| Subject::Tunnel(name.clone()))).collect()
}

fn remove(config: &mut Config, subject: &Subject) {
    match subject {
        Subject::Tunnel(name) => drop(config.tunnels.remove(name)),
        Subject::Interface(name) => {
            config.interfaces.remove(name);
            config.tunnels.retain(|_, tunnel| tunnel.underlay != *name);
            let sends_there = |role: &Role| matches!(role, Role::Redirect { to } if to == name);
            let cables: Vec<Name> = config
                .interfaces
                .iter()
                .filter(|(_, interface)| sends_there(&interface.role))
                .map(|(name, _)| name.clone())
                .collect();
            cables.into_iter().for_each(|cable| remove(config, &Subject::Interface(cable)));
        }
    }
}
