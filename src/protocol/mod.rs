//! The tunnel protocols: one file each, with its outer header as bytes and its limits.

mod geneve;
mod header;
mod vlan;
mod vxlan;

use std::fmt;

use serde::{Serialize, Serializer};

pub use header::{ETHERNET, Header, read_addresses};

use crate::state::Tunnel;

/// What the outer header is. The numbers are those of `enum mptm_protocol` in bpf/abi.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// IEEE 802.1Q: one C-tag.
    Vlan = 1,
    /// RFC 7348.
    Vxlan = 2,
    /// RFC 8926.
    Geneve = 3,
}

impl Protocol {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 3] = [Self::Geneve, Self::Vlan, Self::Vxlan];

    /// As the file spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vlan => "vlan",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
        }
    }

    /// By its name in the file.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    /// By its number in the maps.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| *protocol as u8 == number)
    }

    /// What `id` is called, and its smallest and largest value.
    pub fn id_range(self) -> (&'static str, u32, u32) {
        match self {
            // 0 is a priority tag and 4095 is reserved (IEEE 802.1Q, table 9-2).
            Self::Vlan => ("VLAN id", 1, 4094),
            Self::Vxlan | Self::Geneve => ("VNI", 0, 0xff_ffff),
        }
    }

    /// The UDP destination port that IANA assigned; none where there is no UDP header.
    pub fn default_port(self) -> Option<u16> {
        match self {
            Self::Vlan => None,
            Self::Vxlan => Some(4789),
            Self::Geneve => Some(6081),
        }
    }

    /// Whether it has an outer IP header, and so a local and a remote address.
    pub fn has_outer_ip(self) -> bool {
        !matches!(self, Self::Vlan)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The whole outer header of a tunnel.
pub fn header(tunnel: &Tunnel) -> Header {
    match tunnel.protocol {
        Protocol::Vlan => vlan::header(tunnel),
        Protocol::Vxlan => vxlan::header(tunnel),
        Protocol::Geneve => geneve::header(tunnel),
    }
}

/// The id in a header, and the UDP destination port (0 where there is no UDP).
pub fn read_id_and_port(protocol: Protocol, header: &Header) -> (u32, u16) {
    let id = match protocol {
        Protocol::Vlan => return (vlan::read_id(header), 0),
        Protocol::Vxlan => vxlan::read_id(header),
        Protocol::Geneve => geneve::read_id(header),
    };
    (id, header::read_u16(header, usize::from(header.l4_offset) + 2))
}

/// How much smaller than the underlay's MTU the largest inner IP packet is, in bytes.
pub fn overhead(tunnel: &Tunnel) -> u32 {
    match tunnel.protocol {
        // Devices and switches let a tagged frame be 4 bytes longer.
        Protocol::Vlan => 0,
        // The outer Ethernet header does not count, the inner one does.
        Protocol::Vxlan | Protocol::Geneve => header(tunnel).bytes.len() as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::MacAddr;
    use crate::state::RemoteMac;

    /// Ethernet (RFC 894), IPv4 (RFC 791) and UDP (RFC 768), by hand; the destination port is to be filled in.
    pub const OUTER_IPV4_UDP: [u8; 42] = [
        0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, 0x08, 0x00, // destination, source, type
        0x45, 0x00, 0x00, 0x00, // version 4, 5 words; TOS; total length
        0x00, 0x00, 0x40, 0x00, // identification; DF, offset 0
        0x40, 0x11, 0x00, 0x00, // TTL 64, UDP, checksum
        10, 30, 30, 1, 10, 30, 30, 2, // source, destination
        0, 0, 0, 0, // source port, destination port
        0, 0, 0, 0, // length, checksum
    ];

    pub fn tunnel(protocol: Protocol, id: u32, dst_port: u16) -> Tunnel {
        let ip = protocol.has_outer_ip();
        Tunnel {
            protocol,
            id,
            segment: "default".into(),
            underlay: "eth0".into(),
            local: ip.then(|| [10, 30, 30, 1].into()),
            remote: ip.then(|| [10, 30, 30, 2].into()),
            local_mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            remote_mac: RemoteMac::Known(MacAddr([2, 0, 0, 0, 0, 2])),
            src_ports: if ip { (49152, 65535) } else { (0, 0) },
            dst_port,
            next_hop: None,
            inner_mac: None,
            mtu: 1450,
            redirect: true,
            debug: false,
            intact: true,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (protocol, id, port) in
            [(Protocol::Vlan, 4094, 0), (Protocol::Vxlan, 0xff_ffff, 4790), (Protocol::Geneve, 1, 65535)]
        {
            let tunnel = tunnel(protocol, id, port);
            let header = header(&tunnel);
            assert_eq!(read_id_and_port(protocol, &header), (id, port));
            assert_eq!(read_addresses(&header), (tunnel.local, tunnel.remote));
        }
    }

    #[test]
    fn ip_sum_makes_a_right_checksum() {
        let header = header(&tunnel(Protocol::Geneve, 1, 6081));
        let length = u32::from(u16::from_ne_bytes(100_u16.to_be_bytes()));
        let mut sum = header.ip_sum() + length;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let mut ip = header.bytes[14..34].to_vec();
        ip[2..4].copy_from_slice(&100_u16.to_be_bytes());
        ip[10..12].copy_from_slice(&(!(sum as u16)).to_ne_bytes());
        // RFC 1071: with the checksum in place, the sum is all ones.
        let mut check: u32 = ip.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        while check > 0xffff {
            check = (check & 0xffff) + (check >> 16);
        }
        assert_eq!(check, 0xffff);
    }
}
