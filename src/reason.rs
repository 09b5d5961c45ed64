//! Why packets are dropped: one list for the programs, `status`, and whatever else shows it.

use std::fmt;

macro_rules! reasons {
    ($($number:literal $variant:ident $name:literal $text:literal)*) => {
        /// `enum mptm_reason` of bpf/abi.h. Numbers are never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $(#[doc = $text] $variant = $number,)*
        }

        impl Reason {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// A short, stable name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What it means.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

reasons! {
    1 Malformed "malformed" "a workload's packet whose own headers or lengths are wrong"
    2 Source "source" "a workload's packet from an address that is not its own"
    3 TooBig "too-big" "larger than its tunnel's MTU"
    4 NoTunnel "no-tunnel" "its route names a tunnel that is not there"
    5 NoNeighbour "no-neighbour" "the tunnel's next hop has no MAC address yet"
    6 NoRoom "no-room" "the driver left no headroom for the outer header"
    7 NoDevice "no-device" "the interface that it should leave by is gone"
    8 OuterLength "outer-length" "outer lengths disagree with each other or with the frame"
    9 OuterChecksum "outer-checksum" "wrong outer IPv4 header checksum"
    10 OuterFragment "outer-fragment" "an outer fragment that carries a tunnel header"
    11 TunnelVersion "tunnel-version" "unknown version in the tunnel header"
    12 TunnelFlags "tunnel-flags" "wrong flags in the tunnel header"
    13 TunnelPayload "tunnel-payload" "the tunnel header announces another payload than the tunnel has"
    14 CriticalOption "critical-option" "a critical GENEVE option that mptm does not know"
    15 InnerMalformed "inner-malformed" "the inner packet's headers or lengths are wrong"
    16 InnerSource "inner-source" "an inner source that the tunnel may not bring in"
    17 InnerNoRoute "inner-no-route" "an inner destination that is no workload of the tunnel's segment"
    18 InnerUnsupported "inner-unsupported" "multicast, or neither IPv4 nor ARP, inside a tunnel"
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
