//! `mptm get`.

use std::net::IpAddr;
use std::process::ExitCode;

use anstream::println;

use super::{CliError, Global};
use crate::lookup::{Way, way};
use crate::protocol;
use crate::render;

pub fn run(
    global: &Global,
    source: IpAddr,
    destination: IpAddr,
    segment: &str,
) -> Result<ExitCode, CliError> {
    let live = global.kernel()?.read_existing(&global.pin)?;
    let pair = format!("{source} -> {destination} in segment {segment}");
    let fail = |what: String, hint: &str| Err(CliError::Other { what, hint: Some(hint.into()) });
    let show = render::prefix;
    let (from, tunnel, prefix) = match way(&live.state, segment, source, destination) {
        Way::Tunnel { from, tunnel, prefix } => (from, tunnel, prefix),
        Way::Local { from, to, prefix } => {
            println!(
                "{pair}\n  from      {from}\n  route     {}\n  workload  {to}, on this node",
                show(&prefix)
            );
            return Ok(ExitCode::SUCCESS);
        }
        Way::NoRoute if !live.state.segments.contains_key(segment) => {
            let known: Vec<&str> = live.state.segments.keys().map(AsRef::as_ref).collect();
            return fail(
                format!("there is no segment {segment}"),
                &format!("--segment names another; there are: {}", known.join(", ")),
            );
        }
        Way::NoRoute => {
            return fail(
                format!("{pair}: no route, so it passes to the host's stack"),
                "`inner` of a tunnel, or `addresses` of a workload, makes one",
            );
        }
        Way::ForeignSource => {
            return fail(
                format!("{pair}: dropped, since {source} is no address of a workload of this node"),
                "`addresses` of a workload lists its own",
            );
        }
    };
    println!("{pair}\n  from      {from}\n  route     {}\n  tunnel    {tunnel}", show(&prefix));
    let Some(tunnel) = live.state.tunnels.get(&tunnel) else {
        return fail(format!("{pair}: its tunnel is not there"), "run `mptm apply`");
    };
    for (key, value) in render::tunnel(tunnel).into_iter().filter(|(_, value)| !value.is_empty()) {
        println!("    {key:<10}  {value}");
    }
    println!("  outer header (lengths, checksum and source port are filled in per packet)");
    for line in protocol::header(tunnel).bytes.chunks(16) {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("    {}", hex.join(" "));
    }
    Ok(ExitCode::SUCCESS)
}
