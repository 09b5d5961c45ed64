//! What the kernel tells of its own accord: devices, addresses, neighbours and routes that come, change or go.
//!
//! One socket hears of the managed namespace and of all those that it has numbers for, which are those with the other
//! ends of its veths (NETLINK_LISTEN_ALL_NSID). A socket of another namespace would keep that alive after its deletion.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::routes::is_usable;
use crate::config::model::Name;
use crate::kernel::{KernelError, refused};
use crate::mac::MacAddr;

/// uapi linux/netlink.h: the control message that says which namespace a message is from.
const NETLINK_LISTEN_ALL_NSID: libc::c_int = 8;
/// What is heard.
const GROUPS: [u32; 6] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
];
/// Room for what comes while nobody listens. What does not fit is told of as lost.
const QUEUE_BYTES: u32 = 1 << 20;
/// The largest message: a device with all of its attributes.
const MESSAGE_BYTES: usize = 64 * 1024;
/// `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;

/// The namespace that an event is from: the number that the managed one has for it. None: the managed one.
pub type Nsid = Option<i32>;

/// Something has changed; what, is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A device.
    Link {
        /// Where.
        nsid: Nsid,
        /// Its index there.
        ifindex: u32,
        /// The name that it has, or had.
        name: Name,
    },
    /// An address of a device.
    Address {
        /// Where.
        nsid: Nsid,
        /// The device's index there.
        ifindex: u32,
    },
    /// A neighbour of the managed namespace has a MAC address.
    Neighbour {
        /// By which device.
        ifindex: u32,
        /// Its address.
        address: IpAddr,
        /// Its MAC address.
        mac: MacAddr,
    },
    /// A route of the managed namespace.
    Route {
        /// Where to.
        to: IpNet,
    },
    /// More happened than could be told.
    Lost,
}

/// A subscription to events.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
    buffer: Vec<u8>,
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Events {
    /// Hears what happens from now on in the calling thread's namespace, the managed one, and those that it can see.
    ///
    /// # Errors
    /// The kernel gives no such socket.
    pub fn subscribe() -> Result<Self, KernelError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            socket.set_rx_buf_sz(QUEUE_BYTES)?;
            // Not granted to everybody; without, other namespaces are looked at with every full pass only.
            let _ = socket.set_listen_all_namespaces(true);
            GROUPS.iter().try_for_each(|group| socket.add_membership(*group))?;
            Ok(Self { socket, buffer: vec![0; MESSAGE_BYTES] })
        };
        open().map_err(|error| refused("cannot listen to rtnetlink", error))
    }

    /// Hands over what has happened, without waiting. `own` is the number that the managed namespace has for itself.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read(&mut self, own: Nsid, mut each: impl FnMut(Event)) -> Result<(), KernelError> {
        loop {
            match receive(&self.socket, &mut self.buffer) {
                Ok(Some((length, nsid))) => {
                    events(&self.buffer[..length], nsid.filter(|_| nsid != own), &mut each);
                }
                Ok(None) => each(Event::Lost),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => each(Event::Lost),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(refused("cannot listen to rtnetlink", error)),
            }
        }
    }
}

/// The bytes of one datagram from the kernel, and where it is from. None: it does not fit.
fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<Option<(usize, Nsid)>> {
    let mut control = [MaybeUninit::<libc::cmsghdr>::zeroed(); 8];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all fields of both may be zero.
    let (mut from, mut message): (libc::sockaddr_nl, libc::msghdr) = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the message names live buffers with their lengths, and the descriptor is open.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    if message.msg_flags & libc::MSG_TRUNC != 0 {
        return Ok(None);
    }
    // Other processes may send to the groups, if they are privileged; nobody but the kernel is to be believed.
    if from.nl_pid != 0 {
        return Ok(Some((0, None)));
    }
    let mut nsid = None;
    // SAFETY: the kernel has filled in the control messages within the length that it has set.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !next.is_null() {
        // SAFETY: it is not null, and so a whole header in `control`, whose alignment is that of a header.
        let header = unsafe { &*next };
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_NETLINK, NETLINK_LISTEN_ALL_NSID) {
            // SAFETY: the data of this kind of message is an int; it need not be aligned.
            nsid = Some(unsafe { libc::CMSG_DATA(next).cast::<libc::c_int>().read_unaligned() });
        }
        // SAFETY: as above.
        next = unsafe { libc::CMSG_NXTHDR(&raw const message, next) };
    }
    Ok(Some((length, nsid)))
}

fn events(mut datagram: &[u8], nsid: Nsid, each: &mut impl FnMut(Event)) {
    while let Some(length) = datagram.first_chunk().map(|length| u32::from_ne_bytes(*length) as usize) {
        let Some(message) = datagram.get(..length).filter(|_| length >= HEADER_BYTES) else { return };
        match NetlinkMessage::deserialize(message).map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(message)) => {
                event(message, nsid).into_iter().for_each(&mut *each)
            }
            Ok(_) => {}
            // What can't be read may be anything.
            Err(_) => each(Event::Lost),
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn event(message: RouteNetlinkMessage, nsid: Nsid) -> Option<Event> {
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => Some(device(&link, nsid)),
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            Some(Event::Address { nsid, ifindex: address.header.index })
        }
        RouteNetlinkMessage::NewNeighbour(entry) if nsid.is_none() => neighbour(&entry),
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) if nsid.is_none() => {
            Some(Event::Route { to: destination(&route)? })
        }
        _ => None,
    }
}

fn device(link: &LinkMessage, nsid: Nsid) -> Event {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    Event::Link { nsid, ifindex: link.header.index, name: name.unwrap_or_default().into() }
}

fn neighbour(entry: &NeighbourMessage) -> Option<Event> {
    let (mut address, mut mac) = (None, None);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some((*v4).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some((*v6).into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(&bytes[..]).ok(),
            _ => {}
        }
    }
    let event = Event::Neighbour { ifindex: entry.header.ifindex, address: address?, mac: MacAddr(mac?) };
    is_usable(entry.header.state).then_some(event)
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let bits = route.header.destination_prefix_length;
    let to = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::from(*v4)),
        RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::from(*v6)),
        _ => None,
    });
    // A default route has no destination.
    let any: IpAddr = match route.header.address_family {
        netlink_packet_route::AddressFamily::Inet => [0; 4].into(),
        netlink_packet_route::AddressFamily::Inet6 => [0; 16].into(),
        _ => return None,
    };
    IpNet::new(to.unwrap_or(any), bits).ok()
}
