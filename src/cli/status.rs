//! `mptm status`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::error::{SHOWN as ERRORS_SHOWN, warn_all};
use super::table::align;
use super::{CliError, Global, Kernel, print};
use crate::counters::{self, ACTIONS, Count, Counters};
use crate::plan::{Plan, plan};
use crate::render;
use crate::resolve::{Neighbours, resolve};
use crate::state::{Attachment, Interface, RemoteMac, Role, Route};
use crate::store::Live;

/// How the kernel differs from the file.
enum Drift {
    Plan(Plan),
    /// The file can't be read or does not fit this machine.
    Unknown(String),
}

pub fn run(global: &Global, json: bool) -> Result<ExitCode, CliError> {
    let kernel = global.kernel()?;
    let live = kernel.read_existing(&global.pin)?;
    let counters = counters::read(&kernel.bpf, &live.ids)?;
    let (drift, warnings) = drift(global, &kernel, &live);
    print(&if json {
        format!("{:#}\n", as_json(global, &live, &counters, &drift, &warnings))
    } else {
        as_text(global, &live, &counters, &drift)
    })?;
    // An interface that is down is no drift, but explains as much.
    warn_all(&warnings);
    Ok(ExitCode::SUCCESS)
}

fn drift(global: &Global, kernel: &Kernel, live: &Live) -> (Drift, Vec<String>) {
    let unknown = |why| (Drift::Unknown(why), Vec::new());
    let loaded = match global.load() {
        Ok(loaded) => loaded,
        Err(CliError::Config(diagnostics)) => {
            let file = global.config.display();
            let errors = super::count(diagnostics.len(), "error");
            return unknown(format!("{file} has {errors}: see `mptm -c {file} check`"));
        }
        Err(error) => return unknown(error.to_string()),
    };
    match resolve(&loaded.config, &kernel.bpf, &kernel.net, live, Neighbours::Look) {
        Ok(resolved) => (Drift::Plan(plan(&resolved.state, &live.state)), resolved.warnings),
        Err(errors) => {
            let mut lines: Vec<String> = errors.iter().take(ERRORS_SHOWN).map(ToString::to_string).collect();
            if errors.len() > ERRORS_SHOWN {
                lines.push(format!(
                    "and {}: see `mptm apply --dry-run`",
                    super::count(errors.len() - ERRORS_SHOWN, "more error")
                ));
            }
            unknown(lines.join("; "))
        }
    }
}

fn as_text(global: &Global, live: &Live, counters: &Counters, drift: &Drift) -> String {
    let mut text = String::new();
    if let Some(data_plane) = &live.state.data_plane {
        text += &format!("data plane in {}, build {}\n", global.pin.display(), data_plane.build);
    }
    text += &interfaces_table(live);
    text += &tunnels_table(live, counters);
    text += &programs_table(counters);
    text += &drops_table(counters);
    text += "\n";
    text += &match drift {
        Drift::Unknown(why) => format!("drift: unknown: {why}\n"),
        Drift::Plan(plan) if plan.is_empty() => {
            format!("drift: none, the kernel matches {}\n", global.config.display())
        }
        Drift::Plan(plan) => {
            let lines: String = render::lines(plan).iter().map(|line| format!("  {line}\n")).collect();
            format!("drift from {}: {}\n{lines}", global.config.display(), render::summary(plan))
        }
    };
    text
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn interfaces_table(live: &Live) -> String {
    let mut rows = vec![row(["INTERFACE", "ROLE", "PROGRAM", "PEER", "ADDRESSES"])];
    for (name, interface) in &live.state.interfaces {
        let peer = interface.peer.as_ref().map(|peer| render::device_name(&peer.netns, &peer.name));
        rows.push(vec![
            name.to_string(),
            role(&interface.role),
            program(live.state.links.get(name)),
            peer.unwrap_or_else(|| "-".into()),
            addresses(live, name, interface),
        ]);
    }
    if rows.len() == 1 { String::new() } else { format!("\n{}", align(&rows)) }
}

fn role(role: &Role) -> String {
    match role {
        Role::Workload { segment } if &**segment != crate::config::model::DEFAULT_SEGMENT => {
            format!("workload of {segment}")
        }
        Role::Redirect { to } => format!("redirect to {to}"),
        role => role.name().into(),
    }
}

fn program(link: Option<&Attachment>) -> String {
    match link {
        None => "none".into(),
        Some(Attachment { ifindex: 0, .. }) => "none: the device is gone".into(),
        Some(Attachment { program, mode: Some(mode), .. }) => {
            let program = program.map_or("another build", |program| program.name());
            format!("{program} {}", mode.name())
        }
        Some(Attachment { mode: None, .. }) => "none: detached".into(),
    }
}

/// How many of a list are worth a line of their own.
const SHOWN: usize = 3;

fn addresses(live: &Live, name: &str, interface: &Interface) -> String {
    let Role::Workload { segment } = &interface.role else { return "-".into() };
    let own = live.state.segments.get(segment).into_iter().flatten();
    let own =
        own.filter(|(_, route)| matches!(route, Route::Workload { interface, .. } if **interface == *name));
    shorten(own.map(|(prefix, _)| render::prefix(prefix)).collect())
}

fn shorten(list: Vec<String>) -> String {
    match list.len() {
        0 => "none".into(),
        n if n > SHOWN => format!("{} and {} more", list[..SHOWN].join(" "), n - SHOWN),
        _ => list.join(" "),
    }
}

fn traffic(count: Count) -> String {
    format!("{} / {}", count.packets, bytes(count.bytes))
}

/// Bytes in the units of IEC 80000-13.
fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

fn tunnels_table(live: &Live, counters: &Counters) -> String {
    let mut rows = vec![row(["TUNNEL", "PROTOCOL", "REMOTE", "MTU", "ROUTES", "SENT", "RECEIVED"])];
    let routes = routes_into_tunnels(live);
    for (name, tunnel) in &live.state.tunnels {
        let stats = counters.tunnels.get(name).copied().unwrap_or_default();
        let mut remote =
            tunnel.remote.map_or_else(|| format!("on {}", tunnel.underlay), |remote| remote.to_string());
        if tunnel.remote_mac == RemoteMac::Unresolved {
            remote += " (next hop unknown)";
        }
        rows.push(vec![
            name.to_string(),
            render::kind_of(tunnel),
            remote,
            tunnel.mtu.to_string(),
            routes.get(&**name).copied().unwrap_or_default().to_string(),
            traffic(stats.encap),
            traffic(stats.decap),
        ]);
    }
    if rows.len() == 1 { String::new() } else { format!("\n{}", align(&rows)) }
}

/// How many routes lead into each tunnel.
fn routes_into_tunnels(live: &Live) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for route in live.state.segments.values().flat_map(|table| table.values()) {
        match route {
            Route::Tunnel(tunnel) => *counts.entry(&**tunnel).or_default() += 1,
            Route::Workload { pairs, .. } => {
                pairs.values().for_each(|tunnel| *counts.entry(&**tunnel).or_default() += 1);
            }
            Route::Gateway => {}
        }
    }
    counts
}

fn programs_table(counters: &Counters) -> String {
    let mut rows = vec![row(["PROGRAM", "PASSED", "REDIRECTED", "DROPPED", "ABORTED"])];
    for (program, actions) in &counters.actions {
        let [aborted, drop, pass, _tx, redirect] = actions.map(|count| count.packets.to_string());
        rows.push(vec![program.name().into(), pass, redirect, drop, aborted]);
    }
    format!("\n{}", align(&rows))
}

fn drops_table(counters: &Counters) -> String {
    let mut rows = vec![row(["DROPPED FOR", "PACKETS", "MEANING"])];
    for (reason, count) in counters.drops.iter().filter(|(_, count)| count.packets > 0) {
        rows.push(vec![reason.name().into(), count.packets.to_string(), reason.text().into()]);
    }
    if rows.len() == 1 { "\nno drops\n".into() } else { format!("\n{}", align(&rows)) }
}

fn as_json(global: &Global, live: &Live, counters: &Counters, drift: &Drift, warnings: &[String]) -> Value {
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
                "attached": link.is_some_and(|link| link.mode.is_some()),
            })
        })
        .collect();
    let tunnels: Vec<Value> = state
        .tunnels
        .iter()
        .map(|(name, tunnel)| {
            let stats = counters.tunnels.get(name).copied().unwrap_or_default();
            json!({
                "name": name,
                "protocol": tunnel.protocol,
                "id": tunnel.id,
                "segment": tunnel.segment,
                "underlay": tunnel.underlay,
                "local": tunnel.local,
                "remote": tunnel.remote,
                "local_mac": tunnel.local_mac,
                "remote_mac": match tunnel.remote_mac { RemoteMac::Known(mac) => Some(mac), _ => None },
                "next_hop": tunnel.next_hop,
                "resolved": tunnel.remote_mac != RemoteMac::Unresolved,
                "src_port": [tunnel.src_ports.0, tunnel.src_ports.1],
                "dst_port": tunnel.dst_port,
                "inner_mac": tunnel.inner_mac,
                "mtu": tunnel.mtu,
                "redirect": tunnel.redirect,
                "debug": tunnel.debug,
                "encap": stats.encap,
                "decap": stats.decap,
            })
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "config": global.config,
        "pin": global.pin,
        "build": state.data_plane.as_ref().map(|data_plane| data_plane.build.to_string()),
        "interfaces": interfaces,
        "tunnels": tunnels,
        "routes": routes_json(live),
        "settings": settings_json(live),
        "actions": actions_json(counters),
        "drops": drops_json(counters),
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

fn drops_json(counters: &Counters) -> Value {
    Value::Object(
        counters.drops.iter().map(|(reason, count)| (reason.name().to_owned(), json!(count))).collect(),
    )
}
