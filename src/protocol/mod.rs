//! The tunnel protocols: one file each, with its outer header as bytes and its limits.

use std::fmt;

use serde::{Serialize, Serializer};

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
