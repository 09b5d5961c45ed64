//! The settings of devices that forwarding needs: what DESIGN calls managed ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::interfaces::{End, Ends};
use super::{Context, Findings};
use crate::config::model::{Interface, Location, Mode, Name, Role};
use crate::kernel::{KernelError, Link, Netns, Setting};
use crate::protocol::Protocol;
use crate::state::{SavedSetting, SettingKey, State};

/// GRO gives the peer a NAPI context, without which redirected frames are lost.
const GRO: &str = "rx-gro";
/// Checksums left to hardware that XDP redirects around.
const CHECKSUM: &str = "tx-checksum-";
/// VLAN tags left to hardware: beside the packet, where XDP cannot see them.
const TX_VLAN: [&str; 2] = ["tx-vlan-hw-insert", "tx-vlan-stag-hw-insert"];
/// Takes VLAN tags off before XDP can see them.
const RX_VLAN: &str = "rx-vlan-hw-parse";
/// What lets the host route outer packets that carry its own address: forwarding, and no filter by source.
const STACK_SYSCTLS: [(&str, u64); 3] = [("forwarding", 1), ("accept_local", 1), ("rp_filter", 0)];

/// Fills in `settings`.
pub fn resolve(context: &Context<'_>, ends: &Ends, state: &mut State, findings: &mut Findings) {
    for (name, interface) in &context.config.interfaces {
        let Some(end) = ends.get(name) else { continue };
        if let Err(error) = interface_settings(context, ends, name, interface, end, state, findings) {
            findings.kernel(&interface.at, format!("interface {name}: cannot read its settings"), error);
        }
    }
}

fn interface_settings(
    context: &Context<'_>,
    ends: &Ends,
    name: &Name,
    interface: &Interface,
    end: &End,
    state: &mut State,
    findings: &mut Findings,
) -> Result<(), KernelError> {
    let manage = interface.manage;
    let own = Device { netns: &None, link: &end.link, at: &interface.at };
    let peer = end.peer.as_ref().map(|(netns, link)| Device { netns, link, at: &interface.at });

    if let Some(peer) = peer.as_ref().filter(|_| manage.offloads && receives(context, name, interface)) {
        // What the peer sends comes as if from a wire, except to the host's stack.
        let feeds_xdp = interface.role != Role::Pass;
        for (feature, value) in peer_features(context, peer, feeds_xdp, findings)? {
            want(context, state, peer, Setting::Feature(feature), |_| value)?;
        }
    }
    match &interface.role {
        Role::Workload { segment, .. } => {
            let tunnels = || state.tunnels.values().filter(|tunnel| tunnel.segment == *segment);
            let room = tunnels().map(|tunnel| tunnel.mtu).min();
            let stack = tunnels().any(|tunnel| !tunnel.redirect);
            if let Some(room) = room.filter(|_| manage.mtu) {
                for device in [Some(&own), peer.as_ref()].into_iter().flatten() {
                    want(context, state, device, Setting::Mtu, |before| before.min(room.into()))?;
                }
            }
            if stack && interface.mode == Mode::Native && end.link.kind.as_deref() == Some("veth") {
                findings.warn(format!(
                    "interface {name} is a veth with native XDP: the host's stack drops what its tunnels with \
                     redirect = false hand to it, since the kernel still takes that for the inner packet's \
                     destination; say mode = \"generic\" for {name}"
                ));
            }
            if stack && manage.sysctls {
                for (sysctl, value) in STACK_SYSCTLS {
                    want(context, state, &own, Setting::Sysctl(sysctl.into()), |_| value)?;
                }
                let all = context.net.setting(&None, "all", &Setting::Sysctl("rp_filter".into()))?;
                if all != 0 {
                    findings.warn(format!(
                        "net.ipv4.conf.all.rp_filter is {all}: the host's stack drops what {name} hands to it \
                         (redirect = false) until that is 0"
                    ));
                }
            }
        }
        Role::Underlay => {
            let vlan = ends.contains_key(name)
                && context
                    .config
                    .tunnels
                    .values()
                    .any(|tunnel| tunnel.underlay == *name && tunnel.protocol == Protocol::Vlan);
            if vlan && manage.promisc {
                want(context, state, &own, Setting::Promisc, |_| 1)?;
            }
            if vlan && manage.offloads {
                let features = context.net.features(&None, &end.link.name)?;
                if features.get(RX_VLAN).is_some_and(|feature| feature.changeable) {
                    want(context, state, &own, Setting::Feature(RX_VLAN.into()), |_| 0)?;
                }
            }
        }
        Role::Redirect { .. } | Role::Pass => {}
    }
    Ok(())
}

/// Whether frames are redirected into an interface, so that its peer must be able to take them.
fn receives(context: &Context<'_>, name: &Name, interface: &Interface) -> bool {
    match &interface.role {
        Role::Workload { .. } | Role::Redirect { .. } | Role::Underlay => true,
        Role::Pass => {
            let is_target = |other: &Interface| matches!(&other.role, Role::Redirect { to } if to == name);
            context.config.interfaces.values().any(is_target)
        }
    }
}

/// A device and the place in the file that it is for.
struct Device<'a> {
    netns: &'a Netns,
    link: &'a Link,
    at: &'a Location,
}

/// The offloads of a peer, and what they must be.
fn peer_features(
    context: &Context<'_>,
    peer: &Device<'_>,
    feeds_xdp: bool,
    findings: &mut Findings,
) -> Result<BTreeMap<Arc<str>, u64>, KernelError> {
    let mut wanted = BTreeMap::new();
    for (name, feature) in context.net.features(peer.netns, &peer.link.name)? {
        let value = match name.as_str() {
            GRO => 1,
            name if feeds_xdp && (name.starts_with(CHECKSUM) || TX_VLAN.contains(&name)) => 0,
            _ => continue,
        };
        if feature.changeable {
            wanted.insert(name.into(), value);
        } else if feature.active != (value == 1) {
            findings.warn(format!(
                "{} ({}): the offload {name} of {} can't be turned {}",
                peer.at,
                peer.netns.as_ref().map_or_else(|| "this network namespace".into(), ToString::to_string),
                peer.link.name,
                if value == 1 { "on" } else { "off" }
            ));
        }
    }
    Ok(wanted)
}

/// Notes that a setting must be what `value` makes of what it was before mptm. What is right already, and always was,
/// is not ours to remember.
fn want(
    context: &Context<'_>,
    state: &mut State,
    device: &Device<'_>,
    setting: Setting,
    value: impl FnOnce(u64) -> u64,
) -> Result<(), KernelError> {
    let key = SettingKey { netns: device.netns.clone(), device: device.link.name.clone(), setting };
    let netns_cookie = context.net.netns_cookie(device.netns)?;
    let current = context.net.setting(device.netns, &device.link.name, &key.setting)?;
    let saved = context
        .live
        .state
        .settings
        .get(&key)
        .filter(|saved| saved.ifindex == device.link.ifindex && saved.netns_cookie == netns_cookie);
    let before = saved.map_or(current, |saved| saved.before);
    let value = value(before);
    if saved.is_none() && value == current {
        return Ok(());
    }
    let setting =
        SavedSetting { ifindex: device.link.ifindex, netns_cookie, before, value, current: Some(value) };
    state.settings.insert(key, setting);
    Ok(())
}
