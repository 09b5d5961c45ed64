//! The real network: rtnetlink, ethtool and sysctls, of this and other namespaces.
//!
//! Of another namespace a socket is kept between questions, until `let_go`: a socket keeps a deleted namespace alive, with
//! the veths in it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::lock::Holder;
use super::netlink::{Connection, errno};
use super::netns::{NetnsFile, NetnsLock, cannot_enter, others};
use super::peers::Peers;
use super::sockets::{self, Sockets};
use super::{ethtool, links, peers, routes, settings};
use crate::config::model::NetnsRef;
use crate::kernel::{Feature, KernelError, Link, Netns, Network, Route, Setting, refused};
use crate::mac::MacAddr;

/// The kernel that this process runs on. The managed namespace is the one in which it was made.
#[derive(Debug)]
pub struct LinuxNetwork {
    home: NetnsFile,
    managed: Mutex<Connection>,
    others: Mutex<Sockets>,
    peers: Mutex<Peers>,
    cookies: Mutex<Option<Cookies>>,
}

/// Where the namespaces were when all were last looked at, by cookie.
#[derive(Debug)]
struct Cookies {
    at: Instant,
    places: HashMap<u64, NetnsRef>,
}

/// For how long it holds that a namespace was found nowhere: a thousand that are gone must not take a thousand searches.
const GONE_FOR: Duration = Duration::from_secs(1);

impl LinuxNetwork {
    /// Manages the calling thread's network namespace, whichever thread asks later.
    ///
    /// # Errors
    /// The kernel gives no rtnetlink socket, or /proc is not mounted.
    pub fn new() -> Result<Self, KernelError> {
        let cannot = |error| refused("cannot open the network namespace of this process", error);
        let home = NetnsFile::own().map_err(cannot)?;
        let managed =
            Connection::open().map_err(|error| refused("cannot open an rtnetlink socket", error))?;
        Ok(Self {
            home,
            managed: Mutex::new(managed),
            others: Mutex::default(),
            peers: Mutex::default(),
            cookies: Mutex::default(),
        })
    }

    /// Lets no other mptm change anything in the managed namespace, once those that do are done. Two that change the same
    /// maps at once would give one number to two names, and undo each other's steps. `busy` is told whom it waits for.
    ///
    /// # Errors
    /// Others are at it for longer than `wait`.
    pub fn lock(&self, wait: Duration, mut busy: impl FnMut(&Holder)) -> Result<NetnsLock, KernelError> {
        let mut last = None;
        let locked = self.home.lock(wait, |holder| {
            busy(holder);
            last = Some(holder.clone());
        });
        match locked {
            Ok(Some(lock)) => Ok(lock),
            Ok(None) => {
                let who = last.map_or_else(String::new, |holder| format!(": {holder}"));
                let what = format!("another mptm is changing this network namespace{who}");
                Err(KernelError::plain(what).hint("try again when it is done; --wait SECONDS waits longer"))
            }
            Err(error) => {
                Err(KernelError::new("cannot lock the network namespace against another mptm", error))
            }
        }
    }

    /// The number that the managed namespace has for itself, if it has one: events of its own may bear it.
    ///
    /// # Errors
    /// The kernel refuses the question.
    pub fn own_nsid(&self) -> Result<Option<i32>, KernelError> {
        peers::nsid_of(&mut self.managed(), &self.home)
            .map_err(|error| refused("cannot read the number of the network namespace", error))
    }

    fn managed(&self) -> MutexGuard<'_, Connection> {
        // A question that panicked leaves nothing but an answer that the next one passes over.
        self.managed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn others(&self) -> MutexGuard<'_, Sockets> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the file of another namespace; None if it is the managed one.
    fn other(&self, netns: &Netns) -> Result<Option<NetnsFile>, KernelError> {
        let Some(reference) = netns else { return Ok(None) };
        let file = NetnsFile::open(&reference.path()).map_err(|error| cannot_enter(reference, error))?;
        Ok((file.id() != self.home.id()).then_some(file))
    }

    /// Asks something of a namespace by a socket of it; `what` is what can't be done if the kernel refuses.
    fn ask<T>(
        &self,
        netns: &Netns,
        what: impl Fn() -> String,
        question: impl FnOnce(&mut Connection) -> io::Result<T>,
    ) -> Result<T, KernelError> {
        let cannot = |error| refused(what() + &in_netns(netns), error);
        if let Some(reference) = netns
            && let Some(inside) = self.others().of(reference, &self.home)?
        {
            return question(inside).map_err(cannot);
        }
        question(&mut self.managed()).map_err(cannot)
    }

    /// The cookie of a namespace that may be a stranger's: no socket of it is kept.
    fn cookie_of(&self, reference: &NetnsRef) -> Result<u64, KernelError> {
        let netns = NetnsFile::open(&reference.path()).map_err(|error| cannot_enter(reference, error))?;
        let socket = sockets::open(&netns, reference)?;
        cookie(&socket).map_err(|error| refused(NO_COOKIE, error))
    }

    /// Does something inside a namespace, on whatever thread.
    fn inside<T: Send>(
        &self,
        netns: &Netns,
        what: impl Fn() -> String,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> Result<T, KernelError> {
        let other = self.other(netns)?;
        let done = other.as_ref().unwrap_or(&self.home).run(work).map_err(|error| match netns {
            Some(reference) => cannot_enter(reference, error),
            None => refused("cannot enter the managed network namespace", error),
        })?;
        done.map_err(|error| refused(what() + &in_netns(netns), error))
    }
}

impl Network for LinuxNetwork {
    fn link(&self, netns: &Netns, name: &str) -> Result<Option<Link>, KernelError> {
        self.ask(netns, || format!("cannot look up device {name}"), |inside| links::by_name(inside, name))
    }

    fn link_at(&self, netns: &Netns, ifindex: u32) -> Result<Option<Link>, KernelError> {
        self.ask(
            netns,
            || format!("cannot look up device {ifindex}"),
            |inside| links::by_index(inside, ifindex),
        )
    }

    fn links(&self) -> Result<Vec<Link>, KernelError> {
        links::all(&mut self.managed()).map_err(|error| refused("cannot list the devices", error))
    }

    fn addresses(&self, netns: &Netns, ifindex: u32) -> Result<Vec<IpNet>, KernelError> {
        let what = || format!("cannot list the addresses of device {ifindex}");
        self.ask(netns, what, |inside| links::addresses(inside, ifindex))
    }

    fn find_peer(&self, link: &Link) -> Result<Option<(Netns, Link)>, KernelError> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.find(&mut self.managed(), &mut self.others(), &self.home, link)
    }

    fn route(&self, to: IpAddr, from: Option<IpAddr>, ifindex: u32) -> Result<Option<Route>, KernelError> {
        routes::route(&mut self.managed(), to, from, ifindex)
    }

    fn neighbour(&self, ifindex: u32, address: IpAddr) -> Result<Option<MacAddr>, KernelError> {
        routes::neighbour(&mut self.managed(), ifindex, address).map_err(|error| {
            refused(format!("cannot look up neighbour {address} of device {ifindex}"), error)
        })
    }

    fn solicit(&self, neighbours: &[(u32, IpAddr)]) -> Result<(), KernelError> {
        let mut managed = self.managed();
        let mut first = Ok(());
        for &(ifindex, address) in neighbours {
            if let Err(error) = routes::solicit(&mut managed, ifindex, address) {
                let full = errno(&error) == Some(libc::ENOBUFS);
                let mut failed =
                    refused(format!("cannot resolve neighbour {address} of device {ifindex}"), error);
                if full {
                    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
                    failed = failed.hint(format!(
                        "the neighbour table is full: raise net.{family}.neigh.default.gc_thresh3"
                    ));
                }
                first = first.and(Err(failed));
            }
        }
        first
    }

    fn features(&self, netns: &Netns, device: &str) -> Result<BTreeMap<String, Feature>, KernelError> {
        let what = || format!("cannot list the features of {device}");
        self.ask(netns, what, |inside| ethtool::features(inside, device))
    }

    fn setting(&self, netns: &Netns, device: &str, setting: &Setting) -> Result<u64, KernelError> {
        let what = || format!("cannot read {} of {device}", settings::noun(setting));
        match setting {
            Setting::Mtu => self.ask(netns, what, |inside| settings::mtu(inside, device)),
            Setting::Promisc => self.ask(netns, what, |inside| settings::promisc(inside, device)),
            Setting::Feature(name) => self.ask(netns, what, |inside| settings::feature(inside, device, name)),
            Setting::Sysctl(name) => self.inside(netns, what, || settings::sysctl("ipv4", device, name)),
            Setting::Sysctl6(name) => self.inside(netns, what, || settings::sysctl("ipv6", device, name)),
        }
    }

    fn set(&mut self, netns: &Netns, device: &str, setting: &Setting, value: u64) -> Result<(), KernelError> {
        let what =
            || format!("cannot set {} of {device} to {}", settings::noun(setting), setting.show(value));
        let on = value != 0;
        match setting {
            Setting::Mtu => self.ask(netns, what, |inside| settings::set_mtu(inside, device, value)),
            Setting::Promisc => self.ask(netns, what, |inside| settings::set_promisc(inside, device, on)),
            Setting::Feature(name) => {
                self.ask(netns, what, |inside| ethtool::set_feature(inside, device, name, on))
            }
            Setting::Sysctl(name) => {
                self.inside(netns, what, || settings::set_sysctl("ipv4", device, name, value))
            }
            Setting::Sysctl6(name) => {
                self.inside(netns, what, || settings::set_sysctl("ipv6", device, name, value))
            }
        }
    }

    fn netns_cookie(&self, netns: &Netns) -> Result<u64, KernelError> {
        self.ask(netns, || NO_COOKIE.into(), |inside| cookie(inside))
    }

    fn find_netns(&self, cookie: u64) -> Result<Option<Netns>, KernelError> {
        if self.netns_cookie(&None)? == cookie {
            return Ok(Some(None));
        }
        let mut cookies = self.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = cookies.as_ref().filter(|seen| seen.at.elapsed() < GONE_FOR) {
            let Some(reference) = seen.places.get(&cookie) else { return Ok(None) };
            if self.cookie_of(reference).is_ok_and(|now| now == cookie) {
                return Ok(Some(Some(reference.clone())));
            }
        }
        let mut seen = Cookies { at: Instant::now(), places: HashMap::new() };
        for reference in others(&self.home) {
            // What vanishes meanwhile, or may not be entered, is passed over.
            if let Ok(cookie) = self.cookie_of(&reference) {
                seen.places.entry(cookie).or_insert(reference);
            }
        }
        Ok(cookies.insert(seen).places.get(&cookie).cloned().map(Some))
    }

    fn let_go(&self) {
        self.others().close();
    }
}

const NO_COOKIE: &str = "cannot read the cookie of the network namespace";

/// What to append to an error about a device of another namespace.
fn in_netns(netns: &Netns) -> String {
    netns.as_ref().map(|reference| format!(" in network namespace {reference}")).unwrap_or_default()
}

/// SO_NETNS_COOKIE of a socket.
fn cookie(socket: &impl AsFd) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes `length` bytes at most to `cookie`, which has as many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}
