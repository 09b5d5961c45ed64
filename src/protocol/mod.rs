//! The tunnel protocols: one file each, with its outer header as bytes and its limits.

mod geneve;
mod header;
mod vlan;
mod vxlan;

use std::fmt;

use serde::{Serialize, Serializer};

pub use header::{ETHERNET, Header, read_addresses};

use crate::config::model::Payload;
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
    /// IEEE 802.1ad: an S-tag and a C-tag.
    Qinq = 4,
    /// RFC 2784 and RFC 2890, with IP packets.
    Gre = 5,
    /// The same with Ethernet frames.
    Gretap = 6,
    /// RFC 2003, RFC 4213 and RFC 2473: IP directly in IP.
    Ipip = 7,
    /// Generic UDP encapsulation (draft-ietf-intarea-gue).
    Gue = 8,
    /// Foo over UDP: IP directly in UDP.
    Fou = 9,
    /// GTP-U, 3GPP TS 29.281.
    Gtpu = 10,
}

/// Whether tunnels of a protocol have an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HasId {
    /// Each has one.
    Always,
    /// It may be left out.
    Optional,
    /// None has one.
    Never,
}

impl Protocol {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 10] = [
        Self::Fou,
        Self::Geneve,
        Self::Gre,
        Self::Gretap,
        Self::Gtpu,
        Self::Gue,
        Self::Ipip,
        Self::Qinq,
        Self::Vlan,
        Self::Vxlan,
    ];

    /// As the file spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vlan => "vlan",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Qinq => "qinq",
            Self::Gre => "gre",
            Self::Gretap => "gretap",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Fou => "fou",
            Self::Gtpu => "gtpu",
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

    /// Whether tunnels have an `id`.
    pub fn has_id(self) -> HasId {
        match self {
            Self::Vlan | Self::Qinq | Self::Vxlan | Self::Geneve | Self::Gtpu => HasId::Always,
            Self::Gre | Self::Gretap => HasId::Optional,
            Self::Ipip | Self::Gue | Self::Fou => HasId::Never,
        }
    }

    /// What `id` is called, and its smallest and largest value.
    pub fn id_range(self) -> (&'static str, u32, u32) {
        match self {
            // 0 is a priority tag and 4095 is reserved (IEEE 802.1Q, table 9-2).
            Self::Vlan | Self::Qinq => ("VLAN id", 1, 4094),
            Self::Vxlan | Self::Geneve => ("VNI", 0, 0xff_ffff),
            Self::Gre | Self::Gretap => ("GRE key", 0, u32::MAX),
            // 0 is for messages that belong to no tunnel (3GPP TS 29.281, 5.1).
            Self::Gtpu => ("TEID", 1, u32::MAX),
            Self::Ipip | Self::Gue | Self::Fou => ("id", 0, 0),
        }
    }

    /// The UDP destination port that IANA assigned, where there is one.
    pub fn default_port(self) -> Option<u16> {
        match self {
            Self::Vxlan => Some(4789),
            Self::Geneve => Some(6081),
            Self::Gue => Some(6080),
            Self::Gtpu => Some(2152),
            Self::Fou | Self::Vlan | Self::Qinq | Self::Gre | Self::Gretap | Self::Ipip => None,
        }
    }

    /// Whether it has an outer UDP header.
    pub fn has_udp(self) -> bool {
        matches!(self, Self::Vxlan | Self::Geneve | Self::Gue | Self::Fou | Self::Gtpu)
    }

    /// Whether it has an outer IP header, and so a local and a remote address.
    pub fn has_outer_ip(self) -> bool {
        !matches!(self, Self::Vlan | Self::Qinq)
    }

    /// What it carries. GENEVE can carry either, and carries this unless told otherwise.
    pub fn payload(self) -> Payload {
        match self {
            Self::Vlan | Self::Qinq | Self::Vxlan | Self::Geneve | Self::Gretap => Payload::Ethernet,
            Self::Gre | Self::Ipip | Self::Gue | Self::Fou | Self::Gtpu => Payload::Ip,
        }
    }

    /// Whether received packets may bear another id than sent ones: each end of GRE and GTP-U chooses its own.
    pub fn has_local_id(self) -> bool {
        matches!(self, Self::Gre | Self::Gretap | Self::Gtpu)
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
