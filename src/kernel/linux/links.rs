//! Devices and their addresses, as rtnetlink tells of them.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
    XdpAttached,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::{Connection, errno, unexpected};
use crate::config::model::Mode;
use crate::kernel::{AttachedXdp, Link};
use crate::mac::MacAddr;

/// IFNAMSIZ without the closing zero.
const NAME_BYTES: usize = 15;

/// A device by its own name: alternative names don't count, since a name is an identity.
pub(super) fn by_name(connection: &mut Connection, name: &str) -> io::Result<Option<Link>> {
    message_by_name(connection, name)?.map(parse).transpose()
}

/// A device by index.
pub(super) fn by_index(connection: &mut Connection, ifindex: u32) -> io::Result<Option<Link>> {
    if ifindex == 0 {
        return Ok(None);
    }
    let mut question = LinkMessage::default();
    question.header.index = ifindex;
    ask(connection, question)?.map(parse).transpose()
}

/// All devices.
pub(super) fn all(connection: &mut Connection) -> io::Result<Vec<Link>> {
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let answers = connection.dump(&RouteNetlinkMessage::GetLink(question))?;
    answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(parse(message)),
            _ => None,
        })
        .collect()
}

/// A device by its own name, with all that the kernel tells.
pub(super) fn message_by_name(connection: &mut Connection, name: &str) -> io::Result<Option<LinkMessage>> {
    // The kernel's complaint about such a name would be of its length, not of its absence.
    if name.is_empty() || name.len() > NAME_BYTES || name.contains(['\0', '/']) {
        return Ok(None);
    }
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::IfName(name.into()));
    let is_name = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::IfName(own) if own == name);
    Ok(ask(connection, question)?.filter(|message| message.attributes.iter().any(is_name)))
}

/// Changes a device: `message` has its index and what is to change.
pub(super) fn change(connection: &mut Connection, message: LinkMessage) -> io::Result<()> {
    connection.change(RouteNetlinkMessage::NewLink(message), 0)
}

fn ask(connection: &mut Connection, mut question: LinkMessage) -> io::Result<Option<LinkMessage>> {
    // Without statistics and virtual functions an answer is a page instead of many.
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    match connection.get(RouteNetlinkMessage::GetLink(question)) {
        Ok(RouteNetlinkMessage::NewLink(message)) => Ok(Some(message)),
        Ok(other) => Err(unexpected(&other)),
        Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(message: LinkMessage) -> io::Result<Link> {
    let mut link = Link {
        name: "".into(),
        ifindex: message.header.index,
        kind: None,
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        xdp: None,
        peer_ifindex: None,
        peer_nsid: None,
    };
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name.into(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(address) if ethernet => {
                link.mac = <[u8; 6]>::try_from(address).ok().map(MacAddr);
            }
            LinkAttribute::LinkInfo(infos) => link.kind = kind(&infos),
            LinkAttribute::Xdp(attributes) => link.xdp = xdp(&attributes),
            LinkAttribute::Link(ifindex) if ifindex != 0 => link.peer_ifindex = Some(ifindex),
            LinkAttribute::LinkNetNsId(nsid) => link.peer_nsid = Some(nsid),
            _ => {}
        }
    }
    if link.name.is_empty() {
        return Err(unexpected(&link));
    }
    if link.kind.as_deref() != Some("veth") {
        // For others IFLA_LINK is the device below, not the other end.
        (link.peer_ifindex, link.peer_nsid) = (None, None);
    }
    Ok(link)
}

fn kind(infos: &[LinkInfo]) -> Option<std::sync::Arc<str>> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(InfoKind::Veth) => Some("veth".into()),
        LinkInfo::Kind(kind) => Some(kind.to_string().into()),
        _ => None,
    })
}

fn xdp(attributes: &[LinkXdp]) -> Option<AttachedXdp> {
    let attached = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(attached) => Some(*attached),
        _ => None,
    })?;
    // In the order in which they are told of when there are several.
    let in_mode = |mode| {
        let program_id = attributes.iter().find_map(|attribute| match (attribute, mode) {
            (LinkXdp::DrvProgId(id), Mode::Native)
            | (LinkXdp::HwProgId(id), Mode::Offload)
            | (LinkXdp::SkbProgId(id), Mode::Generic) => Some(*id),
            _ => None,
        })?;
        Some(AttachedXdp { program_id, mode })
    };
    let only = |mode| {
        let id = attributes.iter().find_map(|attribute| match attribute {
            LinkXdp::ProgId(id) => Some(*id),
            _ => None,
        });
        id.map(|program_id| AttachedXdp { program_id, mode }).or_else(|| in_mode(mode))
    };
    match attached {
        XdpAttached::Driver => only(Mode::Native),
        XdpAttached::SocketBuffer => only(Mode::Generic),
        XdpAttached::Hardware => only(Mode::Offload),
        XdpAttached::Multiple => [Mode::Native, Mode::Offload, Mode::Generic].into_iter().find_map(in_mode),
        _ => None,
    }
}

/// A device's addresses, sorted; none if there is no such device.
pub(super) fn addresses(connection: &mut Connection, ifindex: u32) -> io::Result<Vec<IpNet>> {
    if ifindex == 0 {
        return Ok(Vec::new());
    }
    let mut question = AddressMessage::default();
    question.header.index = ifindex;
    let answers = match connection.dump(&RouteNetlinkMessage::GetAddress(question)) {
        Ok(answers) => answers,
        Err(error) if errno(&error) == Some(libc::ENODEV) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut addresses: Vec<IpNet> = answers
        .iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) if message.header.index == ifindex => address(message),
            _ => None,
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

fn address(message: &AddressMessage) -> Option<IpNet> {
    let (mut local, mut far) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Flags(all) => flags = *all,
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => far = Some(*address),
            _ => {}
        }
    }
    let address = local.or(far)?;
    if let IpAddr::V6(v6) = address {
        let is_unsure = flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
            && !flags.contains(AddressFlags::Optimistic);
        // Of an IPv6 address, the flag of a secondary one says that it is temporary (RFC 8981).
        let is_past = flags.contains(AddressFlags::Secondary | AddressFlags::Deprecated);
        if v6.is_unicast_link_local() || is_unsure || is_past {
            return None;
        }
    }
    if far.is_some_and(|far| far != address) {
        // Point-to-point: the prefix length is that of the far end.
        return Some(address.into());
    }
    IpNet::new(address, message.header.prefix_len).ok()
}

/// Whether an IPv6 address is one of the namespace's own.
pub(super) fn has_ipv6(connection: &mut Connection, address: Ipv6Addr) -> io::Result<bool> {
    let mut question = AddressMessage::default();
    question.header.family = AddressFamily::Inet6;
    question.attributes.push(AddressAttribute::Address(address.into()));
    match connection.get(RouteNetlinkMessage::GetAddress(question)) {
        Ok(_) => Ok(true),
        Err(error) if errno(&error) == Some(libc::EADDRNOTAVAIL) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached(mode: XdpAttached, more: &[LinkXdp]) -> Option<AttachedXdp> {
        let mut attributes = vec![LinkXdp::Attached(mode)];
        attributes.extend_from_slice(more);
        xdp(&attributes)
    }

    #[test]
    fn xdp_modes() {
        assert_eq!(xdp(&[]), None);
        assert_eq!(attached(XdpAttached::None, &[]), None);
        assert_eq!(
            attached(XdpAttached::SocketBuffer, &[LinkXdp::ProgId(3), LinkXdp::SkbProgId(3)]),
            Some(AttachedXdp { program_id: 3, mode: Mode::Generic })
        );
        assert_eq!(
            attached(XdpAttached::Multiple, &[LinkXdp::SkbProgId(3), LinkXdp::DrvProgId(4)]),
            Some(AttachedXdp { program_id: 4, mode: Mode::Native })
        );
        assert_eq!(
            attached(XdpAttached::Multiple, &[LinkXdp::SkbProgId(3), LinkXdp::HwProgId(5)]),
            Some(AttachedXdp { program_id: 5, mode: Mode::Offload })
        );
    }

    #[test]
    fn ipv6_addresses_that_can_be_used() {
        let usable = |text: &str, flags: AddressFlags| {
            let mut message = AddressMessage::default();
            message.header.prefix_len = 24;
            message.attributes.push(AddressAttribute::Address(text.parse().unwrap()));
            message.attributes.push(AddressAttribute::Flags(flags));
            address(&message).is_some()
        };
        let (temporary, deprecated) = (AddressFlags::Secondary, AddressFlags::Deprecated);
        assert!(usable("2001:db8::1", AddressFlags::Permanent));
        assert!(usable("fd00::1", temporary));
        assert!(usable("fd00::1", deprecated));
        assert!(!usable("fd00::1", temporary | deprecated));
        assert!(!usable("fd00::1", AddressFlags::Tentative));
        assert!(usable("fd00::1", AddressFlags::Tentative | AddressFlags::Optimistic));
        assert!(!usable("fd00::1", AddressFlags::Permanent | AddressFlags::Dadfailed));
        assert!(!usable("fe80::1", AddressFlags::Permanent));
        assert!(usable("192.0.2.1", temporary | deprecated), "of IPv4, the flags mean something else");
    }

    #[test]
    fn a_point_to_point_address_is_a_host() {
        let mut message = AddressMessage::default();
        message.header.prefix_len = 24;
        message.attributes.push(AddressAttribute::Address("10.0.1.1".parse().unwrap()));
        message.attributes.push(AddressAttribute::Local("10.0.0.1".parse().unwrap()));
        assert_eq!(address(&message), Some("10.0.0.1/32".parse().unwrap()));
    }
}
