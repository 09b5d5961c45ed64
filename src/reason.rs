//! Why packets are dropped, or left to the host's stack: one list for the programs, `status`, and whatever else shows it.

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
    3 TooBig "too-big" "larger than its tunnel's MTU; the sender is told"
    4 NoTunnel "no-tunnel" "its route names a tunnel that is not there"
    5 NoNeighbour "no-neighbour" "the tunnel's next hop has no MAC address yet"
    6 NoRoom "no-room" "the driver left no headroom for the outer header"
    7 NoDevice "no-device" "the interface that it should leave by is gone"
    8 OuterLength "outer-length" "outer lengths disagree with each other or with the frame"
    9 OuterChecksum "outer-checksum" "wrong outer IPv4 header or UDP checksum"
    10 OuterFragment "outer-fragment" "an outer fragment that carries a tunnel header"
    11 TunnelVersion "tunnel-version" "unknown version in the tunnel header"
    12 TunnelFlags "tunnel-flags" "wrong flags in the tunnel header"
    13 TunnelPayload "tunnel-payload" "the tunnel header announces another payload than the tunnel has"
    14 CriticalOption "critical-option" "a critical GENEVE option that the tunnel does not have"
    15 InnerMalformed "inner-malformed" "the inner packet's headers or lengths are wrong"
    16 InnerSource "inner-source" "an inner source that the tunnel may not bring in"
    17 InnerNoRoute "inner-no-route" "an inner destination that is no workload of the tunnel's segment"
    18 InnerUnsupported "inner-unsupported" "neither IP, ARP nor neighbour discovery, inside a tunnel"
    19 Stray "stray" "of a tunnel protocol, but no tunnel's"
    20 Oam "oam" "a control message of a tunnel protocol"
    21 Group "group" "a workload's multicast or broadcast"
    22 InnerGroup "inner-group" "multicast or broadcast in a tunnel without flood"
    23 TunnelId "tunnel-id" "a GRE key that none of its far end's tunnels has"
    24 TunnelChecksum "tunnel-checksum" "wrong or missing GRE checksum"
    25 TunnelSequence "tunnel-sequence" "GRE sequence number missing, or older than the last"
    26 TunnelOption "tunnel-option" "an option or extension that does not fit into the tunnel header"
    27 TunnelLength "tunnel-length" "the tunnel header's own length disagrees with the packet's"
    28 Ecn "ecn" "congestion marked on a packet that can't bear the mark (RFC 6040)"
    29 Ttl "ttl" "TTL or hop limit used up"
    30 TooBigNoDf "too-big-no-df" "IPv4 without DF, larger than its tunnel's MTU; the sender is told"
    31 IcmpLimit "icmp-limit" "too big, and more of that than is answered"
    32 NoMac "no-mac" "the workload's MAC address is not known"
    33 FloodTooBig "flood-too-big" "multicast or broadcast larger than a tunnel's MTU: no copy for that tunnel"
    34 NotFlooded "not-flooded" "multicast or broadcast of which a copy could not be made"
}

impl Reason {
    /// Whether the packet went on to the host's stack; all other reasons are of drops.
    pub fn passes(self) -> bool {
        matches!(self, Self::Stray | Self::Oam | Self::Group)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
