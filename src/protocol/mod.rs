//! The tunnel protocols: one file each, with its outer header as bytes and its limits.

mod geneve;
mod gre;
mod gtpu;
mod gue;
mod header;
mod ipip;
mod vlan;
mod vxlan;

use std::fmt;

use serde::{Serialize, Serializer};

use header::ETHERNET;
pub use header::Header;

use crate::config::model::Payload;
use crate::state::Tunnel;

macro_rules! protocols {
    ($($number:literal $variant:ident $definition:path, $text:literal;)*) => {
        /// What the outer header is. The numbers are those of `enum mptm_protocol` in bpf/abi.h.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Protocol {
            $(#[doc = $text] $variant = $number,)*
        }

        impl Protocol {
            /// All of them, in the order of their names.
            pub const ALL: [Self; [$($number),*].len()] = [$(Self::$variant),*];

            fn definition(self) -> &'static Definition {
                match self {
                    $(Self::$variant => const { &$definition },)*
                }
            }
        }
    };
}

protocols! {
    9 Fou gue::FOU, "Foo over UDP: IP directly in UDP.";
    3 Geneve geneve::GENEVE, "RFC 8926.";
    5 Gre gre::GRE, "RFC 2784 and RFC 2890, with IP packets.";
    6 Gretap gre::GRETAP, "The same with Ethernet frames.";
    10 Gtpu gtpu::GTPU, "GTP-U, 3GPP TS 29.281.";
    8 Gue gue::GUE, "Generic UDP encapsulation (draft-ietf-intarea-gue).";
    7 Ipip ipip::IPIP, "RFC 2003, RFC 4213 and RFC 2473: IP directly in IP.";
    4 Qinq vlan::QINQ, "IEEE 802.1ad: an S-tag and a C-tag.";
    1 Vlan vlan::VLAN, "IEEE 802.1Q: one C-tag.";
    2 Vxlan vxlan::VXLAN, "RFC 7348.";
}

/// What a protocol's file provides.
struct Definition {
    /// As the file spells it.
    name: &'static str,
    /// What tells its tunnels apart.
    id: Id,
    /// What its own header follows.
    outer: Outer,
    /// What it carries, unless the tunnel says otherwise.
    payload: Payload,
    /// Appends its own header to what is there already: Ethernet addresses, IP and UDP headers as `outer` says.
    write: fn(&mut Header, &Tunnel),
    /// Reads its own fields back from `Header::own`, into a tunnel that has none of them set. The bytes may be anything.
    read: fn(&Header, &mut Tunnel),
}

/// What tells the tunnels of a protocol apart.
struct Id {
    has: HasId,
    /// What it is called.
    name: &'static str,
    min: u32,
    max: u32,
    /// Each end may choose its own.
    local: bool,
}

/// Of 24 bits.
const VNI: Id = Id { has: HasId::Always, name: "VNI", min: 0, max: 0xff_ffff, local: false };
/// Addresses and ports must do.
const NO_ID: Id = Id { has: HasId::Never, name: "id", min: 0, max: 0, local: false };

/// What a protocol's own header follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outer {
    /// Ethernet addresses.
    Tags,
    /// An IP header with this protocol number, or with the payload's.
    Ip(Option<u8>),
    /// A UDP header, with the port that IANA assigned, where there is one.
    Udp(Option<u16>),
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
    /// As the file spells it.
    pub fn name(self) -> &'static str {
        self.definition().name
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
        self.definition().id.has
    }

    /// What `id` is called, and its smallest and largest value.
    pub fn id_range(self) -> (&'static str, u32, u32) {
        let Id { name, min, max, .. } = self.definition().id;
        (name, min, max)
    }

    /// The UDP destination port that IANA assigned, where there is one.
    pub fn default_port(self) -> Option<u16> {
        match self.definition().outer {
            Outer::Udp(port) => port,
            Outer::Tags | Outer::Ip(_) => None,
        }
    }

    /// Whether it has an outer UDP header.
    pub fn has_udp(self) -> bool {
        matches!(self.definition().outer, Outer::Udp(_))
    }

    /// Whether it has an outer IP header, and so a local and a remote address.
    pub fn has_outer_ip(self) -> bool {
        self.definition().outer != Outer::Tags
    }

    /// What it carries. GENEVE can carry either, and carries this unless told otherwise.
    pub fn payload(self) -> Payload {
        self.definition().payload
    }

    /// Whether received packets may bear another id than sent ones: each end of GRE and GTP-U chooses its own.
    pub fn has_local_id(self) -> bool {
        self.definition().id.local
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
    let definition = tunnel.protocol.definition();
    let mut header = Header::begin(tunnel, definition.outer);
    (definition.write)(&mut header, tunnel);
    header
}

/// The reverse of `header`: fills in what the header says of a tunnel of this protocol and payload.
pub fn read(header: &Header, tunnel: &mut Tunnel) {
    header.read_begin(tunnel);
    (tunnel.protocol.definition().read)(header, tunnel);
}

/// How much smaller than the underlay's MTU the largest inner IP packet is, in bytes.
pub fn overhead(tunnel: &Tunnel) -> u32 {
    let header = header(tunnel);
    // The outer Ethernet header does not count against the MTU; an inner one does.
    let inner = if tunnel.payload == Payload::Ethernet { ETHERNET } else { 0 };
    // Devices and switches let a tagged frame be 4 bytes longer, but no frame with two tags be longer by 8.
    let tag = if tunnel.protocol.has_outer_ip() { 0 } else { TAG };
    (header.bytes.len() + inner).saturating_sub(usize::from(header.pop) + ETHERNET + tag) as u32
}

/// Bytes of a VLAN tag.
const TAG: usize = 4;

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
