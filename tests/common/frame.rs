//! An encoder of its own for Ethernet, VLAN tags, ARP, IPv4, UDP, VXLAN and GENEVE, as the RFCs have them.

use std::net::Ipv4Addr;

pub type Mac = [u8; 6];

pub const BROADCAST: Mac = [0xff; 6];

pub const TYPE_IPV4: u16 = 0x0800;
pub const TYPE_ARP: u16 = 0x0806;
pub const TYPE_VLAN: u16 = 0x8100;
pub const TYPE_QINQ: u16 = 0x88a8;
pub const TYPE_IPV6: u16 = 0x86dd;
/// Transparent Ethernet bridging: what GENEVE carries (RFC 8926, 3.4).
pub const TYPE_TEB: u16 = 0x6558;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;

pub const MORE_FRAGMENTS: u16 = 0x2000;
pub const DO_NOT_FRAGMENT: u16 = 0x4000;

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

/// IPv4 (RFC 791).
#[derive(Debug, Clone)]
pub struct Ipv4 {
    pub tos: u8,
    pub id: u16,
    /// Flags and offset, as they stand in the header.
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    /// A multiple of four bytes.
    pub options: Vec<u8>,
}

impl Ipv4 {
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Self {
        Self { tos: 0, id: 7, fragment: 0, ttl: 64, protocol, source, destination, options: Vec::new() }
    }

    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let total = u16::try_from(header + payload.len()).expect("an IPv4 packet has at most 65535 bytes");
        let mut out = vec![0x40 | (header / 4) as u8, self.tos];
        out.extend(total.to_be_bytes());
        out.extend(self.id.to_be_bytes());
        out.extend(self.fragment.to_be_bytes());
        out.extend([self.ttl, self.protocol, 0, 0]);
        out.extend(self.source.octets());
        out.extend(self.destination.octets());
        out.extend(&self.options);
        let sum = checksum(&out);
        out[10..12].copy_from_slice(&sum.to_be_bytes());
        out.extend(payload);
        out
    }
}

/// The Internet checksum (RFC 1071); zero over what already has its checksum.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// UDP (RFC 768), without a checksum.
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("a UDP datagram has at most 65535 bytes");
    let mut out = Vec::new();
    for field in [source, destination, length, 0] {
        out.extend(field.to_be_bytes());
    }
    out.extend(payload);
    out
}

/// A TCP header (RFC 9293) with only what a flow is told by, and a payload.
pub fn tcp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    out.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    out.extend(payload);
    out
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

/// VXLAN (RFC 7348, 5).
pub fn vxlan(vni: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    let mut out = vec![0x08, 0, 0, 0, a, b, c, 0];
    out.extend(payload);
    out
}

/// GENEVE (RFC 8926, 3.4); the options are a multiple of four bytes.
pub fn geneve(vni: u32, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    let [high, low] = TYPE_TEB.to_be_bytes();
    let mut out = vec![(options.len() / 4) as u8, 0, high, low, a, b, c, 0];
    out.extend(options);
    out.extend(payload);
    out
}
