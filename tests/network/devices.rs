//! What the network tests look at: devices, their features, and a namespace without a name.

use std::fs::File;
use std::process::Command;

use mptm::config::model::NetnsRef;
use mptm::kernel::linux::LinuxNetwork;
use mptm::kernel::{Link, Netns, Network};

use crate::world::ip;

/// What `ethtool -k` prints, from inside the thread's namespace.
pub fn ethtool_features(device: &str) -> Vec<(String, bool, bool)> {
    let output = Command::new("ethtool").args(["-k", device]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let (name, state) = line.trim().split_once(": ")?;
        Some((name.to_string(), state.starts_with("on"), !state.contains("[fixed]")))
    };
    text.lines().filter_map(line).collect()
}

/// The network of the thread's namespace.
pub fn network() -> LinuxNetwork {
    LinuxNetwork::new().unwrap()
}

/// A device of the managed namespace that must be there.
pub fn link(network: &LinuxNetwork, name: &str) -> Link {
    network.link(&None, name).unwrap().unwrap_or_else(|| panic!("no {name}"))
}

/// A namespace by name.
pub fn named(name: &str) -> Netns {
    Some(NetnsRef::Name(name.into()))
}

/// A namespace held open by nothing but this file.
pub fn hold_and_unname(name: &str) -> File {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    ip(&format!("netns del {name}"));
    file
}
