//! The tunnels that are measured, one of each protocol and outer family, and the frames that go through them.

use std::net::{IpAddr, Ipv4Addr};

use crate::common::frame::{Ethernet, Ipv4, Mac, TYPE_IPV4, UDP, udp_with_checksum};

pub const WORKLOAD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const WORKLOAD_MAC: Mac = [2, 0, 0, 0, 0, 1];
pub const UNDERLAY_MAC: Mac = [2, 0, 0, 0, 1, 1];
const FAR_MAC: Mac = [2, 0, 0, 0, 1, 2];

/// What is measured against which aim.
#[derive(Debug, Clone)]
pub struct Tunnel {
    /// As it is called in the file, and in the table.
    pub name: String,
    /// The outer header's. None: there is no IP header.
    pub outer: Option<IpAddr>,
    /// What is behind it, and nowhere else.
    pub inner: Ipv4Addr,
    protocol: &'static str,
    keys: String,
}

/// A protocol, what else its table has, and whether there is an outer IP header.
const PROTOCOLS: [(&str, &str, bool); 10] = [
    ("geneve", "id = 42", true),
    ("vxlan", "id = 42", true),
    ("gretap", "id = 42", true),
    ("gre", "id = 42", true),
    ("ipip", "", true),
    ("gue", "", true),
    ("fou", "dst_port = 5555", true),
    ("gtpu", "id = 42", true),
    ("vlan", "id = 42", false),
    ("qinq", "id = 43\nservice_id = 7", false),
];

/// All of them.
pub fn all() -> Vec<Tunnel> {
    let mut tunnels = Vec::new();
    for (protocol, keys, has_ip) in PROTOCOLS {
        let families: &[Option<bool>] = if has_ip { &[Some(false), Some(true)] } else { &[None] };
        for is_ipv6 in families {
            let number = tunnels.len() as u8 + 1;
            let (suffix, outer) = match is_ipv6 {
                None => ("", None),
                Some(false) => ("4", Some(Ipv4Addr::new(192, 0, 2, 100 + number).into())),
                Some(true) => {
                    ("6", Some(IpAddr::V6(format!("2001:db8::{number}").parse().expect("an address"))))
                }
            };
            tunnels.push(Tunnel {
                name: format!("{protocol}{suffix}"),
                outer,
                inner: Ipv4Addr::new(10, 1, number, 1),
                protocol,
                keys: keys.into(),
            });
        }
    }
    tunnels
}

impl Tunnel {
    /// Its table in the file.
    pub fn table(&self) -> String {
        let remote = self.outer.map_or(String::new(), |remote| format!("remote = \"{remote}\"\n"));
        let mac = if self.outer.is_some() { "remote_mac = \"02:00:00:00:01:02\"\n" } else { "" };
        format!(
            "[tunnel.{}]\nprotocol = \"{}\"\n{}\n{remote}{mac}inner = [\"{}\"]\n",
            self.name, self.protocol, self.keys, self.inner
        )
    }

    /// A frame from the workload to what is behind it: UDP, with an IP packet of `size` bytes.
    pub fn leaving(&self, size: usize) -> Vec<u8> {
        frame(WORKLOAD, self.inner, size)
    }

    /// What its far end would send, made of what this end makes of `leaving(size)`: the far end is its mirror. The sums of
    /// the headers are those of the same words in another order.
    pub fn arriving(&self, outer: &[u8], size: usize) -> Vec<u8> {
        let mut frame = outer.to_vec();
        let inner = frame.len() - size;
        swap(&mut frame[inner + 12..inner + 20]);
        match self.outer {
            None => {}
            Some(IpAddr::V4(_)) => swap(&mut frame[14 + 12..14 + 20]),
            Some(IpAddr::V6(_)) => swap(&mut frame[14 + 8..14 + 40]),
        }
        if self.outer.is_some() {
            frame[..6].copy_from_slice(&UNDERLAY_MAC);
            frame[6..12].copy_from_slice(&FAR_MAC);
        }
        frame
    }
}

/// UDP in an IP packet of `size` bytes.
pub fn frame(source: Ipv4Addr, destination: Ipv4Addr, size: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..size - 28).map(|at| at as u8).collect();
    let segment = udp_with_checksum((source.into(), 1000), (destination.into(), 2000), &payload);
    Ethernet::new(FAR_MAC, WORKLOAD_MAC, TYPE_IPV4)
        .encode(&Ipv4::new(source, destination, UDP).encode(&segment))
}

/// Exchanges the two halves.
fn swap(bytes: &mut [u8]) {
    let (one, other) = bytes.split_at_mut(bytes.len() / 2);
    one.swap_with_slice(other);
}
