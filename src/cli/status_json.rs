//! `mptm status --json`.

use serde_json::{Map, Value, json};

use super::Global;
use super::maps::Maps;
use super::status::{Dispatchers, Drift};
use crate::config::model::{FlowLabel, GeneveOption, Pcp, Tos, Ttl};
use crate::counters::{ACTIONS, Counters};
use crate::kernel::dispatcher::Dispatcher;
use crate::render;
use crate::state::{RemoteMac, Role, Route, Tunnel};
use crate::store::Live;

/// Who shares an interface, in the order in which they run.
fn dispatcher_json(dispatcher: &Dispatcher) -> Value {
    let members = dispatcher.members.iter().map(|member| {
        json!({
            "program": member.name,
            "program_id": member.id,
            "priority": member.slot.priority,
            "own": member.own,
        })
    });
    json!({ "frags": dispatcher.frags, "programs": members.collect::<Vec<_>>() })
}

/// All of it.
pub fn json(
    global: &Global,
    live: &Live,
    dispatchers: &Dispatchers,
    counters: &Counters,
    maps: &Maps,
    drift: &Drift,
    warnings: &[String],
) -> Value {
    let state = &live.state;
    let interfaces: Vec<Value> = state
        .interfaces
        .iter()
        .map(|(name, interface)| {
            let link = state.links.get(name);
            json!({
                "name": name,
                "role": interface.role.name(),
                "segment": match &interface.role { Role::Workload { segment } => Some(segment), _ => None },
                "to": match &interface.role { Role::Redirect { to } => Some(to), _ => None },
                "ifindex": interface.ifindex,
                "mac": interface.mac,
                "peer": interface.peer.as_ref().map(|peer| json!({ "netns": peer.netns, "name": peer.name })),
                "program": link.and_then(|link| link.program).map(|program| program.name()),
                "program_id": live.programs.get(name),
                "mode": link.and_then(|link| link.mode),
                "dispatcher": dispatchers.get(name).map(dispatcher_json),
                "flood": state.flood_links.get(name).is_some_and(|link| link.ifindex != 0),
                "attached": link.is_some_and(|link| link.mode.is_some()),
            })
        })
        .collect();
    let tunnels: Vec<Value> = state
        .tunnels
        .iter()
        .map(|(name, tunnel)| {
            let stats = counters.tunnels.get(name).copied().unwrap_or_default();
            let mut fields = tunnel_json(tunnel);
            fields.insert("name".into(), json!(name));
            fields.insert("encap".into(), json!(stats.encap));
            fields.insert("decap".into(), json!(stats.decap));
            Value::Object(fields)
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "config": global.config,
        "pin": global.pin,
        "build": state.data_plane.as_ref().map(|data_plane| data_plane.build.to_string()),
        "maps": maps.json(),
        "interfaces": interfaces,
        "tunnels": tunnels,
        "routes": routes_json(live),
        "settings": settings_json(live),
        "actions": actions_json(counters),
        "drops": reasons_json(counters, false),
        "passed": reasons_json(counters, true),
        "drift": match drift {
            Drift::Plan(plan) => render::json(plan),
            Drift::Unknown(_) => Value::Null,
        },
        "drift_unknown": match drift {
            Drift::Plan(_) => None,
            Drift::Unknown(why) => Some(why),
        },
        "warnings": warnings,
    })
}

/// Every field of a tunnel, called as in the file.
fn tunnel_json(tunnel: &Tunnel) -> Map<String, Value> {
    // Exhaustive: a new field does not compile until it is shown.
    let Tunnel {
        protocol,
        id,
        local_id,
        service_id,
        payload,
        segment,
        underlay,
        local,
        remote,
        local_mac,
        remote_mac,
        next_hop,
        src_ports: (port_min, port_max),
        dst_port,
        ttl,
        tos,
        df,
        flow_label,
        udp_checksum,
        pcp,
        gbp,
        options,
        checksum,
        sequence,
        variant,
        qfi,
        uplink,
        inner_mac,
        mtu,
        mss_clamp,
        flood,
        redirect,
        debug,
        intact,
    } = tunnel;
    let inherit = || json!("inherit");
    let fields = [
        ("protocol", json!(protocol)),
        ("id", json!(id)),
        ("local_id", json!(local_id)),
        ("service_id", json!(service_id)),
        ("payload", json!(payload.name())),
        ("segment", json!(segment)),
        ("underlay", json!(underlay)),
        ("local", json!(local)),
        ("remote", json!(remote)),
        ("local_mac", json!(local_mac)),
        (
            "remote_mac",
            match remote_mac {
                RemoteMac::Known(mac) => json!(mac),
                _ => Value::Null,
            },
        ),
        ("next_hop", json!(next_hop)),
        ("resolved", json!(*remote_mac != RemoteMac::Unresolved)),
        ("src_port", json!([port_min, port_max])),
        ("dst_port", json!(dst_port)),
        (
            "ttl",
            match ttl {
                Ttl::Fixed(ttl) => json!(ttl),
                Ttl::Inherit => inherit(),
            },
        ),
        (
            "tos",
            match tos {
                Tos::Fixed(tos) => json!(tos),
                Tos::Inherit => inherit(),
            },
        ),
        ("df", json!(df.name())),
        (
            "flow_label",
            match flow_label {
                FlowLabel::Flow => json!("flow"),
                FlowLabel::Fixed(label) => json!(label),
                FlowLabel::Inherit => inherit(),
            },
        ),
        ("udp_checksum", json!(udp_checksum)),
        (
            "pcp",
            match pcp {
                Pcp::Fixed(pcp) => json!(pcp),
                Pcp::Inherit => inherit(),
            },
        ),
        ("gbp", json!(gbp)),
        ("options", options.iter().map(option_json).collect()),
        ("checksum", json!(checksum)),
        ("sequence", json!(sequence)),
        ("variant", json!(variant)),
        ("qfi", json!(qfi)),
        ("uplink", json!(uplink)),
        ("inner_mac", json!(inner_mac)),
        ("mtu", json!(mtu)),
        ("mss_clamp", json!(mss_clamp)),
        ("flood", json!(flood)),
        ("redirect", json!(redirect)),
        ("debug", json!(debug)),
        ("intact", json!(intact)),
    ];
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn option_json(option: &GeneveOption) -> Value {
    let GeneveOption { class, kind, data } = option;
    let data: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "class": class, "type": kind, "data": data })
}

fn routes_json(live: &Live) -> Vec<Value> {
    let mut routes = Vec::new();
    for (segment, table) in &live.state.segments {
        for (prefix, route) in table {
            match route {
                Route::Tunnel(tunnel) => {
                    routes.push(json!({ "segment": segment, "prefix": prefix, "tunnel": tunnel }));
                }
                Route::Gateway => {
                    routes.push(json!({ "segment": segment, "prefix": prefix, "gateway": true }))
                }
                Route::Workload { interface, mac, pairs } => {
                    routes.push(
                        json!({ "segment": segment, "prefix": prefix, "interface": interface, "mac": mac }),
                    );
                    routes.extend(pairs.iter().map(|(destination, tunnel)| {
                        json!({ "segment": segment, "from": prefix, "prefix": destination, "tunnel": tunnel })
                    }));
                }
            }
        }
    }
    routes
}

fn settings_json(live: &Live) -> Vec<Value> {
    live.state
        .settings
        .iter()
        .map(|(key, setting)| {
            json!({
                "netns": key.netns,
                "device": key.device,
                "setting": key.setting.key(),
                "before": setting.before,
                "wanted": setting.value,
                "value": setting.current,
            })
        })
        .collect()
}

fn actions_json(counters: &Counters) -> Value {
    let programs = counters.actions.iter().map(|(program, actions)| {
        let actions = ACTIONS.iter().zip(actions).map(|(name, count)| ((*name).to_owned(), json!(count)));
        (program.name().to_owned(), Value::Object(actions.collect::<Map<_, _>>()))
    });
    Value::Object(programs.collect())
}

/// By reason: of what was dropped, or of what was left to the host's stack.
fn reasons_json(counters: &Counters, passes: bool) -> Value {
    let counted = counters.drops.iter().filter(|(reason, _)| reason.passes() == passes);
    Value::Object(counted.map(|(reason, count)| (reason.name().to_owned(), json!(count))).collect())
}
