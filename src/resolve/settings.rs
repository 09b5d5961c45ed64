//! The settings of devices that forwarding needs: what DESIGN calls managed ends.

use std::collections::{BTreeMap, BTreeSet};

use super::interfaces::{End, Ends};
use super::{Context, Findings, IPV6_MIN_MTU};
use crate::config::model::{Interface, Name, Role};
use crate::kernel::{KernelError, Link, Netns, Setting};
use crate::protocol::Protocol;
use crate::state::{self, SavedSetting, SettingKey, State, Tunnel};

/// GRO gives the peer a NAPI context, without which redirected frames are lost.
const GRO: &str = "rx-gro";
/// Checksums left to hardware that XDP redirects around.
const CHECKSUM: &str = "tx-checksum-";
/// VLAN tags left to hardware: beside the packet, where XDP cannot see them.
const TX_VLAN: [&str; 2] = ["tx-vlan-hw-insert", "tx-vlan-stag-hw-insert"];
/// Takes C-tags and S-tags off before XDP can see them.
const RX_VLAN: [&str; 2] = ["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];
/// What lets the host route outer packets that carry its own address: forwarding, and no filter by source.
const STACK_SYSCTLS: [(&str, u64); 3] = [("forwarding", 1), ("accept_local", 1), ("rp_filter", 0)];

/// Fills in `settings`.
pub fn resolve(context: &Context<'_>, ends: &Ends, state: &mut State, findings: &mut Findings) {
    let needs = Needs::new(context, state);
    for (name, interface) in &context.config.interfaces {
        let Some(end) = ends.get(name) else { continue };
        if let Err(error) = interface_settings(context, &needs, name, interface, end, state, findings) {
            findings.kernel(&interface.at, format!("interface {name}: cannot read its settings"), error);
        }
    }
}

/// What the tunnels need of the interfaces, gathered once.
struct Needs<'a> {
    /// The smallest MTU of a segment's tunnels.
    room: BTreeMap<&'a Name, u32>,
    /// Segments with tunnels over IPv4 that hand their packets to the host's stack.
    stack: BTreeSet<&'a Name>,
    /// Over IPv6.
    stack6: BTreeSet<&'a Name>,
    /// Underlays of VLAN tunnels, and which offloads hide their tags.
    tags: BTreeMap<&'a Name, BTreeSet<&'static str>>,
    /// Where interfaces are redirected to.
    targets: BTreeSet<&'a Name>,
    /// Workloads with IPv6 addresses.
    ipv6: BTreeSet<Name>,
    /// Records of settings, by what they are about: whatever it is called now, it is the same device.
    saved: BTreeMap<(u64, u32, &'a Setting), &'a SavedSetting>,
}

impl<'a> Needs<'a> {
    fn new(context: &Context<'a>, state: &State) -> Self {
        let mut needs = Self {
            room: BTreeMap::new(),
            stack: BTreeSet::new(),
            stack6: BTreeSet::new(),
            tags: BTreeMap::new(),
            targets: BTreeSet::new(),
            ipv6: BTreeSet::new(),
            saved: BTreeMap::new(),
        };
        for (name, tunnel) in &context.config.tunnels {
            if let Some(Tunnel { mtu, .. }) = state.tunnels.get(name) {
                let room = needs.room.entry(&tunnel.segment).or_insert(*mtu);
                *room = (*room).min(*mtu);
            }
            if !tunnel.redirect {
                let over_ipv6 = tunnel.remote.is_some_and(|remote| remote.is_ipv6());
                let stack = if over_ipv6 { &mut needs.stack6 } else { &mut needs.stack };
                stack.insert(&tunnel.segment);
            }
            let hidden: &[&str] = match tunnel.protocol {
                Protocol::Vlan => &RX_VLAN[..1],
                Protocol::Qinq => &RX_VLAN,
                _ => continue,
            };
            needs.tags.entry(&tunnel.underlay).or_default().extend(hidden);
        }
        for interface in context.config.interfaces.values() {
            if let Role::Redirect { to } = &interface.role {
                needs.targets.insert(to);
            }
        }
        for (prefix, route) in state.segments.values().flatten() {
            if let state::Route::Workload { interface, .. } = route
                && prefix.addr().is_ipv6()
                && !needs.ipv6.contains(interface)
            {
                needs.ipv6.insert(interface.clone());
            }
        }
        for (key, saved) in &context.live.state.settings {
            needs.saved.insert((saved.netns_cookie, saved.ifindex, &key.setting), saved);
        }
        needs
    }

    /// Whether frames are redirected into an interface, so that its peer must be able to take them.
    fn receives(&self, name: &Name, interface: &Interface) -> bool {
        match &interface.role {
            Role::Workload { .. } | Role::Redirect { .. } | Role::Underlay => true,
            Role::Pass => self.targets.contains(name),
        }
    }
}

fn interface_settings(
    context: &Context<'_>,
    needs: &Needs<'_>,
    name: &Name,
    interface: &Interface,
    end: &End,
    state: &mut State,
    findings: &mut Findings,
) -> Result<(), KernelError> {
    let manage = interface.manage;
    let own = Device::new(context, &None, &end.link)?;
    let peer = match &end.peer {
        Some((netns, link)) => Some(Device::new(context, netns, link)?),
        None => None,
    };

    if let Some(peer) = peer.as_ref().filter(|_| manage.offloads && needs.receives(name, interface)) {
        // What the peer sends must look as if it came from a wire, but where it goes to the host's stack as it is.
        let feeds_xdp = interface.role != Role::Pass;
        peer_offloads(context, needs, interface, peer, feeds_xdp, state, findings)?;
    }
    match &interface.role {
        Role::Workload { segment, .. } => {
            if let Some(room) = needs.room.get(segment).filter(|_| manage.mtu) {
                let mtu = workload_mtu(needs, segment, name, *room, findings);
                for device in [Some(&own), peer.as_ref()].into_iter().flatten() {
                    let current = device.link.mtu.into();
                    want(needs, state, device, Setting::Mtu, current, |before| before.min(mtu.into()));
                }
            }
            if manage.sysctls && needs.stack.contains(segment) {
                stack_sysctls(context, needs, name, &own, state, findings)?;
            }
            if needs.stack6.contains(segment) {
                check_forwarding6(context, name, findings)?;
            }
        }
        Role::Underlay if needs.tags.contains_key(name) => {
            if manage.promisc {
                let current = context.net.setting(&None, &own.link.name, &Setting::Promisc)?;
                want(needs, state, &own, Setting::Promisc, current, |_| 1);
            }
            if manage.offloads {
                let features = context.net.features(&None, &own.link.name)?;
                for hiding in &needs.tags[name] {
                    if let Some(feature) = features.get(*hiding).filter(|feature| feature.changeable) {
                        let setting = Setting::Feature((*hiding).into());
                        want(needs, state, &own, setting, feature.active.into(), |_| 0);
                    }
                }
            }
        }
        Role::Underlay | Role::Redirect { .. } | Role::Pass => {}
    }
    Ok(())
}

/// A device, and what tells its namespace from others.
struct Device<'a> {
    netns: &'a Netns,
    netns_cookie: u64,
    link: &'a Link,
}

impl<'a> Device<'a> {
    fn new(context: &Context<'_>, netns: &'a Netns, link: &'a Link) -> Result<Self, KernelError> {
        Ok(Self { netns, netns_cookie: context.net.netns_cookie(netns)?, link })
    }
}

/// The MTU of a workload in a segment whose tunnels have room for so much.
fn workload_mtu(needs: &Needs<'_>, segment: &Name, name: &Name, room: u32, findings: &mut Findings) -> u32 {
    if !needs.ipv6.contains(name) || room >= IPV6_MIN_MTU {
        return room;
    }
    findings.warn(format!(
        "interface {name}: it has IPv6 addresses, so its MTU is not lowered below {IPV6_MIN_MTU}, though a tunnel of \
         segment {segment} has room for {room} bytes only"
    ));
    IPV6_MIN_MTU
}

/// Outer IPv6 packets that the host's stack is handed have to be forwarded by it. There is no such setting of one
/// interface; and the one for all of them also stops the host from listening to router advertisements, so it is the
/// operator's.
fn check_forwarding6(context: &Context<'_>, name: &Name, findings: &mut Findings) -> Result<(), KernelError> {
    let forwarding = context.net.setting(&None, "all", &Setting::Sysctl6("forwarding".into()))?;
    if forwarding == 0 {
        findings.warn(format!(
            "net.ipv6.conf.all.forwarding is 0: the host's stack drops what {name} hands to it (redirect = false) \
             until that is 1"
        ));
    }
    Ok(())
}

/// What the host's stack needs of a workload whose outer packets it is handed.
fn stack_sysctls(
    context: &Context<'_>,
    needs: &Needs<'_>,
    name: &Name,
    own: &Device<'_>,
    state: &mut State,
    findings: &mut Findings,
) -> Result<(), KernelError> {
    for (sysctl, value) in STACK_SYSCTLS {
        let setting = Setting::Sysctl(sysctl.into());
        let current = context.net.setting(&None, &own.link.name, &setting)?;
        want(needs, state, own, setting, current, |_| value);
    }
    let all = context.net.setting(&None, "all", &Setting::Sysctl("rp_filter".into()))?;
    if all != 0 {
        findings.warn(format!(
            "net.ipv4.conf.all.rp_filter is {all}: the host's stack drops what {name} hands to it (redirect = false) \
             until that is 0"
        ));
    }
    Ok(())
}

/// The offloads of a peer, and what they must be.
fn peer_offloads(
    context: &Context<'_>,
    needs: &Needs<'_>,
    interface: &Interface,
    peer: &Device<'_>,
    feeds_xdp: bool,
    state: &mut State,
    findings: &mut Findings,
) -> Result<(), KernelError> {
    for (name, feature) in context.net.features(peer.netns, &peer.link.name)? {
        let value = match name.as_str() {
            GRO => 1,
            name if feeds_xdp && (name.starts_with(CHECKSUM) || TX_VLAN.contains(&name)) => 0,
            _ => continue,
        };
        if feature.changeable {
            let setting = Setting::Feature(name.into());
            want(needs, state, peer, setting, feature.active.into(), |_| value);
        } else if feature.active != (value == 1) {
            findings.warn(format!(
                "{} ({}): the offload {name} of {} can't be turned {}",
                interface.at,
                peer.netns.as_ref().map_or_else(|| "this network namespace".into(), ToString::to_string),
                peer.link.name,
                if value == 1 { "on" } else { "off" }
            ));
        }
    }
    Ok(())
}

/// Notes that a setting must be what `value` makes of what it was before mptm. What is right already, and always was,
/// is not ours to remember.
fn want(
    needs: &Needs<'_>,
    state: &mut State,
    device: &Device<'_>,
    setting: Setting,
    current: u64,
    value: impl FnOnce(u64) -> u64,
) {
    let Device { netns, netns_cookie, link } = device;
    let saved = needs.saved.get(&(*netns_cookie, link.ifindex, &setting));
    let before = saved.map_or(current, |saved| saved.before);
    let mut value = value(before);
    if saved.is_none() && value == current {
        return;
    }
    let key = SettingKey { netns: (*netns).clone(), device: link.name.clone(), setting };
    // Both ends of a veth may be interfaces of the file: the smaller MTU fits both.
    if let (Setting::Mtu, Some(other)) = (&key.setting, state.settings.get(&key)) {
        value = value.min(other.value);
    }
    let setting = SavedSetting {
        ifindex: link.ifindex,
        netns_cookie: *netns_cookie,
        before,
        value,
        current: Some(value),
    };
    state.settings.insert(key, setting);
}
