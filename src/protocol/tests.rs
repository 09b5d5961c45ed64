//! What all protocols have in common, against bytes by hand; and what their own tests share.

use super::*;
use crate::config::model::{Df, FlowLabel, GeneveOption, Pcp, Tos, Ttl};
use crate::kernel::abi::tunnel_flags as flag;
use crate::mac::MacAddr;
use crate::state::RemoteMac;

/// RFC 894: destination and source.
const MACS: [u8; 12] = [0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1];

/// A tunnel over IPv4.
pub fn over_ipv4(protocol: Protocol) -> Tunnel {
    let (has_ip, has_udp) = (protocol.has_outer_ip(), protocol.has_udp());
    Tunnel {
        id: (protocol.has_id() == HasId::Always).then_some(42),
        service_id: (protocol == Protocol::Qinq).then_some(100),
        local: has_ip.then(|| [10, 30, 30, 1].into()),
        remote: has_ip.then(|| [10, 30, 30, 2].into()),
        local_mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        remote_mac: RemoteMac::Known(MacAddr([2, 0, 0, 0, 0, 2])),
        src_ports: if has_udp { (49152, 65535) } else { (0, 0) },
        dst_port: protocol.default_port().unwrap_or(if has_udp { 5555 } else { 0 }),
        mtu: 1400,
        ..Tunnel::new(protocol, "default".into(), "eth0".into())
    }
}

/// The same over IPv6.
pub fn over_ipv6(protocol: Protocol) -> Tunnel {
    let address = |text: &str| protocol.has_outer_ip().then(|| text.parse().unwrap());
    Tunnel {
        local: address("fd00:30::1"),
        remote: address("fd00:30::2"),
        udp_checksum: protocol.has_udp(),
        ..over_ipv4(protocol)
    }
}

/// Tunnels of every protocol over both families, each with each option that it has.
pub fn samples() -> Vec<Tunnel> {
    let mut samples = Vec::new();
    for protocol in Protocol::ALL {
        for base in [over_ipv4(protocol), over_ipv6(protocol)] {
            let mut add = |change: &dyn Fn(&mut Tunnel)| {
                let mut tunnel = base.clone();
                change(&mut tunnel);
                samples.push(tunnel);
            };
            add(&|_| {});
            add(&|tunnel| tunnel.mss_clamp = true);
            add(&|tunnel| (tunnel.redirect, tunnel.debug, tunnel.mtu) = (false, true, 9000));
            add(&|tunnel| tunnel.remote_mac = RemoteMac::Unresolved);
            let options: &[&dyn Fn(&mut Tunnel)] = match protocol {
                Protocol::Vlan | Protocol::Qinq => {
                    &[&|tunnel| tunnel.pcp = Pcp::Fixed(7), &|tunnel| tunnel.pcp = Pcp::Inherit, &|tunnel| {
                        (tunnel.local_mac, tunnel.remote_mac) = (None, RemoteMac::Inner)
                    }]
                }
                Protocol::Vxlan => &[&|tunnel| tunnel.gbp = Some(0), &|tunnel| tunnel.gbp = Some(0xffff)],
                Protocol::Geneve => &[
                    &|tunnel| tunnel.payload = Payload::Ip,
                    &|tunnel| tunnel.options = geneve_options(),
                    &|tunnel| tunnel.id = Some(0xff_ffff),
                ],
                Protocol::Gre | Protocol::Gretap => &[
                    &|tunnel| tunnel.id = Some(0),
                    &|tunnel| (tunnel.id, tunnel.local_id) = (Some(u32::MAX), Some(0)),
                    &|tunnel| tunnel.checksum = true,
                    &|tunnel| tunnel.sequence = true,
                    &|tunnel| (tunnel.id, tunnel.checksum, tunnel.sequence) = (Some(7), true, true),
                ],
                Protocol::Gtpu => &[
                    &|tunnel| (tunnel.id, tunnel.local_id) = (Some(u32::MAX), Some(1)),
                    &|tunnel| tunnel.qfi = Some(0),
                    &|tunnel| (tunnel.qfi, tunnel.uplink) = (Some(63), true),
                ],
                Protocol::Gue => &[&|tunnel| tunnel.variant = 1],
                Protocol::Ipip | Protocol::Fou => &[],
            };
            options.iter().for_each(|change| add(change));
            if protocol.payload() == Payload::Ethernet {
                add(&|tunnel| (tunnel.flood, tunnel.inner_mac) = (true, Some(MacAddr([6; 6]))));
            }
            if protocol.has_udp() {
                add(&|tunnel| tunnel.udp_checksum = !tunnel.udp_checksum);
                add(&|tunnel| (tunnel.src_ports, tunnel.dst_port) = ((1, 1), 65535));
            }
            if protocol.has_outer_ip() {
                add(&|tunnel| (tunnel.ttl, tunnel.tos) = (Ttl::Inherit, Tos::Inherit));
                add(&|tunnel| (tunnel.ttl, tunnel.tos) = (Ttl::Fixed(1), Tos::Fixed(0xfc)));
                if tunnel_is_ipv6(&base) {
                    add(&|tunnel| tunnel.flow_label = FlowLabel::Inherit);
                    add(&|tunnel| tunnel.flow_label = FlowLabel::Fixed(0));
                    add(&|tunnel| tunnel.flow_label = FlowLabel::Fixed(0xf_ffff));
                } else {
                    add(&|tunnel| tunnel.df = Df::Unset);
                    add(&|tunnel| tunnel.df = Df::Inherit);
                }
            }
        }
    }
    samples
}

fn tunnel_is_ipv6(tunnel: &Tunnel) -> bool {
    tunnel.remote.is_some_and(|remote| remote.is_ipv6())
}

/// One that is critical between two that are not, as long and as short as can be.
pub fn geneve_options() -> Vec<GeneveOption> {
    vec![
        GeneveOption { class: 0x0102, kind: 0x03, data: vec![] },
        GeneveOption { class: 0xfffe, kind: 0x81, data: vec![0xde, 0xad, 0xbe, 0xef] },
        GeneveOption { class: 0, kind: 0x7f, data: (0..100).collect() },
    ]
}

/// A protocol's own header.
pub fn own(tunnel: &Tunnel) -> Vec<u8> {
    header(tunnel).own().to_vec()
}

#[test]
fn names_and_numbers_there_and_back() {
    for protocol in Protocol::ALL {
        assert_eq!(Protocol::from_name(protocol.name()), Some(protocol));
        assert_eq!(Protocol::from_number(protocol as u8), Some(protocol));
    }
    assert!(Protocol::ALL.is_sorted_by_key(|protocol| protocol.name()));
    assert_eq!(Protocol::from_number(0), None);
}

#[test]
fn ethernet_ipv4_and_udp_by_hand() {
    let tunnel = over_ipv4(Protocol::Fou);
    let plain = header(&tunnel);
    let mut expected = MACS.to_vec();
    expected.extend([
        0x08, 0x00, // RFC 894
        0x45, 0x00, 0x00, 0x00, // RFC 791: version 4, 5 words; TOS; total length
        0x00, 0x00, 0x40, 0x00, // identification; DF, offset 0
        0x40, 0x11, 0x00, 0x00, // TTL 64, UDP, checksum
        10, 30, 30, 1, 10, 30, 30, 2, // source, destination
        0x00, 0x00, 0x15, 0xb3, // RFC 768: source port, destination port 5555
        0x00, 0x00, 0x00, 0x00, // length, checksum
    ]);
    assert_eq!(plain.bytes, expected);
    assert_eq!((plain.pop, plain.l3_offset, plain.l4_offset), (0, 14, 34));
    assert_eq!(plain.flags, flag::IPV4 | flag::UDP);

    let changed = |change: &dyn Fn(&mut Tunnel)| {
        let mut tunnel = tunnel.clone();
        change(&mut tunnel);
        let header = header(&tunnel);
        (header.bytes[20], header.bytes[22], header.flags & !plain.flags)
    };
    assert_eq!(changed(&|tunnel| tunnel.df = Df::Unset), (0, 64, flag::DF_UNSET));
    assert_eq!(changed(&|tunnel| tunnel.df = Df::Inherit), (0, 64, flag::DF_INHERIT));
    assert_eq!(changed(&|tunnel| tunnel.ttl = Ttl::Fixed(255)), (0x40, 255, 0));
    assert_eq!(changed(&|tunnel| tunnel.ttl = Ttl::Inherit), (0x40, 0, flag::TTL_INHERIT));
    assert_eq!(changed(&|tunnel| tunnel.tos = Tos::Fixed(0xb8)), (0x40, 64, 0), "TOS is filled in");
    assert_eq!(changed(&|tunnel| tunnel.tos = Tos::Inherit), (0x40, 64, flag::TOS_INHERIT));
    assert_eq!(changed(&|tunnel| tunnel.udp_checksum = true), (0x40, 64, flag::UDP_CHECKSUM));
}

#[test]
fn ethernet_ipv6_and_udp_by_hand() {
    let tunnel = Tunnel { flow_label: FlowLabel::Fixed(0xabcde), ..over_ipv6(Protocol::Fou) };
    let fixed = header(&tunnel);
    let mut expected = MACS.to_vec();
    expected.extend([
        0x86, 0xdd, // RFC 2464
        0x60, 0x0a, 0xbc, 0xde, // RFC 8200: version 6, traffic class, flow label
        0x00, 0x00, 17, 64, // payload length, UDP, hop limit
        0xfd, 0, 0, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // source
        0xfd, 0, 0, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, // destination
        0x00, 0x00, 0x15, 0xb3, 0x00, 0x00, 0x00, 0x00, // RFC 768
    ]);
    assert_eq!(fixed.bytes, expected);
    assert_eq!((fixed.pop, fixed.l3_offset, fixed.l4_offset), (0, 14, 54));
    assert_eq!(fixed.flags, flag::IPV6 | flag::UDP | flag::UDP_CHECKSUM);
    for (flow_label, expected) in
        [(FlowLabel::Flow, flag::LABEL_FLOW), (FlowLabel::Inherit, flag::LABEL_INHERIT)]
    {
        let header = header(&Tunnel { flow_label, ..tunnel.clone() });
        assert_eq!(header.bytes[14..18], [0x60, 0, 0, 0]);
        assert_eq!(header.flags & !fixed.flags, expected);
    }
    let inherited = header(&Tunnel { ttl: Ttl::Inherit, ..tunnel });
    assert_eq!((inherited.bytes[21], inherited.flags & !fixed.flags), (0, flag::TTL_INHERIT));
}

/// A ones' complement sum over words as they are in memory, as the programs fold it.
fn checksum(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_ne_bytes()
}

/// RFC 1071 over bytes in network byte order: 0xffff if the checksum in them is right.
fn sum_be(bytes: &[u8]) -> u32 {
    let mut sum: u32 = bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[test]
fn ip_sum_makes_a_right_checksum() {
    let header = header(&over_ipv4(Protocol::Geneve));
    let length = u32::from(u16::from_ne_bytes(100_u16.to_be_bytes()));
    let mut ip = header.bytes[14..34].to_vec();
    ip[2..4].copy_from_slice(&100_u16.to_be_bytes());
    ip[10..12].copy_from_slice(&checksum(header.ip_sum() + length));
    assert_eq!(sum_be(&ip), 0xffff);
}

#[test]
fn sum_makes_a_right_udp_checksum() {
    for tunnel in [over_ipv6(Protocol::Gtpu), Tunnel { udp_checksum: true, ..over_ipv4(Protocol::Vxlan) }] {
        let header = header(&tunnel);
        let (l3, l4) = (usize::from(header.l3_offset), usize::from(header.l4_offset));
        let mut udp = header.bytes[l4..].to_vec();
        let length = (udp.len() as u16).to_be_bytes();
        udp[4..6].copy_from_slice(&length);
        // Once in the header, once in the pseudo header.
        let sum = header.sum() + 2 * u32::from(u16::from_ne_bytes(length));
        udp[6..8].copy_from_slice(&checksum(sum));
        let addresses = if header.flags & flag::IPV4 != 0 { l3 + 12 } else { l3 + 8 };
        let mut all = header.bytes[addresses..l4].to_vec();
        all.extend([0, 17, length[0], length[1]]);
        all.extend(udp);
        assert_eq!(sum_be(&all), 0xffff, "{}", tunnel.protocol);
    }
    assert_eq!(header(&over_ipv4(Protocol::Vxlan)).sum(), 0, "none is wanted");
}

#[test]
fn sum_makes_a_right_gre_checksum() {
    let tunnel = Tunnel { checksum: true, id: Some(0x1234_5678), ..over_ipv6(Protocol::Gretap) };
    let header = header(&tunnel);
    let mut gre = header.bytes[usize::from(header.l4_offset)..].to_vec();
    gre[4..6].copy_from_slice(&checksum(header.sum()));
    assert_eq!(sum_be(&gre), 0xffff);
}

#[test]
fn room_that_headers_take() {
    let of = |tunnel: Tunnel| overhead(&tunnel);
    // As everybody knows: 50 bytes of VXLAN, 24 of GRE.
    assert_eq!(of(over_ipv4(Protocol::Vxlan)), 50);
    assert_eq!(of(over_ipv6(Protocol::Vxlan)), 70);
    assert_eq!(of(over_ipv4(Protocol::Geneve)), 50);
    assert_eq!(of(Tunnel { payload: Payload::Ip, ..over_ipv4(Protocol::Geneve) }), 36);
    assert_eq!(of(over_ipv4(Protocol::Gre)), 24);
    assert_eq!(of(over_ipv4(Protocol::Gretap)), 38);
    assert_eq!(of(over_ipv4(Protocol::Ipip)), 20);
    assert_eq!(of(over_ipv6(Protocol::Ipip)), 40);
    assert_eq!(of(over_ipv4(Protocol::Fou)), 28);
    assert_eq!(of(over_ipv4(Protocol::Gue)), 32);
    assert_eq!(of(over_ipv4(Protocol::Gtpu)), 36);
    assert_eq!(of(Tunnel { qfi: Some(1), ..over_ipv4(Protocol::Gtpu) }), 44);
    // One tag does not count against the MTU (IEEE 802.3, 3.2.7); Linux sends no frame that is longer by two.
    assert_eq!(of(over_ipv4(Protocol::Vlan)), 0);
    assert_eq!(of(over_ipv4(Protocol::Qinq)), 4);
}

#[test]
fn headers_fit() {
    let longest = samples().iter().map(|tunnel| header(tunnel).bytes.len()).max();
    assert_eq!(longest, Some(14 + 40 + 8 + 8 + 116));
    let options = vec![GeneveOption { class: 1, kind: 1, data: vec![0; 116] }];
    let full = header(&Tunnel { options, ..over_ipv6(Protocol::Geneve) });
    assert!(full.bytes.len() <= crate::kernel::abi::MAX_HEADER);
}
