//! Routes and neighbours of one namespace.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::links;
use super::netlink::{Connection, errno, unexpected};
use crate::kernel::{KernelError, Route, refused};
use crate::mac::MacAddr;

/// As the trait's `route`.
pub(super) fn route(
    connection: &mut Connection,
    to: IpAddr,
    from: Option<IpAddr>,
    ifindex: u32,
) -> Result<Option<Route>, KernelError> {
    let from_text = from.map(|from| format!(" from {from}")).unwrap_or_default();
    let what = || format!("cannot look up the route to {to}{from_text} by device {ifindex}");
    let Some(from) = from else {
        return match lookup(connection, to, None, ifindex) {
            Err(error) if is_dead_end(&error) => Ok(None),
            answer => answer.map_err(|error| refused(what(), error)),
        };
    };
    let cannot = |error| refused(what(), error);
    let no_such_source = || {
        let hint = format!("{from} must be an address of this machine: `ip address add` gives it one");
        KernelError::new(what(), io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)).hint(hint)
    };
    if from.is_ipv4() != to.is_ipv4() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "one address is IPv4 and the other IPv6");
        return Err(KernelError::new(what(), error));
    }
    if let IpAddr::V6(source) = from {
        // An IPv6 lookup takes any source.
        if !links::has_ipv6(connection, source).map_err(cannot)? {
            return Err(no_such_source());
        }
        let mut answer = lookup(connection, to, Some(from), ifindex);
        if matches!(answer, Ok(None)) {
            // With a source, the device is but a preference; without, only its own routes count.
            answer = lookup(connection, to, None, ifindex);
        }
        return match answer {
            Err(error) if is_dead_end(&error) => Ok(None),
            answer => answer.map_err(cannot).map(|route| route.map(|route| Route { source: from, ..route })),
        };
    }
    match lookup(connection, to, Some(from), ifindex) {
        Ok(Some(route)) => return Ok(Some(route)),
        Err(error) if !is_dead_end(&error) => return Err(cannot(error)),
        _ => {}
    }
    // A source that is nobody's looks like a route that isn't there: EINVAL in older kernels, ENETUNREACH in 6.18.
    if is_own(connection, from, None).map_err(cannot)?
        || is_own(connection, from, Some(ifindex)).map_err(cannot)?
    {
        return Ok(None);
    }
    Err(no_such_source())
}

/// Whether an IPv4 address is one of the namespace's own; with a device, of the VRF that the device is in.
fn is_own(connection: &mut Connection, address: IpAddr, ifindex: Option<u32>) -> io::Result<bool> {
    match ask(connection, address, None, ifindex) {
        Ok(answer) => Ok(answer.is_some_and(|answer| answer.header.kind == RouteType::Local)),
        Err(error) if is_dead_end(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a route says that what it leads to is not to be sent: a blackhole (EINVAL), prohibit, or throw.
fn is_dead_end(error: &io::Error) -> bool {
    matches!(errno(error), Some(libc::EINVAL | libc::EACCES | libc::EAGAIN))
}

/// None: no unicast route by that device.
fn lookup(
    connection: &mut Connection,
    to: IpAddr,
    from: Option<IpAddr>,
    ifindex: u32,
) -> io::Result<Option<Route>> {
    Ok(ask(connection, to, from, Some(ifindex))?.and_then(|answer| parse(&answer, to, from, ifindex)))
}

/// RTM_GETROUTE; None: no way there.
fn ask(
    connection: &mut Connection,
    to: IpAddr,
    from: Option<IpAddr>,
    ifindex: Option<u32>,
) -> io::Result<Option<RouteMessage>> {
    let mut question = RouteMessage::default();
    let header = &mut question.header;
    (header.address_family, header.destination_prefix_length) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    if to.is_ipv4() {
        // Asks for the table in which the route was found; IPv6 tells it unasked.
        header.flags = RouteFlags::LookupTable;
    }
    if let Some(from) = from {
        header.source_prefix_length = header.destination_prefix_length;
        question.attributes.push(RouteAttribute::Source(from.into()));
    }
    question.attributes.push(RouteAttribute::Destination(to.into()));
    question.attributes.extend(ifindex.map(RouteAttribute::Oif));
    match connection.get(RouteNetlinkMessage::GetRoute(question)) {
        Ok(RouteNetlinkMessage::NewRoute(answer)) => Ok(Some(answer)),
        Ok(other) => Err(unexpected(&other)),
        Err(error) => match errno(&error) {
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::ESRCH | libc::ENODEV) => {
                Ok(None)
            }
            _ => Err(error),
        },
    }
}

fn parse(answer: &RouteMessage, to: IpAddr, from: Option<IpAddr>, ifindex: u32) -> Option<Route> {
    if answer.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut source, mut next_hop, mut device, mut table) = (from, to, 0, u32::from(answer.header.table));
    let mut mtu = None;
    for attribute in &answer.attributes {
        match attribute {
            RouteAttribute::Oif(index) => device = *index,
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::PrefSource(address) if from.is_none() => source = ip(address),
            RouteAttribute::Gateway(address) => next_hop = ip(address)?,
            RouteAttribute::Via(RouteVia::Inet(address)) => next_hop = (*address).into(),
            RouteAttribute::Via(RouteVia::Inet6(address)) => next_hop = (*address).into(),
            // What the route says, or what routers on the path have said.
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    // Given a device, IPv4 takes what no route leads to for a neighbour there; such an answer is of no table.
    if device != ifindex || table == 0 {
        return None;
    }
    Some(Route { source: source?, next_hop, mtu })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// A neighbour's state and MAC address; None if the table has no such entry.
fn entry(
    connection: &mut Connection,
    ifindex: u32,
    address: IpAddr,
) -> io::Result<Option<(NeighbourState, Option<MacAddr>)>> {
    let question = neighbour_message(ifindex, address);
    let answer = match connection.get(RouteNetlinkMessage::GetNeighbour(question)) {
        Ok(RouteNetlinkMessage::NewNeighbour(answer)) => answer,
        Ok(other) => return Err(unexpected(&other)),
        Err(error) if matches!(errno(&error), Some(libc::ENOENT | libc::ENODEV)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mac = answer.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(&bytes[..]).ok().map(MacAddr),
        _ => None,
    });
    Ok(Some((answer.header.state, mac)))
}

/// As the trait's `neighbour`.
pub(super) fn neighbour(
    connection: &mut Connection,
    ifindex: u32,
    address: IpAddr,
) -> io::Result<Option<MacAddr>> {
    Ok(entry(connection, ifindex, address)?.and_then(|(state, mac)| mac.filter(|_| is_usable(state))))
}

pub(super) fn is_usable(state: NeighbourState) -> bool {
    matches!(
        state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    )
}

/// Has the kernel resolve a neighbour, unless there is nothing to resolve.
pub(super) fn solicit(connection: &mut Connection, ifindex: u32, address: IpAddr) -> io::Result<()> {
    // NTF_USE would turn a permanent entry into one that has to be resolved.
    if let Some((NeighbourState::Permanent | NeighbourState::Noarp | NeighbourState::Reachable, _)) =
        entry(connection, ifindex, address)?
    {
        return Ok(());
    }
    let mut request = neighbour_message(ifindex, address);
    request.header.flags = NeighbourFlags::Use;
    request.header.state = NeighbourState::None;
    connection.change(RouteNetlinkMessage::NewNeighbour(request), NLM_F_CREATE)
}

fn neighbour_message(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: RouteType, table: u8) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = kind;
        message.header.table = table;
        message.attributes = vec![
            RouteAttribute::Oif(7),
            RouteAttribute::PrefSource(RouteAddress::Inet([10, 0, 0, 1].into())),
            RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap())),
        ];
        message
    }

    #[test]
    fn what_counts_as_a_route() {
        let to = IpAddr::from([192, 0, 2, 1]);
        let found = Route { source: [10, 0, 0, 1].into(), next_hop: "fe80::1".parse().unwrap(), mtu: None };
        assert_eq!(parse(&answer(RouteType::Unicast, 254), to, None, 7), Some(found));
        let mut limited = answer(RouteType::Unicast, 254);
        limited.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Lock(4), RouteMetric::Mtu(1400)]));
        assert_eq!(parse(&limited, to, None, 7), Some(Route { mtu: Some(1400), ..found }));
        assert_eq!(parse(&answer(RouteType::Unicast, 254), to, None, 8), None);
        assert_eq!(parse(&answer(RouteType::Unicast, 0), to, None, 7), None);
        assert_eq!(parse(&answer(RouteType::Local, 255), to, None, 7), None);
        let from = IpAddr::from([10, 0, 0, 9]);
        let given = parse(&answer(RouteType::Unicast, 254), to, Some(from), 7).unwrap();
        assert_eq!(given.source, from);
    }
}
