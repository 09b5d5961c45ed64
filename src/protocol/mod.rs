//! The tunnel protocols: one file each, with its outer header as bytes and its limits.

mod geneve;
mod gre;
mod gtpu;
mod gue;
mod header;
mod ipip;
#[cfg(test)]
pub mod tests;
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
