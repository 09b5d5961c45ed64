//! The settings of devices: what netlink and ethtool know, and sysctls.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::netlink::Connection;
use super::{ethtool, links};
use crate::kernel::Setting;

/// What `setting` is called in an error.
pub(super) fn noun(setting: &Setting) -> String {
    match setting {
        Setting::Mtu => "the MTU".into(),
        Setting::Promisc => "promiscuous mode".into(),
        Setting::Feature(name) => format!("feature {name}"),
        Setting::Sysctl(name) => format!("sysctl {name}"),
        Setting::Sysctl6(name) => format!("IPv6 sysctl {name}"),
    }
}

/// The MTU of a device.
pub(super) fn mtu(connection: &mut Connection, device: &str) -> io::Result<u64> {
    let link = links::by_name(connection, device)?.ok_or_else(no_device)?;
    Ok(link.mtu.into())
}

/// Sets the MTU of a device.
pub(super) fn set_mtu(connection: &mut Connection, device: &str, bytes: u64) -> io::Result<()> {
    let link = links::by_name(connection, device)?.ok_or_else(no_device)?;
    let mut message = LinkMessage::default();
    message.header.index = link.ifindex;
    let bytes_u32 = u32::try_from(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "it does not fit in 32 bits"))?;
    message.attributes.push(LinkAttribute::Mtu(bytes_u32));
    links::change(connection, message)?;
    must_be(bytes, mtu(connection, device)?)
}

/// Whether someone asked for promiscuous mode; a bridge or a capture that has it on for itself does not count.
pub(super) fn promisc(connection: &mut Connection, device: &str) -> io::Result<u64> {
    let message = links::message_by_name(connection, device)?.ok_or_else(no_device)?;
    Ok(message.header.flags.contains(LinkFlags::Promisc).into())
}

/// Asks for promiscuous mode, or no longer.
pub(super) fn set_promisc(connection: &mut Connection, device: &str, on: bool) -> io::Result<()> {
    let link = links::by_name(connection, device)?.ok_or_else(no_device)?;
    let mut message = LinkMessage::default();
    message.header.index = link.ifindex;
    message.header.change_mask = LinkFlags::Promisc;
    if on {
        message.header.flags = LinkFlags::Promisc;
    }
    links::change(connection, message)?;
    must_be(on.into(), promisc(connection, device)?)
}

/// Whether a feature is on.
pub(super) fn feature(connection: &Connection, device: &str, name: &str) -> io::Result<u64> {
    Ok(ethtool::feature(connection, device, name)?.active.into())
}

/// net.FAMILY.conf.DEVICE.NAME of the calling thread's namespace.
pub(super) fn sysctl(family: &str, device: &str, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(sysctl_path(family, device, name)?)?;
    let text = text.trim();
    text.parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("its value is no number: {text:?}")))
}

/// Sets net.FAMILY.conf.DEVICE.NAME of the calling thread's namespace.
pub(super) fn set_sysctl(family: &str, device: &str, name: &str, value: u64) -> io::Result<()> {
    // In one write: the kernel parses each by itself.
    fs::write(sysctl_path(family, device, name)?, value.to_string())?;
    must_be(value, sysctl(family, device, name)?)
}

/// As a path, where a dot of the device's name is but a dot.
fn sysctl_path(family: &str, device: &str, name: &str) -> io::Result<PathBuf> {
    for part in [device, name] {
        if part.is_empty() || part == "." || part == ".." || part.contains(['/', '\0']) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{part:?} is no name")));
        }
    }
    Ok(Path::new("/proc/sys/net").join(family).join("conf").join(device).join(name))
}

fn must_be(wanted: u64, is: u64) -> io::Result<()> {
    if wanted == is {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, format!("the kernel accepted the change, but it is {is}")))
}

fn no_device() -> io::Error {
    io::Error::from_raw_os_error(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_paths() {
        let path = sysctl_path("ipv4", "eth0.5", "forwarding").unwrap();
        assert_eq!(path, Path::new("/proc/sys/net/ipv4/conf/eth0.5/forwarding"));
        for (device, name) in [("..", "x"), ("eth0", ".."), ("", "x"), ("eth0", "a/b"), ("a/b", "x")] {
            assert!(sysctl_path("ipv6", device, name).is_err(), "{device} {name}");
        }
    }
}
