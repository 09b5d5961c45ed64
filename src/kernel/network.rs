//! The network half of the boundary: links, addresses, routes, neighbours, and the settings of devices.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::KernelError;
use crate::config::model::{Mode, Name, NetnsRef};
use crate::mac::MacAddr;

/// A network namespace: None is the one that mptm manages.
pub type Netns = Option<NetnsRef>;

/// What mptm asks of the kernel's network side. Questions don't change anything; only `solicit` and `set` do.
pub trait Network {
    /// A device by name; None if there is none of that name. Alternative names don't count: a name is an identity.
    ///
    /// # Errors
    /// The namespace can't be entered, or the kernel refuses the question.
    fn link(&self, netns: &Netns, name: &str) -> Result<Option<Link>, KernelError>;

    /// All devices of the managed namespace.
    ///
    /// # Errors
    /// The kernel refuses the question.
    fn links(&self) -> Result<Vec<Link>, KernelError>;

    /// A device by index; None if there is none.
    ///
    /// # Errors
    /// As for `link`.
    fn link_at(&self, netns: &Netns, ifindex: u32) -> Result<Option<Link>, KernelError>;

    /// The addresses of a device, with their host bits and prefix lengths, sorted; without IPv6 ones that are
    /// link-local, not known to be unique yet, or temporary and no longer used for anything new. A point-to-point
    /// address counts as a single host. None at all if there is no such device.
    ///
    /// # Errors
    /// As for `link`.
    fn addresses(&self, netns: &Netns, ifindex: u32) -> Result<Vec<IpNet>, KernelError>;

    /// The other end of a veth of the managed namespace, as `link` says where it is: None if the device is no veth or
    /// its other end is in no namespace that can be found. Looks at the managed namespace itself, /run/netns in the
    /// order of names, then /proc in the order of process ids.
    ///
    /// # Errors
    /// The kernel refuses a question, or the other end's namespace was found and can't be entered.
    fn find_peer(&self, link: &Link) -> Result<Option<(Netns, Link)>, KernelError>;

    /// How the managed namespace would send to `to`, from `from` if given, by device `ifindex` and no other: as a socket
    /// bound to the device would. None: it can't, because no unicast route leads there by that device, because the
    /// device is down or gone, or because it has no source address to give. That `to` is the namespace's own
    /// address, or a broadcast or multicast one, is no way out of it either.
    ///
    /// # Errors
    /// `from` is no address of the managed namespace, or not of `to`'s family; the kernel refuses the question for
    /// another reason than that there is no route.
    fn route(&self, to: IpAddr, from: Option<IpAddr>, ifindex: u32) -> Result<Option<Route>, KernelError>;

    /// The MAC address of a neighbour of the managed namespace, if the table has one that is usable (reachable, stale,
    /// delay, probe, permanent or noarp). None too if there is no such device.
    ///
    /// # Errors
    /// The kernel refuses the question.
    fn neighbour(&self, ifindex: u32, address: IpAddr) -> Result<Option<MacAddr>, KernelError>;

    /// Asks the kernel to resolve these neighbours of the managed namespace (NTF_USE), and returns at once. Entries that
    /// are permanent, noarp or reachable stay as they are.
    ///
    /// # Errors
    /// The kernel refuses: the first refusal, after all have been asked for.
    fn solicit(&self, neighbours: &[(u32, IpAddr)]) -> Result<(), KernelError>;

    /// The ethtool features of a device, by their names (`tx-checksum-ip-generic`, `rx-gro`, ...).
    ///
    /// # Errors
    /// As for `link`; also when the device is gone.
    fn features(&self, netns: &Netns, device: &str) -> Result<BTreeMap<String, Feature>, KernelError>;

    /// The value of a setting, as a number: a flag is 0 or 1.
    ///
    /// # Errors
    /// As for `link`; also when the device is gone or has no such setting.
    fn setting(&self, netns: &Netns, device: &str, setting: &Setting) -> Result<u64, KernelError>;

    /// Changes a setting; of a flag, every value but 0 is on.
    ///
    /// # Errors
    /// The kernel refuses, or accepts and does not do it: the setting is read back.
    fn set(&mut self, netns: &Netns, device: &str, setting: &Setting, value: u64) -> Result<(), KernelError>;

    /// A number that this boot gives to no other network namespace (SO_NETNS_COOKIE).
    ///
    /// # Errors
    /// As for `link`.
    fn netns_cookie(&self, netns: &Netns) -> Result<u64, KernelError>;

    /// The namespace that has a cookie, wherever it is now: None if it is gone, or can't be found. Looks where
    /// `find_peer` looks; what was seen there less than a second ago need not be looked at again.
    ///
    /// # Errors
    /// The kernel doesn't tell the managed namespace's own cookie.
    fn find_netns(&self, cookie: u64) -> Result<Option<Netns>, KernelError>;

    /// Closes what is kept open of other namespaces for the questions to come. It keeps a namespace alive, and the devices in
    /// it, when others delete it: so whoever is about to wait lets go first.
    fn let_go(&self) {}
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: Name,
    /// Its index in its namespace; from 1.
    pub ifindex: u32,
    /// IFLA_INFO_KIND: `veth`, `bridge`, `vxlan`; None for hardware.
    pub kind: Option<Arc<str>>,
    /// Its MAC address, if it is an Ethernet device.
    pub mac: Option<MacAddr>,
    /// Bytes of the largest packet, without the Ethernet header.
    pub mtu: u32,
    /// IFF_UP.
    pub up: bool,
    /// The XDP program that is attached to it.
    pub xdp: Option<AttachedXdp>,
    /// veth: the other end's index (IFLA_LINK).
    pub peer_ifindex: Option<u32>,
    /// veth: the number that this namespace gave to the other end's (IFLA_LINK_NETNSID); None: the same namespace.
    pub peer_nsid: Option<i32>,
}

/// An XDP program on a device, as netlink tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedXdp {
    /// The BPF program's id.
    pub program_id: u32,
    /// Where it runs.
    pub mode: Mode,
}

/// The way to an outer destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The source address that the kernel would choose (or was given).
    pub source: IpAddr,
    /// Whose MAC address the frame needs: the gateway, or the destination itself.
    pub next_hop: IpAddr,
    /// The largest packet that gets there, where the route or the path says less than the device: bytes.
    pub mtu: Option<u32>,
}

/// An ethtool feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// On now.
    pub active: bool,
    /// Can be turned on and off.
    pub changeable: bool,
}

/// Something of a device that mptm may change, and puts back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// Its MTU, in bytes.
    Mtu,
    /// IFF_PROMISC.
    Promisc,
    /// An ethtool feature by name.
    Feature(Arc<str>),
    /// net.ipv4.conf.DEVICE.NAME.
    Sysctl(Arc<str>),
    /// net.ipv6.conf.DEVICE.NAME.
    Sysctl6(Arc<str>),
}

impl Setting {
    /// How the `saved` map names it: at most 40 bytes.
    pub fn key(&self) -> String {
        match self {
            Self::Mtu => "mtu".into(),
            Self::Promisc => "promisc".into(),
            Self::Feature(name) => name.to_string(),
            Self::Sysctl(name) => format!("sysctl:{name}"),
            Self::Sysctl6(name) => format!("sysctl6:{name}"),
        }
    }

    /// The reverse of `key`.
    pub fn from_key(key: &str) -> Self {
        match key {
            "mtu" => Self::Mtu,
            "promisc" => Self::Promisc,
            key => match key.split_once(':') {
                Some(("sysctl", name)) => Self::Sysctl(name.into()),
                Some(("sysctl6", name)) => Self::Sysctl6(name.into()),
                _ => Self::Feature(key.into()),
            },
        }
    }

    /// A value of it, as a person would write it.
    pub fn show(&self, value: u64) -> String {
        match self {
            Self::Mtu | Self::Sysctl(_) | Self::Sysctl6(_) => value.to_string(),
            Self::Promisc | Self::Feature(_) => if value == 0 { "off" } else { "on" }.into(),
        }
    }
}
