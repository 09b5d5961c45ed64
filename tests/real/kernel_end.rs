//! A far end of the kernel's own.

use std::io::{self, Write};

use mptm::config::model::NetnsRef;

use crate::site::{Container, OUTER, Site, UNDERLAY, attempt};
use crate::world::ip;

/// The kernel's device for a protocol on node 2, called tun0, for the tunnel `t` with id 42. None, loudly, where the
/// kernel was built without.
pub fn device(site: &Site, protocol: &str) -> Option<()> {
    let ([here, there], node) = (OUTER, &site.nodes[1]);
    let underlay = UNDERLAY[1];
    let add = match protocol {
        "vxlan" => format!("name tun0 type vxlan id 42 local {there} remote {here} dstport 4789"),
        "geneve" => format!("name tun0 type geneve id 42 remote {here}"),
        "vlan" => format!("link {underlay} name tun0 type vlan id 42"),
        other => panic!("no kernel device for {other}"),
    };
    if !has_device(&node.netns, &add) {
        return None;
    }
    ip(&format!("-n {} link set tun0 up", node.name));
    if protocol != "vlan" {
        ip(&format!("-n {} link set tun0 mtu 1450", node.name));
    }
    Some(())
}

/// The same with the far inner address 10.250.1.2 on it: node 2 stands for a container of its own.
pub fn addressed(site: &Site, protocol: &str) -> Option<Container> {
    device(site, protocol)?;
    ip(&format!("-n {} addr add 10.250.1.2/24 dev tun0", site.nodes[1].name));
    Some(Container { netns: site.nodes[1].netns.clone(), address: "10.250.1.2".parse().unwrap() })
}

/// Adds a device; false, loudly, where the kernel was built without its kind.
pub fn has_device(netns: &NetnsRef, add: &str) -> bool {
    match attempt(netns, "ip", &format!("link add {add}")) {
        Ok(_) => true,
        Err(said) if said.contains("Unknown device type") => {
            // Not eprintln: the test harness would swallow it.
            let _ = writeln!(io::stderr(), "SKIPPED (needs the kernel's device): ip link add {add}");
            false
        }
        Err(said) => panic!("{said}"),
    }
}
