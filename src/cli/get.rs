//! `mptm get`.

use std::net::IpAddr;
use std::process::ExitCode;

use super::{CliError, Global, print};
use crate::lookup::{Way, way};
use crate::protocol;
use crate::render;
use crate::state::RemoteMac;

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
            print(&format!(
                "{pair}\n  from      {from}\n  route     {}\n  workload  {to}, on this node\n",
                show(&prefix)
            ))?;
            return Ok(ExitCode::SUCCESS);
        }
        Way::Gateway { from } => {
            print(&format!(
                "{pair}\n  from      {from}\n  gateway   mptm answers ARP and neighbour solicitations for it; all else \
                 passes to the host's stack\n"
            ))?;
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
    let Some(state) = live.state.tunnels.get(&tunnel) else {
        return fail(format!("{pair}: its tunnel {tunnel} is not there"), "run `mptm apply`");
    };
    let mut text =
        format!("{pair}\n  from      {from}\n  route     {}\n  tunnel    {tunnel}\n", show(&prefix));
    for (key, value) in render::tunnel(state).into_iter().filter(|(_, value)| !value.is_empty()) {
        text += &format!("    {key:<10}  {value}\n");
    }
    let per_packet = if state.protocol.has_outer_ip() {
        "what is filled in per packet is zero: lengths, checksums, source port and the like"
    } else if state.local_mac.is_none() || state.remote_mac == RemoteMac::Inner {
        "MAC addresses of zeros are the inner packet's"
    } else {
        "the same for every packet"
    };
    text += &format!("  outer header ({per_packet})\n");
    for line in protocol::header(state).bytes.chunks(16) {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!("    {}\n", hex.join(" "));
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
