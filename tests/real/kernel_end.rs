//! A far end of the kernel's own.

use crate::site::{Container, OUTER, Site, UNDERLAY};
use crate::world::ip;

/// The kernel's device for a protocol on node 2, called tun0, for the tunnel `t` with id 42.
pub fn device(site: &Site, protocol: &str, options: &str) {
    let ([here, there], node) = (OUTER, &site.nodes[1].name);
    let underlay = UNDERLAY[1];
    let add = match protocol {
        "vxlan" => format!("name tun0 type vxlan id 42 local {there} remote {here} {options}"),
        "geneve" => format!("name tun0 type geneve id 42 remote {here} {options}"),
        "vlan" => format!("link {underlay} name tun0 type vlan id 42"),
        other => panic!("no kernel device for {other}"),
    };
    ip(&format!("-n {node} link add {add}"));
    ip(&format!("-n {node} link set tun0 up"));
    if protocol != "vlan" {
        ip(&format!("-n {node} link set tun0 mtu 1450"));
    }
}

/// The same with the far inner address 10.250.1.2 on it: node 2 stands for a container of its own.
pub fn addressed(site: &Site, protocol: &str, options: &str) -> Container {
    device(site, protocol, options);
    ip(&format!("-n {} addr add 10.250.1.2/24 dev tun0", site.nodes[1].name));
    Container { netns: site.nodes[1].netns.clone(), address: "10.250.1.2".parse().unwrap() }
}

/// The default destination ports, as the kernel wants to be told.
pub fn port(protocol: &str) -> &'static str {
    match protocol {
        "vxlan" => "dstport 4789",
        _ => "",
    }
}
