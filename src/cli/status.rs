//! `mptm status`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::error::{SHOWN as ERRORS_SHOWN, warn_all};
use super::maps::Maps;
use super::table::align;
use super::{CliError, Global, Kernel, print, status_json};
use crate::config::model::Name;
use crate::counters::{self, Count, Counters};
use crate::kernel::dispatcher::Dispatcher;
use crate::kernel::{DataPlane as _, Via};
use crate::plan::{Plan, plan};
use crate::render;
use crate::resolve::{Neighbours, resolve};
use crate::state::{Attachment, FloodLink, Interface, RemoteMac, Role, Route};
use crate::store::Live;

/// How the kernel differs from the file.
pub enum Drift {
    /// By these steps.
    Plan(Plan),
    /// The file can't be read or does not fit this machine.
    Unknown(String),
}

pub fn run(global: &Global, json: bool) -> Result<ExitCode, CliError> {
    let kernel = global.kernel()?;
    let live = kernel.read_existing(&global.pin)?;
    let counters = counters::read(&kernel.bpf, &live.ids)?;
    let dispatchers = dispatchers(&kernel, &live)?;
    let maps = Maps::look(&kernel, &live)?;
    let (drift, warnings) = drift(global, &kernel, &live);
    print(&if json {
        format!("{:#}\n", status_json::json(global, &live, &dispatchers, &counters, &maps, &drift, &warnings))
    } else {
        as_text(global, &live, &dispatchers, &counters, &maps, &drift)
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

/// The dispatchers that mptm's programs are parts of, by interface.
pub type Dispatchers = BTreeMap<Name, Dispatcher>;

fn dispatchers(kernel: &Kernel, live: &Live) -> Result<Dispatchers, CliError> {
    let shared =
        live.state.links.iter().filter(|(_, link)| link.via == Via::Dispatcher && link.mode.is_some());
    let mut all = Dispatchers::new();
    for (name, link) in shared {
        if let Some(dispatcher) = kernel.bpf.dispatcher(link.ifindex)? {
            all.insert(name.clone(), dispatcher);
        }
    }
    Ok(all)
}

fn as_text(
    global: &Global,
    live: &Live,
    dispatchers: &Dispatchers,
    counters: &Counters,
    maps: &Maps,
    drift: &Drift,
) -> String {
    let mut text = String::new();
    if let Some(data_plane) = &live.state.data_plane {
        text += &format!("data plane in {}, build {}\n", global.pin.display(), data_plane.build);
        text += &maps.line();
    }
    text += &interfaces_table(live);
    text += &dispatchers_table(dispatchers);
    text += &tunnels_table(live, counters);
    text += &programs_table(counters);
    text += &reasons_tables(counters);
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
            program(live.state.links.get(name)) + flood(live.state.flood_links.get(name)),
            peer.unwrap_or_else(|| "-".into()),
            addresses(live, name, interface),
        ]);
    }
    if rows.len() == 1 { String::new() } else { format!("\n{}", align(&rows)) }
}

/// Who shares an interface, in the order in which they run.
fn dispatchers_table(dispatchers: &Dispatchers) -> String {
    let mut rows = vec![row(["DISPATCHER", "PROGRAMS", "JUMBO FRAMES"])];
    for (name, dispatcher) in dispatchers {
        let members: Vec<String> = dispatcher.members.iter().map(ToString::to_string).collect();
        let frags = if dispatcher.frags { "yes" } else { "no" };
        rows.push(vec![name.to_string(), members.join(", "), frags.into()]);
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
        Some(Attachment { via: Via::Dispatcher, mode: None, .. }) => "none: no dispatcher has it".into(),
        Some(Attachment { ifindex: 0, .. }) => "none: the device is gone".into(),
        Some(Attachment { program, mode: Some(mode), via, .. }) => {
            let program = program.map_or("another build", |program| program.name());
            let shared = if *via == Via::Dispatcher { ", shared" } else { "" };
            format!("{program} {}{shared}", mode.name())
        }
        Some(Attachment { mode: None, .. }) => "none: detached".into(),
    }
}

fn flood(link: Option<&FloodLink>) -> &'static str {
    match link {
        None => "",
        Some(FloodLink { ifindex: 0, .. }) => ", flood detached",
        Some(_) => ", flood",
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
pub fn bytes(bytes: u64) -> String {
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
        // What programs answer is redirected, too.
        let [aborted, drop, pass, _tx, redirect] = actions.map(|count| count.packets.to_string());
        rows.push(vec![program.name().into(), pass, redirect, drop, aborted]);
    }
    format!("\n{}", align(&rows))
}

/// What was dropped, and what was left to the host's stack although tunnels carry the like.
fn reasons_tables(counters: &Counters) -> String {
    let table = |title: &str, passes: bool| {
        let mut rows = vec![row([title, "PACKETS", "MEANING"])];
        let counted = counters.drops.iter().filter(|(_, count)| count.packets > 0);
        for (reason, count) in counted.filter(|(reason, _)| reason.passes() == passes) {
            rows.push(vec![reason.name().into(), count.packets.to_string(), reason.text().into()]);
        }
        (rows.len() > 1).then(|| format!("\n{}", align(&rows)))
    };
    let dropped = table("DROPPED FOR", false).unwrap_or_else(|| "\nno drops\n".into());
    dropped + &table("PASSED TO THE HOST AS", true).unwrap_or_default()
}
