//! UDP and TCP.

use std::net::IpAddr;

use super::checksum::with_transport_checksum;
use super::ip::UDP;

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

/// UDP between two sockets, with its checksum.
pub fn udp_with_checksum(source: (IpAddr, u16), destination: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    with_transport_checksum(source.0, destination.0, UDP, udp(source.1, destination.1, payload))
}

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// TCP (RFC 9293), without a checksum.
#[derive(Debug, Clone)]
pub struct Tcp {
    pub source: u16,
    pub destination: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
    pub window: u16,
    /// A multiple of four bytes.
    pub options: Vec<u8>,
}

impl Tcp {
    /// A SYN.
    pub fn new(source: u16, destination: u16) -> Self {
        Self {
            source,
            destination,
            sequence: 1,
            acknowledgement: 0,
            flags: SYN,
            window: 0xffff,
            options: Vec::new(),
        }
    }

    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        assert!(self.options.len().is_multiple_of(4) && self.options.len() <= 40, "options of TCP");
        let mut out = [self.source.to_be_bytes(), self.destination.to_be_bytes()].concat();
        out.extend(self.sequence.to_be_bytes());
        out.extend(self.acknowledgement.to_be_bytes());
        out.extend([((20 + self.options.len()) * 4) as u8, self.flags]);
        out.extend(self.window.to_be_bytes());
        out.extend([0; 4]);
        out.extend(&self.options);
        out.extend(payload);
        out
    }
}

/// The option that says how long a segment may be (RFC 9293, 3.2).
pub fn mss_option(mss: u16) -> [u8; 4] {
    let [high, low] = mss.to_be_bytes();
    [2, 4, high, low]
}

/// A SYN with only what a flow is told by, and a payload.
pub fn tcp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    Tcp::new(source, destination).encode(payload)
}
