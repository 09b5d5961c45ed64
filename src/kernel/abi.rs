//! The structs of bpf/abi.h, which see for what the fields mean. Integers are in host byte order, addresses 16 bytes in
//! network byte order. Sizes and offsets are compared with the compiled object's BTF at compile time, below.

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::skeleton::types as c;

/// MPTM_LAYOUT.
pub const LAYOUT: u32 = 4;
/// The first one that can be migrated.
pub const OLDEST_LAYOUT: u32 = 1;
/// MPTM_MAX_HEADER, in bytes.
pub const MAX_HEADER: usize = 192;
/// MPTM_MAX_FLOOD_MEMBERS: of one segment.
pub const MAX_FLOOD_MEMBERS: usize = 256;
/// MPTM_FLOOD_SUM.
pub const FLOOD_SUM: u32 = 1 << 0;
/// MPTM_PROGRAM_COUNT.
pub const PROGRAM_COUNT: u32 = 5;
/// MPTM_TABLE_IPV6: in the table of an IPv6 key.
pub const TABLE_IPV6: u32 = 1 << 31;
/// MPTM_ACTIONS: rows of a program in `actions`.
pub const ACTIONS: u32 = 8;
/// MPTM_SNAP, in bytes.
pub const SNAP: usize = 128;

/// MPTM_MAX_CRITICAL: of a tunnel's GENEVE options.
pub const MAX_CRITICAL: usize = 4;
/// MPTM_ANY_ID: in the protocol of an endpoint that stands for all of a far end's ids.
pub const ANY_ID: u16 = 0x8000;
/// MPTM_GRE_KEY: in the port of an endpoint of GRE.
pub const GRE_KEY: u16 = 1;

/// MPTM_TUNNEL_*.
pub mod tunnel_flags {
    /// There is an outer IPv4 header.
    pub const IPV4: u32 = 1 << 0;
    /// There is an outer UDP header.
    pub const UDP: u32 = 1 << 1;
    /// The outer destination MAC address is the inner frame's.
    pub const KEEP_DESTINATION: u32 = 1 << 2;
    /// Rewrite the inner destination MAC address.
    pub const INNER_MAC: u32 = 1 << 3;
    /// Hand the outer packet to the host's stack.
    pub const STACK: u32 = 1 << 4;
    /// Report packets to `events`.
    pub const DEBUG: u32 = 1 << 5;
    /// The next hop's MAC address is not known.
    pub const UNRESOLVED: u32 = 1 << 6;
    /// The outer source MAC address is the inner frame's.
    pub const KEEP_SOURCE: u32 = 1 << 7;
    /// There is an outer IPv6 header.
    pub const IPV6: u32 = 1 << 8;
    /// It carries IP packets.
    pub const IP_PAYLOAD: u32 = 1 << 9;
    /// Outer TTL: the inner one's.
    pub const TTL_INHERIT: u32 = 1 << 10;
    /// Outer DSCP: the inner one's.
    pub const TOS_INHERIT: u32 = 1 << 11;
    /// Outer DF: the inner one's.
    pub const DF_INHERIT: u32 = 1 << 12;
    /// No outer DF.
    pub const DF_UNSET: u32 = 1 << 13;
    /// Outer flow label: a hash.
    pub const LABEL_FLOW: u32 = 1 << 14;
    /// Outer flow label: the inner one's.
    pub const LABEL_INHERIT: u32 = 1 << 15;
    /// Fill in, and over IPv6 want, the UDP checksum.
    pub const UDP_CHECKSUM: u32 = 1 << 16;
    /// Fill in, and want, the GRE checksum.
    pub const GRE_CHECKSUM: u32 = 1 << 17;
    /// Fill in, and want, the GRE sequence number.
    pub const SEQUENCE: u32 = 1 << 18;
    /// Fill in the payload's EtherType.
    pub const ETHERTYPE: u32 = 1 << 19;
    /// Fill in the payload's IP protocol.
    pub const IP_PROTOCOL: u32 = 1 << 20;
    /// Fill in the GTP-U length.
    pub const GTPU_LENGTH: u32 = 1 << 21;
    /// Lower the MSS of TCP SYNs.
    pub const MSS_CLAMP: u32 = 1 << 22;
    /// The priority of tags: the inner frame's.
    pub const PCP_INHERIT: u32 = 1 << 23;
    /// Takes multicast and broadcast.
    pub const FLOOD: u32 = 1 << 24;
}

/// MPTM_MANAGE_* and MPTM_INTERFACE_*.
pub mod interface_flags {
    /// Outer packets for the host's stack go there through `cpus`.
    pub const CPUS: u16 = 1 << 8;
    /// May be set: offloads.
    pub const OFFLOADS: u16 = 1 << 0;
    /// MTU.
    pub const MTU: u16 = 1 << 1;
    /// Promiscuous mode.
    pub const PROMISC: u16 = 1 << 2;
    /// Sysctls.
    pub const SYSCTLS: u16 = 1 << 3;
}

/// enum mptm_role.
pub mod role {
    /// mptm_decap.
    pub const UNDERLAY: u32 = 1;
    /// mptm_encap.
    pub const WORKLOAD: u32 = 2;
    /// mptm_redirect.
    pub const REDIRECT: u32 = 3;
    /// mptm_pass.
    pub const PASS: u32 = 4;
}

/// enum mptm_target.
pub mod target {
    /// `id` is a slot.
    pub const WORKLOAD: u16 = 1;
    /// `id` is a tunnel.
    pub const TUNNEL: u16 = 2;
    /// mptm answers for it.
    pub const GATEWAY: u16 = 3;
}

/// enum mptm_name_kind.
pub mod name_kind {
    /// By slot.
    pub const INTERFACE: u32 = 1;
    /// By tunnel id.
    pub const TUNNEL: u32 = 2;
    /// By table.
    pub const SEGMENT: u32 = 3;
    /// By slot: the peer's namespace.
    pub const PEER_NETNS: u32 = 4;
    /// By slot: the peer's name.
    pub const PEER: u32 = 5;
    /// By tunnel id: the next hop whose MAC address was looked up.
    pub const NEXT_HOP: u32 = 6;
}

/// Declares a mirror of `struct mptm_NAME`, and compares it with the C side, field by field.
macro_rules! mirror {
    ($(#[$doc:meta])* $name:ident = $c:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        const _: () = {
            assert!(size_of::<$name>() == size_of::<c::$c>());
            $(assert!(offset_of!($name, $field) == offset_of!(c::$c, $field));)*
        };

        impl Default for $name {
            fn default() -> Self {
                Self::new_zeroed()
            }
        }
    };
}

mirror! {
    /// Value of `interfaces`; the key is the ifindex.
    Interface = mptm_interface {
        /// `role::*`.
        role: u32,
        /// In `devices` and `names`.
        slot: u32,
        /// Workload: its segment's table.
        table: u32,
        /// Redirect: the slot.
        to: u32,
        /// Its own.
        mac: [u8; 6],
        /// `interface_flags::*`.
        flags: u16,
    }
}

mirror! {
    /// Key of `routes`.
    RouteKey = mptm_route_key {
        /// Whose.
        table: u32,
        /// Mapped.
        address: [u8; 16],
    }
}

mirror! {
    /// Key of `prefixes`.
    PrefixKey = mptm_prefix_key {
        /// Bits: 32, and the mapped prefix's.
        prefix_len: u32,
        /// Whose.
        table: u32,
        /// Mapped.
        address: [u8; 16],
    }
}

mirror! {
    /// Value of `routes` and `prefixes`.
    Route = mptm_route {
        /// Slot or tunnel.
        id: u32,
        /// Table of pairs, or 0.
        pairs: u32,
        /// `target::*`.
        target: u16,
        /// Workload's.
        mac: [u8; 6],
    }
}

mirror! {
    /// Key of `endpoints`; the value is a tunnel id.
    Endpoint = mptm_endpoint {
        /// Outer source, mapped.
        remote: [u8; 16],
        /// Outer destination, mapped.
        local: [u8; 16],
        /// VNI, VLAN id.
        id: u32,
        /// Underlay.
        ifindex: u32,
        /// UDP destination port.
        port: u16,
        /// enum mptm_protocol.
        protocol: u16,
    }
}

mirror! {
    /// Value of `slots`.
    Slot = mptm_slot {
        /// The interface's own.
        mac: [u8; 6],
        /// Zero.
        pad: [u8; 2],
    }
}

mirror! {
    /// Value of `tunnels`.
    Tunnel = mptm_tunnel {
        /// The outer header.
        header: [u8; MAX_HEADER],
        /// How much of it.
        header_len: u16,
        /// Inner bytes that it replaces.
        pop: u16,
        /// Of the outer IP header.
        l3_offset: u16,
        /// Of the outer UDP or GRE header.
        l4_offset: u16,
        /// Of the payload's type.
        type_offset: u16,
        /// Of GRE's sequence number.
        sequence_offset: u16,
        /// Partial sum, of words in the order of memory.
        ip_sum: u32,
        /// Partial sum for UDP or GRE.
        sum: u32,
        /// Bytes.
        mtu: u32,
        /// `tunnel_flags::*`.
        flags: u32,
        /// Slot of the underlay.
        device: u32,
        /// The segment's.
        table: u32,
        /// How many source ports.
        port_count: u32,
        /// The first.
        port_min: u16,
        /// enum mptm_protocol.
        protocol: u16,
        /// With INNER_MAC.
        inner_mac: [u8; 6],
        /// DSCP, in the upper six bits.
        tos: u8,
        /// With TTL_INHERIT, of what has none.
        ttl: u8,
        /// 1: `local_id` counts.
        has_local_id: u32,
        /// The id of received packets.
        local_id: u32,
        /// Class and type of critical options.
        critical: [u32; MAX_CRITICAL],
    }
}

mirror! {
    /// Where a copy goes.
    FloodMember = mptm_flood_member {
        /// Tunnel, or slot of a workload.
        id: u32,
        /// Where it leaves by.
        ifindex: u32,
    }
}

mirror! {
    /// Value of `floods`; the key is a table.
    Flood = mptm_flood {
        /// How many.
        tunnels: u32,
        /// How many, after them.
        workloads: u32,
        /// `FLOOD_SUM`.
        flags: u32,
        /// Zero.
        pad: u32,
        /// Tunnels, then workloads.
        members: [FloodMember; MAX_FLOOD_MEMBERS],
    }
}

mirror! {
    /// Value of `tunnel_state`.
    TunnelState = mptm_tunnel_state {
        /// The next sequence number.
        sent: u32,
        /// The last one received.
        received: u32,
        /// Whether there was one.
        seen: u32,
        /// Zero.
        pad: u32,
    }
}

mirror! {
    /// Packets and bytes.
    Counter = mptm_counter {
        /// Frames.
        packets: u64,
        /// Their bytes.
        bytes: u64,
    }
}

mirror! {
    /// Value of `tunnel_stats`, for each CPU.
    TunnelStats = mptm_tunnel_stats {
        /// Sent.
        encap: Counter,
        /// Received.
        decap: Counter,
    }
}

mirror! {
    /// Key of `names`.
    NameKey = mptm_name_key {
        /// `name_kind::*`.
        kind: u32,
        /// Slot, tunnel id or table.
        id: u32,
    }
}

mirror! {
    /// Value of `names`.
    NameText = mptm_name {
        /// Zero-terminated unless full.
        text: [u8; 128],
    }
}

mirror! {
    /// Key of `saved`.
    SavedKey = mptm_saved_key {
        /// `Setting::key`.
        setting: [u8; 40],
        /// Of the device.
        ifindex: u32,
        /// Zero.
        pad: u32,
        /// Cookie of its namespace.
        netns: u64,
    }
}

mirror! {
    /// Value of `saved`.
    Saved = mptm_saved {
        /// What it was.
        before: u64,
        /// What mptm made it.
        value: u64,
        /// Where the device is.
        netns: [u8; 128],
        /// Its name.
        device: [u8; 16],
    }
}

mirror! {
    /// The row of `meta`.
    Meta = mptm_meta {
        /// MPTM_LAYOUT.
        layout: u32,
        /// Zero.
        pad: u32,
        /// Cookie of the managed namespace.
        netns: u64,
        /// SHA-256 of the object, or another name of the build.
        build: [u8; 32],
        /// Of mptm.
        version: [u8; 32],
    }
}

/// A record of `events`. (Its C twin is in no map's BTF; both sides assert the size.)
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub time: u64,
    /// Id.
    pub tunnel: u32,
    /// Where it came in.
    pub ifindex: u32,
    /// Bytes of the frame.
    pub length: u32,
    /// enum mptm_program.
    pub program: u16,
    /// enum xdp_action.
    pub action: u16,
    /// enum mptm_reason.
    pub reason: u16,
    /// Bytes of `data` that are filled.
    pub captured: u16,
    /// Zero.
    pub pad: u32,
    /// The frame's first bytes.
    pub data: [u8; SNAP],
}

const _: () = assert!(size_of::<Event>() == 160);

/// The 16-byte form of an address: IPv4 is mapped (RFC 4291, 2.5.5.2).
pub fn map_address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The reverse of `map_address`. All zero is none.
pub fn unmap_address(bytes: [u8; 16]) -> Option<IpAddr> {
    let v6 = Ipv6Addr::from(bytes);
    if v6.is_unspecified() {
        return None;
    }
    Some(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4))
}

/// How many bits of the 16-byte form come before an address's own.
pub fn mapped_bits(address: IpAddr) -> u32 {
    if address.is_ipv4() { 96 } else { 0 }
}

/// Text into a zero-filled field. The caller has checked that it fits.
pub fn text_field<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let length = text.len().min(N);
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
    field
}

/// Text out of a zero-filled field; what is not UTF-8 comes out as U+FFFD.
pub fn field_text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// The unspecified IPv4 address.
pub const UNSPECIFIED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

#[cfg(test)]
mod tests;
