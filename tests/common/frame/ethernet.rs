//! Ethernet, VLAN tags and ARP.

use std::net::{IpAddr, Ipv4Addr};

pub type Mac = [u8; 6];

pub const BROADCAST: Mac = [0xff; 6];

pub const TYPE_IPV4: u16 = 0x0800;
pub const TYPE_ARP: u16 = 0x0806;
pub const TYPE_VLAN: u16 = 0x8100;
pub const TYPE_QINQ: u16 = 0x88a8;
pub const TYPE_IPV6: u16 = 0x86dd;
/// Transparent Ethernet bridging: Ethernet in GENEVE and GRE (RFC 8926, 3.4; RFC 7637, 3.2).
pub const TYPE_TEB: u16 = 0x6558;

/// Ethernet (IEEE 802.3), with any number of tags (802.1Q, 802.1ad): type and control information.
#[derive(Debug, Clone)]
pub struct Ethernet {
    pub destination: Mac,
    pub source: Mac,
    pub tags: Vec<(u16, u16)>,
    pub ethertype: u16,
}

impl Ethernet {
    pub fn new(destination: Mac, source: Mac, ethertype: u16) -> Self {
        Self { destination, source, tags: Vec::new(), ethertype }
    }

    #[must_use]
    pub fn tag(mut self, kind: u16, control: u16) -> Self {
        self.tags.push((kind, control));
        self
    }

    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        let mut out = [self.destination, self.source].concat();
        for (kind, control) in &self.tags {
            out.extend(kind.to_be_bytes());
            out.extend(control.to_be_bytes());
        }
        out.extend(self.ethertype.to_be_bytes());
        out.extend(payload);
        out
    }
}

/// The MAC address of an IP multicast group (RFC 1112, 6.4; RFC 2464, 7).
pub fn group_mac(group: IpAddr) -> Mac {
    match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            [0x01, 0, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArpOperation {
    Request = 1,
    Reply = 2,
}

/// ARP for Ethernet and IPv4 (RFC 826).
pub fn arp(operation: ArpOperation, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut out = vec![0, 1, 0x08, 0, 6, 4, 0, operation as u8];
    for (mac, address) in [sender, target] {
        out.extend(mac);
        out.extend(address.octets());
    }
    out
}
