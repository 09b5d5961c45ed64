//! The difference between two states, as steps in the order in which they are carried out. Pure.
//!
//! What is referred to comes before what refers to it, and what lets traffic in comes last; removal goes the other way
//! round. A new data plane is filled before any setting is changed. An identity that is in both states is changed in place; but a program that moves from one device to another
//! leaves the old one first. An MTU that rises lets bigger packets in: it waits until all tunnels are as they will be.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::config::model::Name;
use crate::kernel::Setting;
use crate::protocol::Protocol;
use crate::sizing;
use crate::state::{
    Attachment, DataPlane, Endpoint, Flood, FloodLink, Interface, Route, SavedSetting, SettingKey, State,
    Tunnel,
};

/// All steps; what is printed is what is carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// What happens to one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<T> {
    /// It is not there yet.
    Add(T),
    /// It is there, and different.
    Modify {
        /// As it is.
        before: T,
        /// As it will be.
        after: T,
    },
    /// It goes.
    Remove(T),
}

impl<T> Change<T> {
    /// As it was, if it was there.
    pub fn before(&self) -> Option<&T> {
        match self {
            Self::Add(_) => None,
            Self::Modify { before, .. } | Self::Remove(before) => Some(before),
        }
    }

    /// As it will be, if it will be there.
    pub fn after(&self) -> Option<&T> {
        match self {
            Self::Add(after) | Self::Modify { after, .. } => Some(after),
            Self::Remove(_) => None,
        }
    }

    /// What undoes it.
    #[must_use]
    pub fn inverse(self) -> Self {
        match self {
            Self::Add(value) => Self::Remove(value),
            Self::Modify { before, after } => Self::Modify { before: after, after: before },
            Self::Remove(value) => Self::Add(value),
        }
    }
}

/// One object and what happens to it. There may be a million steps, nearly all of them routes: what is larger is in a box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Maps and programs.
    DataPlane(Box<Change<DataPlane>>),
    /// The CPUs on which outer packets can be handed to the host's stack.
    StackCpus(Change<BTreeSet<u32>>),
    /// A setting of a device.
    Setting(SettingKey, Box<Change<SavedSetting>>),
    /// A segment's table, empty.
    Segment(Name, Change<()>),
    /// An interface's entries.
    Interface(Name, Box<Change<Interface>>),
    /// A UDP port's protocol.
    Port(u16, Change<Protocol>),
    /// A tunnel's header.
    Tunnel(Name, Box<Change<Tunnel>>),
    /// A route: segment and prefix.
    Route(Name, IpNet, Change<Route>),
    /// Whose outer packets are whose.
    Endpoint(Endpoint, Change<Name>),
    /// mptm_flood, by interface.
    FloodLink(Name, Change<FloodLink>),
    /// Where multicast and broadcast of a segment go.
    Flood(Name, Change<Flood>),
    /// An attached program of XDP, by interface.
    Link(Name, Change<Attachment>),
}

impl Step {
    /// Whether all that it does is to fill a data plane's maps, so that the programs need not be there yet.
    pub fn only_fills(&self) -> bool {
        match self {
            Self::StackCpus(_)
            | Self::Segment(..)
            | Self::Interface(..)
            | Self::Port(..)
            | Self::Tunnel(..)
            | Self::Route(..)
            | Self::Endpoint(..) => true,
            Self::DataPlane(_)
            | Self::Setting(..)
            | Self::FloodLink(..)
            | Self::Flood(..)
            | Self::Link(..) => false,
        }
    }

    /// What undoes it.
    #[must_use]
    pub fn inverse(self) -> Self {
        match self {
            Self::DataPlane(change) => Self::DataPlane(Box::new(change.inverse())),
            Self::StackCpus(change) => Self::StackCpus(change.inverse()),
            Self::Setting(key, change) => Self::Setting(key, Box::new(change.inverse())),
            Self::Segment(name, change) => Self::Segment(name, change.inverse()),
            Self::Interface(name, change) => Self::Interface(name, Box::new(change.inverse())),
            Self::Port(port, change) => Self::Port(port, change.inverse()),
            Self::Tunnel(name, change) => Self::Tunnel(name, Box::new(change.inverse())),
            Self::Route(segment, prefix, change) => Self::Route(segment, prefix, change.inverse()),
            Self::Endpoint(endpoint, change) => Self::Endpoint(endpoint, change.inverse()),
            Self::FloodLink(name, change) => Self::FloodLink(name, change.inverse()),
            Self::Flood(name, change) => Self::Flood(name, change.inverse()),
            Self::Link(name, change) => Self::Link(name, change.inverse()),
        }
    }
}

/// The steps that make `actual` into `desired`.
pub fn plan(desired: &State, actual: &State) -> Plan {
    // Exhaustive, so that a new field fails to compile until it has its place here.
    let State {
        data_plane,
        stack_cpus,
        settings,
        interfaces,
        ports,
        tunnels,
        segments,
        endpoints,
        floods,
        flood_links,
        links,
    } = desired;

    // With other maps, programs that know them: even where a link stays as it is.
    let migrates = match (data_plane, &actual.data_plane) {
        (Some(after), Some(before)) => after.layout != before.layout,
        _ => false,
    };
    let (mut live_links, mut live_flood_links) = (actual.links.clone(), actual.flood_links.clone());
    if migrates {
        for (_, link) in live_links.iter_mut().filter(|(name, link)| links.get(*name) == Some(*link)) {
            link.program = None;
        }
        let same = |(name, link): &(&Name, &mut FloodLink)| flood_links.get(*name) == Some(&**link);
        live_flood_links.iter_mut().filter(same).for_each(|(_, link)| link.current = false);
    }

    let mut before = Vec::new();
    // Of a new data plane, everything comes; and to grow such a list means to copy it.
    let is_new = data_plane.is_some() && actual.data_plane.is_none();
    let routes = || segments.values().map(BTreeMap::len).sum::<usize>();
    let mut forward = Vec::with_capacity(if is_new { tunnels.len() + routes() + endpoints.len() } else { 0 });
    let mut backward = Vec::new();
    let mut sort = |step: Step, removes: bool| if removes { backward.push(step) } else { forward.push(step) };

    match (data_plane, &actual.data_plane) {
        (Some(after), None) => sort(Step::DataPlane(Box::new(Change::Add(*after))), false),
        (None, Some(gone)) => sort(Step::DataPlane(Box::new(Change::Remove(*gone))), true),
        (Some(after), Some(before)) => {
            // Maps grow before anything comes, and shrink when all that goes is gone: last of all.
            let sizes = if migrates { after.sizes } else { sizing::between(desired, actual) };
            let between = DataPlane { sizes, ..*after };
            if between != *before {
                let grows = Change::Modify { before: *before, after: between };
                sort(Step::DataPlane(Box::new(grows)), false);
            }
            if *after != between {
                let shrinks = Change::Modify { before: between, after: *after };
                sort(Step::DataPlane(Box::new(shrinks)), true);
            }
        }
        (None, None) => {}
    }
    match (stack_cpus, &actual.stack_cpus) {
        (after, before) if after == before => {}
        (after, before) if before.is_empty() => sort(Step::StackCpus(Change::Add(after.clone())), false),
        (after, gone) if after.is_empty() => sort(Step::StackCpus(Change::Remove(gone.clone())), true),
        (after, before) => {
            let change = Change::Modify { before: before.clone(), after: after.clone() };
            sort(Step::StackCpus(change), false);
        }
    }
    // A new data plane is filled while its programs are being loaded; a machine that can't have them is not to be touched.
    let mut filled = Vec::new();
    diff_settings(settings, &actual.settings, |key, change, removes| {
        let late = removes || lets_more_in(key, &change);
        let step = Step::Setting(key.clone(), Box::new(change));
        if is_new && !late { filled.push(step) } else { sort(step, late) }
    });
    for name in segments.keys().filter(|name| !actual.segments.contains_key(*name)) {
        sort(Step::Segment(name.clone(), Change::Add(())), false);
    }
    for name in actual.segments.keys().filter(|name| !segments.contains_key(*name)) {
        sort(Step::Segment(name.clone(), Change::Remove(())), true);
    }
    diff(interfaces, &actual.interfaces, |name, change, removes| {
        sort(Step::Interface(name.clone(), Box::new(change)), removes);
    });
    diff(ports, &actual.ports, |port, change, removes| sort(Step::Port(*port, change), removes));
    diff(tunnels, &actual.tunnels, |name, change, removes| {
        sort(Step::Tunnel(name.clone(), Box::new(change)), removes)
    });
    let none = BTreeMap::new();
    let all_segments =
        segments.keys().chain(actual.segments.keys().filter(|name| !segments.contains_key(*name)));
    for segment in all_segments {
        diff(
            segments.get(segment).unwrap_or(&none),
            actual.segments.get(segment).unwrap_or(&none),
            |prefix, change, removes| sort(Step::Route(segment.clone(), *prefix, change), removes),
        );
    }
    diff(endpoints, &actual.endpoints, |endpoint, change, removes| {
        sort(Step::Endpoint(endpoint.clone(), change), removes);
    });
    filled.into_iter().for_each(|step| sort(step, false));
    // Nothing is flooded before the program that does it is there. As with the others, below, a device must lose it
    // before it gets it under another name.
    let mut unplugged = Vec::new();
    diff(flood_links, &live_flood_links, |name, change, removes| {
        let link = |change| Step::FloodLink(name.clone(), change);
        match change {
            Change::Modify { before: old, after: new } if old.ifindex != 0 && old.ifindex != new.ifindex => {
                unplugged.push(link(Change::Remove(old)));
                sort(link(Change::Add(new)), false);
            }
            change if removes => unplugged.push(link(change)),
            change => sort(link(change), false),
        }
    });
    diff(floods, &actual.floods, |name, change, removes| sort(Step::Flood(name.clone(), change), removes));
    diff(links, &live_links, |name, change, removes| {
        let link = |change| Step::Link(name.clone(), change);
        match change {
            // Devices that changed their names: each must lose its old program before another takes its index.
            Change::Modify { before: old, after: new } if old.ifindex != 0 && old.ifindex != new.ifindex => {
                before.push(link(Change::Remove(old)));
                sort(link(Change::Add(new)), false);
            }
            change if removes => before.push(link(change)),
            change => sort(link(change), false),
        }
    });

    let mut steps = forward;
    steps.splice(..0, before.into_iter().chain(unplugged));
    steps.extend(backward.into_iter().rev());
    Plan { steps }
}

fn diff<K: Ord, V: Clone + PartialEq>(
    desired: &BTreeMap<K, V>,
    actual: &BTreeMap<K, V>,
    mut emit: impl FnMut(&K, Change<V>, bool),
) {
    // Both are in order: one walk along both finds what is in one only.
    let mut gone = Vec::new();
    let mut live = actual.iter().peekable();
    for (key, after) in desired {
        while let Some(other) = live.next_if(|(other, _)| *other < key) {
            gone.push(other);
        }
        match live.next_if(|(other, _)| *other == key) {
            None => emit(key, Change::Add(after.clone()), false),
            Some((_, before)) if before != after => {
                emit(key, Change::Modify { before: before.clone(), after: after.clone() }, false);
            }
            Some(_) => {}
        }
    }
    for (key, gone) in gone.into_iter().chain(live) {
        emit(key, Change::Remove(gone.clone()), true);
    }
}

/// What a record of a setting is about, however its device and namespace are called.
fn subject<'a>(key: &'a SettingKey, setting: &SavedSetting) -> (u64, u32, &'a Setting) {
    (setting.netns_cookie, setting.ifindex, &key.setting)
}

/// Whether it is an MTU that rises.
fn lets_more_in(key: &SettingKey, change: &Change<SavedSetting>) -> bool {
    let Some(after) = change.after().filter(|_| key.setting == Setting::Mtu) else { return false };
    let is_same =
        |before: &&SavedSetting| (before.netns_cookie, before.ifindex) == (after.netns_cookie, after.ifindex);
    let now = change.before().filter(is_same).and_then(|before| before.current);
    after.value > now.unwrap_or(after.before)
}

/// As `diff`, but a device that is called otherwise now keeps its record, and what was before mptm with it.
fn diff_settings(
    desired: &BTreeMap<SettingKey, SavedSetting>,
    actual: &BTreeMap<SettingKey, SavedSetting>,
    mut emit: impl FnMut(&SettingKey, Change<SavedSetting>, bool),
) {
    let wanted: BTreeSet<_> = desired.iter().map(|(key, setting)| subject(key, setting)).collect();
    let mut rest: BTreeMap<_, _> =
        actual.iter().map(|(key, setting)| (subject(key, setting), (key, setting))).collect();
    for (key, after) in desired {
        let called_so = || {
            let (key, setting) = actual.get_key_value(key)?;
            rest.get(&subject(key, setting)).filter(|_| !wanted.contains(&subject(key, setting))).copied()
        };
        match rest.get(&subject(key, after)).copied().or_else(called_so) {
            None => emit(key, Change::Add(*after), false),
            Some((old_key, before)) => {
                rest.remove(&subject(old_key, before));
                if (old_key, before) != (key, after) {
                    emit(key, Change::Modify { before: *before, after: *after }, false);
                }
            }
        }
    }
    for (key, gone) in actual {
        if rest.get(&subject(key, gone)).is_some_and(|(old_key, _)| *old_key == key) {
            emit(key, Change::Remove(*gone), true);
        }
    }
}
