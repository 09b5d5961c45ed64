//! An encoder of its own for packets and tunnels, as the RFCs have them: what the tests send and expect is made here
//! and nowhere in the product. Fields are in the host's byte order; checksums are as they stand in a packet.

#![allow(dead_code, unused_imports, reason = "each test program uses its own part")]

mod checksum;
mod ethernet;
mod icmp;
mod ip;
mod transport;
mod tunnel;

pub use checksum::{
    checksum, fill_gre_checksum, fill_transport_checksum, gre_checksum_is_right, transport_checksum,
    transport_checksum_is_right, with_transport_checksum,
};
pub use ethernet::{
    ArpOperation, BROADCAST, Ethernet, Mac, TYPE_ARP, TYPE_IPV4, TYPE_IPV6, TYPE_QINQ, TYPE_TEB, TYPE_VLAN,
    arp, group_mac,
};
pub use icmp::{
    ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST, ICMPV6_ECHO_REPLY, ICMPV6_ECHO_REQUEST, NA_OVERRIDE, NA_ROUTER,
    NA_SOLICITED, SOURCE_LINK_LAYER, TARGET_LINK_LAYER, icmp, icmp_fragmentation_needed, icmpv6,
    icmpv6_packet_too_big, link_layer_option, neighbour_advertisement, neighbour_solicitation,
    solicited_node,
};
pub use ip::{
    DO_NOT_FRAGMENT, Extension, GRE, ICMP, ICMPV6, IPV4_IN_IP, IPV6_IN_IP, Ipv4, Ipv6, MORE_FRAGMENTS, SCTP,
    TCP, UDP, encapsulation_limit, ip_packet, ip_protocol_of, type_of,
};
pub use transport::{ACK, FIN, RST, SYN, Tcp, mss_option, tcp, udp, udp_with_checksum};
pub use tunnel::{Geneve, Gre, Gtpu, GtpuMessage, Gue, Vxlan, geneve, geneve_option, gtpu, vxlan};
