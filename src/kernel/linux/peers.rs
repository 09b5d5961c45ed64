//! The other end of a veth, wherever it is.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::time::SystemTime;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use super::links;
use super::netlink::{Connection, unexpected};
use super::netns::{NAMED, NetnsFile, others};
use super::sockets::Sockets;
use crate::config::model::NetnsRef;
use crate::kernel::{KernelError, Link, Netns, refused};

/// Where the namespaces are to which the managed one gave numbers. Names only, which are looked at again at each use:
/// an open file would keep a dead namespace from going away.
#[derive(Debug, Default)]
pub(super) struct Peers {
    by_nsid: HashMap<i32, NetnsRef>,
    /// When /run/netns last changed, as of the last scan.
    named_at: Option<SystemTime>,
}

impl Peers {
    /// As the trait's `find_peer`; `home` is the managed namespace, `managed` a socket of it, and `sockets` those of others.
    pub(super) fn find(
        &mut self,
        managed: &mut Connection,
        sockets: &mut Sockets,
        home: &NetnsFile,
        link: &Link,
    ) -> Result<Option<(Netns, Link)>, KernelError> {
        let (Some("veth"), Some(ifindex)) = (link.kind.as_deref(), link.peer_ifindex) else {
            return Ok(None);
        };
        let cannot_find = |error| refused(format!("cannot find the other end of {}", link.name), error);
        let Some(nsid) = link.peer_nsid else {
            let peer = links::by_index(managed, ifindex).map_err(cannot_find)?;
            return Ok(peer.filter(|peer| are_a_pair(peer, link)).map(|peer| (None, peer)));
        };
        // A namespace that has got a name meanwhile is called by it.
        if self.named_at != named_at() {
            self.by_nsid.clear();
        }
        if let Some(found) = self.look(managed, sockets, home, nsid, link)? {
            return Ok(Some(found));
        }
        self.scan(managed, home).map_err(cannot_find)?;
        self.look(managed, sockets, home, nsid, link)
    }

    /// Looks where the namespace was last seen.
    fn look(
        &self,
        managed: &mut Connection,
        sockets: &mut Sockets,
        home: &NetnsFile,
        nsid: i32,
        link: &Link,
    ) -> Result<Option<(Netns, Link)>, KernelError> {
        let (Some(reference), Some(ifindex)) = (self.by_nsid.get(&nsid), link.peer_ifindex) else {
            return Ok(None);
        };
        let Ok(netns) = NetnsFile::open(&reference.path()) else {
            return Ok(None);
        };
        if nsid_of(managed, &netns).ok().flatten() != Some(nsid) {
            return Ok(None);
        }
        let cannot_look =
            |error| refused(format!("cannot look for the other end of {} in {reference}", link.name), error);
        // The name may have become the managed namespace's own meanwhile, or another's: then the two are no pair.
        let Some(inside) = sockets.of(reference, home)? else { return Ok(None) };
        let peer = links::by_index(inside, ifindex).map_err(cannot_look)?;
        Ok(peer.filter(|peer| are_a_pair(peer, link)).map(|peer| (Some(reference.clone()), peer)))
    }

    /// Goes through all namespaces that can be seen.
    fn scan(&mut self, managed: &mut Connection, home: &NetnsFile) -> io::Result<()> {
        self.by_nsid.clear();
        self.named_at = named_at();
        for reference in others(home) {
            self.note(managed, reference)?;
        }
        Ok(())
    }

    /// Notes which number the managed namespace gave to another, if any.
    fn note(&mut self, managed: &mut Connection, reference: NetnsRef) -> io::Result<()> {
        if let Ok(netns) = NetnsFile::open(&reference.path())
            && let Some(nsid) = nsid_of(managed, &netns)?
        {
            self.by_nsid.entry(nsid).or_insert(reference);
        }
        Ok(())
    }
}

/// Whether two devices name each other. Indices are per namespace: the caller knows that the namespaces are right.
fn are_a_pair(one: &Link, other: &Link) -> bool {
    one.kind.as_deref() == Some("veth")
        && one.peer_ifindex == Some(other.ifindex)
        && other.peer_ifindex == Some(one.ifindex)
        && one.peer_nsid.is_some() == other.peer_nsid.is_some()
}

/// RTM_GETNSID: the number that the managed namespace gave to another. None: it gave none, or the file is no
/// namespace's.
pub(super) fn nsid_of(managed: &mut Connection, netns: &NetnsFile) -> io::Result<Option<i32>> {
    let mut question = NsidMessage::default();
    let descriptor = u32::try_from(netns.file().as_raw_fd()).map_err(io::Error::other)?;
    question.attributes.push(NsidAttribute::Fd(descriptor));
    let answer = match managed.get(RouteNetlinkMessage::GetNsId(question)) {
        Ok(RouteNetlinkMessage::NewNsId(answer)) => answer,
        Ok(other) => return Err(unexpected(&other)),
        Err(error) if super::netlink::errno(&error) == Some(libc::EINVAL) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(answer.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(nsid) if *nsid >= 0 => Some(*nsid),
        _ => None,
    }))
}

fn named_at() -> Option<SystemTime> {
    fs::metadata(NAMED).ok()?.modified().ok()
}
