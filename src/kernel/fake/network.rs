//! The network half of the fake.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Device, Fake, Namespace, World};
use crate::kernel::{Feature, KernelError, Link, Netns, Network, Route, Setting};
use crate::mac::MacAddr;

fn refused(what: impl Into<String>, code: i32) -> KernelError {
    KernelError::new(what, io::Error::from_raw_os_error(code))
}

impl World {
    /// The place of a namespace.
    fn place(&self, netns: &Netns) -> Result<usize, KernelError> {
        let Some(reference) = netns else { return Ok(0) };
        let is_it = |namespace: &Namespace| namespace.references.contains(reference);
        self.namespaces.iter().position(is_it).ok_or_else(|| {
            refused(format!("cannot enter network namespace {reference}"), libc::ENOENT)
                .hint("`ip netns list` shows those that there are")
        })
    }

    fn find(&self, netns: &Netns, name: &str) -> Result<Option<(usize, u32, &Device)>, KernelError> {
        let place = self.place(netns)?;
        let mut devices = self.namespaces[place].devices.iter();
        let found = devices.find(|(_, device)| &*device.name == name);
        Ok(found.map(|(ifindex, device)| (place, *ifindex, device)))
    }
}

/// A setting that is a sysctl.
fn sysctl<'a>(namespace: &'a mut Namespace, device: &str, setting: &Setting) -> Option<&'a mut u64> {
    let name = match setting {
        Setting::Sysctl(name) => name.to_string(),
        Setting::Sysctl6(name) => format!("ipv6:{name}"),
        _ => return None,
    };
    if device == "all" {
        return namespace.sysctls.get_mut(&name);
    }
    let mut devices = namespace.devices.values_mut();
    devices.find(|other| &*other.name == device)?.sysctls.get_mut(&name)
}

impl Network for Fake {
    fn link(&self, netns: &Netns, name: &str) -> Result<Option<Link>, KernelError> {
        let world = self.world();
        let found = world.find(netns, name)?;
        Ok(found.map(|(place, ifindex, device)| world.link_of(place, ifindex, device)))
    }

    fn link_at(&self, netns: &Netns, ifindex: u32) -> Result<Option<Link>, KernelError> {
        let world = self.world();
        let place = world.place(netns)?;
        let device = world.namespaces[place].devices.get(&ifindex);
        Ok(device.map(|device| world.link_of(place, ifindex, device)))
    }

    fn links(&self) -> Result<Vec<Link>, KernelError> {
        let world = self.world();
        let devices = world.namespaces[0].devices.iter();
        Ok(devices.map(|(ifindex, device)| world.link_of(0, *ifindex, device)).collect())
    }

    fn addresses(&self, netns: &Netns, ifindex: u32) -> Result<Vec<IpNet>, KernelError> {
        let world = self.world();
        let device = world.namespaces[world.place(netns)?].devices.get(&ifindex);
        let mut addresses = device.map(|device| device.addresses.clone()).unwrap_or_default();
        addresses.sort_unstable();
        Ok(addresses)
    }

    fn find_peer(&self, link: &Link) -> Result<Option<(Netns, Link)>, KernelError> {
        let world = self.world();
        let Some((place, ifindex)) = world.namespaces[0].devices.get(&link.ifindex).and_then(|end| end.peer)
        else {
            return Ok(None);
        };
        let namespace = &world.namespaces[place];
        let netns = namespace.references.first().cloned();
        if place != 0 && netns.is_none() {
            return Ok(None);
        }
        let device = namespace.devices.get(&ifindex);
        Ok(device.map(|device| (netns.filter(|_| place != 0), world.link_of(place, ifindex, device))))
    }

    fn route(&self, to: IpAddr, from: Option<IpAddr>, ifindex: u32) -> Result<Option<Route>, KernelError> {
        let world = self.world();
        let own = &world.namespaces[0].devices;
        let has = |device: &Device, address| device.addresses.iter().any(|net| net.addr() == address);
        if let Some(from) = from.filter(|from| !own.values().any(|device| has(device, *from))) {
            return Err(refused(format!("cannot look up the route to {to} from {from}"), libc::EINVAL));
        }
        let Some(device) = own.get(&ifindex).filter(|device| device.up) else { return Ok(None) };
        let ways = world.routes.iter().filter(|route| route.ifindex == ifindex && route.to.contains(&to));
        let Some(way) = ways.max_by_key(|route| route.to.prefix_len()) else { return Ok(None) };
        let first =
            device.addresses.iter().map(IpNet::addr).find(|address| address.is_ipv4() == to.is_ipv4());
        Ok(from.or(first).map(|source| Route { source, next_hop: way.via.unwrap_or(to), mtu: way.mtu }))
    }

    fn neighbour(&self, ifindex: u32, address: IpAddr) -> Result<Option<MacAddr>, KernelError> {
        Ok(self.world().neighbours.get(&(ifindex, address)).copied())
    }

    fn solicit(&self, neighbours: &[(u32, IpAddr)]) -> Result<(), KernelError> {
        let mut world = self.world();
        for neighbour in neighbours {
            world.solicited.push(*neighbour);
            if let Some(mac) = world.answers.get(neighbour).copied() {
                world.neighbours.insert(*neighbour, mac);
            }
        }
        Ok(())
    }

    fn features(&self, netns: &Netns, device: &str) -> Result<BTreeMap<String, Feature>, KernelError> {
        let world = self.world();
        let missing = || refused(format!("cannot list the features of {device}"), libc::ENODEV);
        let (_, _, device) = world.find(netns, device)?.ok_or_else(missing)?;
        Ok(device.features.clone())
    }

    fn setting(&self, netns: &Netns, device: &str, setting: &Setting) -> Result<u64, KernelError> {
        let mut world = self.world();
        let missing = || refused(format!("cannot read {} of {device}", setting.key()), libc::ENODEV);
        if let Setting::Sysctl(_) | Setting::Sysctl6(_) = setting {
            let place = world.place(netns)?;
            return sysctl(&mut world.namespaces[place], device, setting)
                .map(|value| *value)
                .ok_or_else(missing);
        }
        let (_, _, found) = world.find(netns, device)?.ok_or_else(missing)?;
        Ok(match setting {
            Setting::Mtu => found.mtu.into(),
            Setting::Promisc => found.promisc.into(),
            Setting::Feature(name) => found.features.get(&**name).ok_or_else(missing)?.active.into(),
            Setting::Sysctl(_) | Setting::Sysctl6(_) => unreachable!("above"),
        })
    }

    fn set(&mut self, netns: &Netns, device: &str, setting: &Setting, value: u64) -> Result<(), KernelError> {
        let mut world = self.world();
        let what = || format!("cannot set {} of {device} to {}", setting.key(), setting.show(value));
        world.change(what)?;
        let place = world.place(netns)?;
        if let Setting::Sysctl(_) | Setting::Sysctl6(_) = setting {
            *sysctl(&mut world.namespaces[place], device, setting)
                .ok_or_else(|| refused(what(), libc::ENOENT))? = value;
            return Ok(());
        }
        let mut devices = world.namespaces[place].devices.values_mut();
        let found = devices.find(|other| &*other.name == device);
        let found = found.ok_or_else(|| refused(what(), libc::ENODEV))?;
        match setting {
            Setting::Mtu => {
                let mtu = u32::try_from(value).ok().filter(|mtu| (68..=65535).contains(mtu));
                found.mtu = mtu.ok_or_else(|| refused(what(), libc::EINVAL))?;
            }
            Setting::Promisc => found.promisc = value != 0,
            Setting::Feature(name) => {
                let feature = found.features.get_mut(&**name).filter(|feature| feature.changeable);
                feature.ok_or_else(|| refused(what(), libc::EOPNOTSUPP))?.active = value != 0;
            }
            Setting::Sysctl(_) | Setting::Sysctl6(_) => unreachable!("above"),
        }
        Ok(())
    }

    fn netns_cookie(&self, netns: &Netns) -> Result<u64, KernelError> {
        let world = self.world();
        Ok(world.namespaces[world.place(netns)?].cookie)
    }

    fn find_netns(&self, cookie: u64) -> Result<Option<Netns>, KernelError> {
        let world = self.world();
        let Some(place) = world.namespaces.iter().position(|namespace| namespace.cookie == cookie) else {
            return Ok(None);
        };
        let netns = world.namespaces[place].references.first().cloned();
        Ok((place == 0 || netns.is_some()).then(|| netns.filter(|_| place != 0)))
    }
}
