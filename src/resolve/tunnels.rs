//! Tunnels: outer addresses from routes, MAC addresses from neighbours, and the room in the MTU.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::interfaces::{End, Ends};
use super::{Context, Findings, IPV6_MIN_MTU, Neighbours};
use crate::config::model::{self, Name};
use crate::kernel::{KernelError, Route};
use crate::mac::MacAddr;
use crate::protocol;
use crate::state::{RemoteMac, State, Tunnel};

/// How long a missing neighbour may take to answer. Linux asks once a second.
const NEIGHBOUR_WAIT: Duration = Duration::from_millis(1500);
/// The same over IPv6: on an interface that has just come up, Linux asks nobody before it knows that its link-local
/// address is its own, which takes up to two seconds (RFC 4862, 5.4.2).
const NEIGHBOUR_WAIT_V6: Duration = Duration::from_millis(3500);
/// How often the table is looked at meanwhile.
const NEIGHBOUR_POLL: Duration = Duration::from_millis(10);
/// RFC 791: every module must be able to forward 68 bytes unfragmented.
const MIN_MTU: u32 = 68;

/// Fills in `tunnels`.
pub fn resolve(context: &Context<'_>, ends: &Ends, state: &mut State, findings: &mut Findings) {
    let mut routes = BTreeMap::new();
    let mut asked = Asked::new();
    for (name, tunnel) in &context.config.tunnels {
        let Some(underlay) = ends.get(&tunnel.underlay) else { continue };
        if let Some(route) = route(context, name, tunnel, underlay, &mut asked, findings) {
            routes.insert(name, route);
        }
    }
    let wanted: BTreeSet<(u32, IpAddr)> = routes
        .iter()
        .filter(|(name, _)| needs_neighbour(&context.config.tunnels[**name]))
        .filter_map(|(name, route)| {
            let underlay = ends.get(&context.config.tunnels[*name].underlay)?;
            Some((underlay.link.ifindex, route.as_ref()?.next_hop))
        })
        .collect();
    let neighbours = match neighbours(context, &wanted) {
        Ok(neighbours) => neighbours,
        Err(error) => {
            let at = context.config.tunnels.values().next().map(|tunnel| &tunnel.at);
            if let Some(at) = at {
                findings.kernel(at, "cannot look up the tunnels' next hops", error);
            }
            return;
        }
    };
    for (name, route) in routes {
        let config = &context.config.tunnels[name];
        let Some(underlay) = ends.get(&config.underlay) else { continue };
        let next_hop = route.map(|route| route.next_hop);
        let known = next_hop.and_then(|next_hop| neighbours.get(&(underlay.link.ifindex, next_hop)).copied());
        let remote_mac = remote_mac(context, name, config, known, next_hop, underlay, findings);
        let local = config.local.or(route.map(|route| route.source));
        let local_mac =
            config.local_mac.or(if config.protocol.has_outer_ip() { underlay.link.mac } else { None });
        let mut tunnel = tunnel(config);
        tunnel.local = local;
        tunnel.local_mac = local_mac;
        tunnel.remote_mac = remote_mac;
        tunnel.next_hop = next_hop.filter(|_| needs_neighbour(config));
        match mtu(name, config, &tunnel, underlay, route, findings) {
            Some(mtu) => tunnel.mtu = mtu,
            None => continue,
        }
        state.tunnels.insert(name.clone(), tunnel);
    }
}

/// What the file alone says.
fn tunnel(config: &model::Tunnel) -> Tunnel {
    // Exhaustive: a new field does not compile until it is taken over.
    let model::Tunnel {
        at: _,
        protocol,
        id,
        local_id,
        service_id,
        payload,
        segment,
        underlay,
        remote,
        local: _,
        local_mac: _,
        remote_mac: _,
        inner: _,
        from: _,
        src_port,
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
        mtu: _,
        mss_clamp,
        flood,
        redirect,
        debug,
    } = config;
    // RFC 6935: a zero checksum over IPv6 is for who asks for it.
    let wants_checksum = udp_checksum.unwrap_or(remote.is_some_and(|remote| remote.is_ipv6()));
    Tunnel {
        id: *id,
        local_id: *local_id,
        service_id: *service_id,
        payload: *payload,
        remote: *remote,
        src_ports: if protocol.has_udp() { src_port.range() } else { (0, 0) },
        dst_port: *dst_port,
        ttl: *ttl,
        tos: *tos,
        df: *df,
        flow_label: *flow_label,
        udp_checksum: protocol.has_udp() && wants_checksum,
        pcp: *pcp,
        gbp: *gbp,
        options: options.clone(),
        checksum: *checksum,
        sequence: *sequence,
        variant: *variant,
        qfi: *qfi,
        uplink: *uplink,
        inner_mac: *inner_mac,
        mss_clamp: *mss_clamp,
        flood: *flood,
        redirect: *redirect,
        debug: *debug,
        ..Tunnel::new(*protocol, segment.clone(), underlay.clone())
    }
}

/// Whether the outer destination MAC address has to be looked up.
fn needs_neighbour(tunnel: &model::Tunnel) -> bool {
    tunnel.protocol.has_outer_ip() && tunnel.remote_mac.is_none() && tunnel.redirect
}

/// Whether an address is the underlay's own.
fn is_own(context: &Context<'_>, underlay: &End, address: IpAddr) -> bool {
    let own = context.net.addresses(&None, underlay.link.ifindex);
    own.is_ok_and(|own| own.iter().any(|net| net.addr() == address))
}

/// What the kernel has said of ways: to, from, and by which device. A far end has many tunnels, as a rule.
type Asked = HashMap<(IpAddr, Option<IpAddr>, u32), Option<Route>>;

/// Asks the kernel, unless it has been asked.
fn ask(
    context: &Context<'_>,
    to: IpAddr,
    from: Option<IpAddr>,
    ifindex: u32,
    asked: &mut Asked,
) -> Result<Option<Route>, KernelError> {
    if let Some(known) = asked.get(&(to, from, ifindex)) {
        return Ok(*known);
    }
    let route = context.net.route(to, from, ifindex)?;
    asked.insert((to, from, ifindex), route);
    Ok(route)
}

/// The way to the far end. Some(None): it needs none. None: it has none, which is said.
fn route(
    context: &Context<'_>,
    name: &Name,
    tunnel: &model::Tunnel,
    underlay: &End,
    asked: &mut Asked,
    findings: &mut Findings,
) -> Option<Option<Route>> {
    let Some(remote) = tunnel.remote.filter(|_| tunnel.protocol.has_outer_ip()) else {
        return Some(None);
    };
    let found = ask(context, remote, tunnel.local, underlay.link.ifindex, asked);
    if !matches!(found, Ok(Some(_)))
        && let Some(kept) = kept_route(context, name, tunnel, underlay)
    {
        findings.warn(format!(
            "tunnel {name}: there is no route to {remote} by {} now; its last known way stays",
            tunnel.underlay
        ));
        return Some(Some(kept));
    }
    match found {
        Ok(Some(route)) => Some(Some(route)),
        Ok(None) if is_own(context, underlay, remote) => {
            findings.error(
                &tunnel.at,
                format!(
                    "tunnel {name}: its remote {remote} is this node's own, an address of {}",
                    tunnel.underlay
                ),
                "`remote` is the far end's: is this the file of another node?",
            );
            None
        }
        Ok(None) => {
            findings.error(
                &tunnel.at,
                format!("tunnel {name}: there is no route to {remote} by {}", tunnel.underlay),
                format!(
                    "see `ip route get {remote} oif {}`; is the interface up, with an address?",
                    tunnel.underlay
                ),
            );
            None
        }
        Err(error) => {
            findings.kernel(
                &tunnel.at,
                format!("tunnel {name}: cannot look up the route to {remote}"),
                error,
            );
            None
        }
    }
}

/// The way that a tunnel has, where the kernel knows none for the moment (addresses and routes go and come back when a
/// link flaps or a lease is renewed): who may leave objects out should not take it for gone.
fn kept_route(context: &Context<'_>, name: &Name, tunnel: &model::Tunnel, underlay: &End) -> Option<Route> {
    let live = context.live.state.tunnels.get(name).filter(|live| context.partial && live.intact)?;
    let device = context.live.state.interfaces.get(&live.underlay)?.ifindex;
    let is_same = live.remote == tunnel.remote
        && live.protocol == tunnel.protocol
        && live.underlay == tunnel.underlay
        && device == underlay.link.ifindex
        && tunnel.local.is_none_or(|local| live.local == Some(local));
    let next_hop = live.next_hop.or(live.remote)?;
    let mtu = Some(live.mtu + protocol::overhead(live));
    is_same.then_some(Route { source: live.local?, next_hop, mtu })
}

/// The MAC addresses of the next hops, asked for if they may be.
fn neighbours(
    context: &Context<'_>,
    wanted: &BTreeSet<(u32, IpAddr)>,
) -> Result<BTreeMap<(u32, IpAddr), MacAddr>, KernelError> {
    let mut known = BTreeMap::new();
    let mut missing = Vec::new();
    for (ifindex, address) in wanted {
        match context.net.neighbour(*ifindex, *address)? {
            Some(mac) => drop(known.insert((*ifindex, *address), mac)),
            None => missing.push((*ifindex, *address)),
        }
    }
    if missing.is_empty() || context.neighbours == Neighbours::Look {
        return Ok(known);
    }
    context.net.solicit(&missing)?;
    if context.neighbours == Neighbours::Ask {
        return Ok(known);
    }
    let is_v6 = missing.iter().any(|(_, address)| address.is_ipv6());
    let deadline = Instant::now() + if is_v6 { NEIGHBOUR_WAIT_V6 } else { NEIGHBOUR_WAIT };
    context.net.let_go();
    while !missing.is_empty() && Instant::now() < deadline {
        std::thread::sleep(NEIGHBOUR_POLL);
        let mut still = Vec::new();
        for (ifindex, address) in missing {
            match context.net.neighbour(ifindex, address)? {
                Some(mac) => drop(known.insert((ifindex, address), mac)),
                None => still.push((ifindex, address)),
            }
        }
        missing = still;
    }
    Ok(known)
}

fn remote_mac(
    context: &Context<'_>,
    name: &Name,
    tunnel: &model::Tunnel,
    known: Option<MacAddr>,
    next_hop: Option<IpAddr>,
    underlay: &End,
    findings: &mut Findings,
) -> RemoteMac {
    if let Some(mac) = tunnel.remote_mac.or(known) {
        return RemoteMac::Known(mac);
    }
    if !tunnel.protocol.has_outer_ip() {
        return RemoteMac::Inner;
    }
    if !tunnel.redirect {
        // The host's stack will find it; the program writes the receiving interface's own over it.
        return RemoteMac::Known(MacAddr::ZERO);
    }
    // What the kernel forgot of this next hop on this device, the tunnel may still know: it served until now.
    let state = &context.live.state;
    let kept = state.tunnels.get(name).filter(|live| {
        let device = state.interfaces.get(&live.underlay).map(|interface| interface.ifindex);
        live.intact
            && live.next_hop == next_hop
            && live.underlay == tunnel.underlay
            && device == Some(underlay.link.ifindex)
    });
    let next_hop = next_hop.map_or_else(|| "?".to_owned(), |address| address.to_string());
    if let Some(RemoteMac::Known(mac)) = kept.map(|live| live.remote_mac) {
        if context.neighbours == Neighbours::Solicit {
            findings.warn(format!(
                "tunnel {name}: next hop {next_hop} on {} does not answer; its last known MAC address {mac} stays",
                tunnel.underlay
            ));
        }
        return RemoteMac::Known(mac);
    }
    findings.warn(match context.neighbours {
        Neighbours::Solicit => format!(
            "tunnel {name}: next hop {next_hop} on {} does not answer, so nothing can be sent yet: apply again when \
             it is up",
            tunnel.underlay
        ),
        Neighbours::Ask => format!(
            "tunnel {name}: next hop {next_hop} on {} has not answered yet, so nothing can be sent",
            tunnel.underlay
        ),
        Neighbours::Look => format!(
            "tunnel {name}: the MAC address of next hop {next_hop} on {} is not known yet; apply asks for it",
            tunnel.underlay
        ),
    });
    RemoteMac::Unresolved
}

/// The largest inner packet.
fn mtu(
    name: &Name,
    config: &model::Tunnel,
    tunnel: &Tunnel,
    underlay: &End,
    route: Option<Route>,
    findings: &mut Findings,
) -> Option<u32> {
    let overhead = protocol::overhead(tunnel);
    // An IP packet says its length in 16 bits, whatever the device (lo: 65536) would carry.
    let most = if config.protocol.has_outer_ip() { u16::MAX.into() } else { u32::MAX };
    let room = underlay.link.mtu.min(most).saturating_sub(overhead);
    let has = format!(
        "{} has an MTU of {}, and {} takes {overhead} of it",
        config.underlay, underlay.link.mtu, config.protocol
    );
    // What a router said of the path holds for some minutes: it is no reason to refuse a file.
    let path = route.and_then(|route| route.mtu).filter(|path| *path < underlay.link.mtu);
    let path_room = path.map(|path| path.min(most).saturating_sub(overhead));
    let mtu = match (config.mtu, path_room) {
        (Some(mtu), _) if mtu > room => {
            findings.error(
                &config.at,
                format!("tunnel {name}: no room for mtu = {mtu}: {has}"),
                format!("at most mtu = {room}; or a larger MTU on {}", config.underlay),
            );
            return None;
        }
        (Some(mtu), Some(path_room)) if mtu > path_room => {
            findings.warn(format!(
                "tunnel {name}: mtu = {mtu}, but the route to {} has an MTU of {}, which leaves {path_room}",
                config.remote.map_or_else(|| "the far end".into(), |remote| remote.to_string()),
                path.unwrap_or_default()
            ));
            mtu
        }
        (Some(mtu), _) => mtu,
        (None, path_room) => path_room.unwrap_or(room),
    };
    if config.mtu.is_none() && mtu < MIN_MTU {
        let (has, hint) = match path {
            Some(path) => (
                format!("the route has an MTU of {path}, and {} takes {overhead} of it", config.protocol),
                "see `ip route get`: a larger MTU of the route".into(),
            ),
            None => {
                (has, format!("set a larger MTU: ip link set {} mtu {}", config.underlay, overhead + 1500))
            }
        };
        findings.error(
            &config.at,
            format!("tunnel {name}: no room for packets of {MIN_MTU} bytes: {has}"),
            hint,
        );
        return None;
    }
    if mtu < IPV6_MIN_MTU && config.inner.iter().any(|prefix| prefix.addr().is_ipv6()) {
        findings.warn(format!(
            "tunnel {name}: it has room for packets of {mtu} bytes, and IPv6 takes for granted that there is room \
             for {IPV6_MIN_MTU} (RFC 8200): packets in between are lost"
        ));
    }
    Some(mtu)
}
