//! The packets of the tests against the bytes of the RFCs: whoever expects must be right first.

#[path = "common/frame/mod.rs"]
mod frame;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use frame::*;

const A4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// The example of RFC 1071, 3; and an odd number of bytes, which counts as if a zero followed.
#[test]
fn internet_checksum() {
    assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    assert_eq!(checksum(&[0x01, 0x02, 0x03]), checksum(&[0x01, 0x02, 0x03, 0x00]));
    assert_eq!(checksum(&[]), 0xffff);
}

/// RFC 791, 3.1.
#[test]
fn ipv4() {
    let mut ip = Ipv4::new(A4, B4, UDP);
    ip.options = vec![0x94, 4, 0, 0];
    ip.fragment = DO_NOT_FRAGMENT;
    let bytes = ip.encode(b"payload!");
    assert_eq!(bytes[..10], [0x46, 0, 0, 32, 0, 7, 0x40, 0, 64, 17]);
    assert_eq!(bytes[12..24], [192, 0, 2, 1, 192, 0, 2, 2, 0x94, 4, 0, 0]);
    assert_eq!(checksum(&bytes[..24]), 0);
    assert_eq!(bytes[24..], *b"payload!");
    assert_eq!((type_of(&bytes), ip_protocol_of(&bytes)), (TYPE_IPV4, 4));
}

/// RFC 8200, 3 and 4.
#[test]
fn ipv6() {
    let mut ip = Ipv6::new(A6, B6, ICMPV6);
    (ip.traffic_class, ip.flow_label, ip.hop_limit) = (0xab, 0x1_2345, 9);
    let bytes = ip.encode(&[1, 2, 3]);
    assert_eq!(bytes[..8], [0x6a, 0xb1, 0x23, 0x45, 0, 3, 58, 9]);
    assert_eq!(bytes[8..24], A6.octets());
    assert_eq!(bytes[24..40], B6.octets());
    assert_eq!(bytes[40..], [1, 2, 3]);
    assert_eq!((type_of(&bytes), ip_protocol_of(&bytes)), (TYPE_IPV6, 41));

    let all = Ipv6::new(A6, B6, UDP)
        .extension(Extension::HopByHop(vec![5, 2, 0, 0]))
        .extension(Extension::Routing { kind: 4, segments_left: 0, data: vec![0; 12] })
        .extension(Extension::Fragment { offset: 185, more: true, id: 0x0102_0304 })
        .extension(encapsulation_limit(4))
        .encode(&[9]);
    assert_eq!(all[4..7], [0, 8 + 16 + 8 + 8 + 1, 0]);
    assert_eq!(all[40..48], [43, 0, 5, 2, 0, 0, 1, 0], "router alert (RFC 2711) and PadN of no bytes");
    assert_eq!(all[48..52], [44, 1, 4, 0]);
    assert_eq!(all[64..72], [60, 0, 0x05, 0xc9, 1, 2, 3, 4]);
    assert_eq!(all[72..80], [17, 0, 4, 1, 4, 1, 1, 0], "RFC 2473, 5.1");
    assert_eq!(all[80..], [9]);
}

#[test]
fn padding_of_options() {
    for length in 0..20 {
        let bytes = Ipv6::new(A6, B6, UDP).extension(Extension::HopByHop(vec![0; length])).encode(&[]);
        assert_eq!(bytes.len() % 8, 0);
        assert_eq!(bytes.len(), 40 + 8 * (usize::from(bytes[41]) + 1));
        assert!(bytes.len() < 40 + 2 + length + 8, "no more than is needed");
    }
}

/// RFC 768 and RFC 9293, 3.1, with pseudo headers added up by hand.
#[test]
fn transport() {
    let (a, b) = (IpAddr::from(A4), IpAddr::from(B4));
    let bytes = udp_with_checksum((a, 1), (b, 2), b"hi");
    // c000 0201 c000 0202 0011 000a (pseudo) + 0001 0002 000a + 6869
    let sum = 0xc000_u32 + 0x0201 + 0xc000 + 0x0202 + 0x11 + 0xa + 1 + 2 + 0xa + 0x6869;
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    assert_eq!(bytes, [&[0, 1, 0, 2, 0, 10][..], &sum.to_be_bytes(), b"hi"].concat());
    assert!(transport_checksum_is_right(a, b, UDP, &bytes));
    assert!(!transport_checksum_is_right(a, b, UDP, &udp(1, 2, b"hi")), "none is not right");

    let mut segment = Tcp::new(0x1234, 80);
    segment.flags = SYN | ACK;
    segment.options = mss_option(1460).to_vec();
    let bytes = with_transport_checksum(A6.into(), B6.into(), TCP, segment.encode(&[1]));
    assert_eq!(bytes[..16], [0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0x12, 0xff, 0xff]);
    assert_eq!(bytes[20..], [2, 4, 0x05, 0xb4, 1]);
    assert!(transport_checksum_is_right(A6.into(), B6.into(), TCP, &bytes));
    let mut wrong = bytes;
    wrong[24] ^= 1;
    assert!(!transport_checksum_is_right(A6.into(), B6.into(), TCP, &wrong));
}

/// A sum of zero is sent as 0xffff (RFC 768): 0 says that there is none.
#[test]
fn udp_checksum_of_zero() {
    let (a, b) = (IpAddr::from(A6), IpAddr::from(B6));
    let sum = udp_with_checksum((a, 1), (b, 2), &[0, 0])[6..8].to_vec();
    let bytes = udp_with_checksum((a, 1), (b, 2), &sum);
    assert_eq!(bytes[6..8], [0xff, 0xff]);
    assert!(transport_checksum_is_right(a, b, UDP, &bytes));
}

/// RFC 792, RFC 1191, RFC 4443 and RFC 4861.
#[test]
fn icmp_messages() {
    let echo = icmp(ICMP_ECHO_REQUEST, 0, 0x0001_0002, b"abcd");
    assert_eq!(echo[..2], [8, 0]);
    assert_eq!(echo[4..], *b"\x00\x01\x00\x02abcd");
    assert_eq!(checksum(&echo), 0);
    assert_eq!(icmp_fragmentation_needed(1400, &[])[4..], [0, 0, 0x05, 0x78]);

    let group = solicited_node(B6);
    assert_eq!(group, "ff02::1:ff00:2".parse::<Ipv6Addr>().unwrap());
    assert_eq!(group_mac(group.into()), [0x33, 0x33, 0xff, 0, 0, 2]);
    assert_eq!(group_mac([224, 129, 2, 3].into()), [1, 0, 0x5e, 1, 2, 3]);
    let option = link_layer_option(SOURCE_LINK_LAYER, [2, 0, 0, 0, 0, 1]);
    let solicitation = neighbour_solicitation((A6, group), B6, &option);
    assert_eq!(solicitation[..2], [135, 0]);
    assert_eq!(solicitation[4..8], [0; 4]);
    assert_eq!(solicitation[8..24], B6.octets());
    assert_eq!(solicitation[24..], [1, 1, 2, 0, 0, 0, 0, 1]);
    assert!(transport_checksum_is_right(A6.into(), group.into(), ICMPV6, &solicitation));
    let advertisement = neighbour_advertisement((B6, A6), NA_SOLICITED | NA_OVERRIDE, B6, &[]);
    assert_eq!(advertisement[..2], [136, 0]);
    assert_eq!(advertisement[4..8], [0x60, 0, 0, 0]);
    assert_eq!(icmpv6_packet_too_big((A6, B6), 1280, &[7])[4..], [0, 0, 5, 0, 7]);
}

/// RFC 826, IEEE 802.1Q and 802.1ad.
#[test]
fn ethernet() {
    let (a, b) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let bytes = Ethernet::new(b, a, TYPE_IPV6).tag(TYPE_QINQ, 0x2007).tag(TYPE_VLAN, 42).encode(&[1]);
    let tags = [0x88, 0xa8, 0x20, 0x07, 0x81, 0x00, 0, 42, 0x86, 0xdd, 1];
    assert_eq!(bytes, [&b[..], &a[..], &tags[..]].concat());
    let request = arp(ArpOperation::Request, (a, A4), ([0; 6], B4));
    assert_eq!(request[..8], [0, 1, 8, 0, 6, 4, 0, 1]);
    assert_eq!(request[8..], [2, 0, 0, 0, 0, 1, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 2]);
}

/// RFC 7348, 5; draft-smith-vxlan-group-policy, 2.1.
#[test]
fn vxlan_header() {
    assert_eq!(vxlan(0x12_3456, &[7]), [8, 0, 0, 0, 0x12, 0x34, 0x56, 0, 7]);
    let policy = Vxlan { vni: 1, group: Some(0xabcd) };
    assert_eq!(policy.encode(&[]), [0x88, 0, 0xab, 0xcd, 0, 0, 1, 0]);
}

/// RFC 8926, 3.4 and 3.5.
#[test]
fn geneve_header() {
    assert_eq!(geneve(0xab_cdef, &[], &[7]), [0, 0, 0x65, 0x58, 0xab, 0xcd, 0xef, 0, 7]);
    let bytes = Geneve { protocol: TYPE_IPV6, ..Geneve::new(1) }
        .option(0x0103, 0x85, &[1, 2, 3, 4])
        .option(0xffff, 1, &[])
        .encode(&[]);
    assert_eq!(bytes[..8], [3, 0x40, 0x86, 0xdd, 0, 0, 1, 0]);
    assert_eq!(bytes[8..], [0x01, 0x03, 0x85, 1, 1, 2, 3, 4, 0xff, 0xff, 1, 0]);
    assert_eq!(Geneve { control: true, ..Geneve::new(1) }.encode(&[])[1], 0x80);
}

/// RFC 2784, 2.1; RFC 2890, 2.
#[test]
fn gre_header() {
    assert_eq!(Gre::new(TYPE_IPV4).encode(&[7]), [0, 0, 8, 0, 7]);
    let full = Gre { protocol: TYPE_TEB, checksum: true, key: Some(0x0102_0304), sequence: Some(5) };
    let bytes = full.encode(&[7, 8, 9]);
    assert_eq!(bytes[..4], [0xb0, 0x00, 0x65, 0x58]);
    assert_eq!(bytes[6..], [0, 0, 1, 2, 3, 4, 0, 0, 0, 5, 7, 8, 9]);
    // b000 + 6558 + 0102 + 0304 + 0005 + 0708 + 0900 = 1 2d6b -> 2d6c
    assert_eq!(
        u16::from_be_bytes([bytes[4], bytes[5]]),
        !sum(&[0xb000, 0x6558, 0x102, 0x304, 5, 0x708, 0x900])
    );
    assert!(gre_checksum_is_right(&bytes));
    assert!(!gre_checksum_is_right(&Gre::new(TYPE_IPV4).encode(&[])), "none is not right");
}

fn sum(words: &[u16]) -> u16 {
    let sum: u32 = words.iter().map(|word| u32::from(*word)).sum();
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// draft-ietf-intarea-gue, 3.1.
#[test]
fn gue_header() {
    assert_eq!(Gue::new(IPV4_IN_IP).encode(&[7]), [0, 4, 0, 0, 7]);
    let control = Gue { control: true, flags: 0x0001, fields: vec![1, 2, 3, 4], ..Gue::new(41) };
    assert_eq!(control.encode(&[]), [0x21, 41, 0, 1, 1, 2, 3, 4]);
}

/// 3GPP TS 29.281, 5.1 and 5.2; 3GPP TS 38.415, 5.5.2.
#[test]
fn gtpu_header() {
    assert_eq!(gtpu(0x0102_0304, &[7]), [0x30, 255, 0, 1, 1, 2, 3, 4, 7]);
    let with_flow = Gtpu::new(1).pdu_session(true, 9).encode(&[7]);
    assert_eq!(with_flow, [0x34, 255, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0x85, 1, 0x10, 9, 0, 7]);
    let echo = Gtpu { message: GtpuMessage::EchoRequest, sequence: Some(0x1234), ..Gtpu::new(0) };
    assert_eq!(echo.encode(&[]), [0x32, 1, 0, 4, 0, 0, 0, 0, 0x12, 0x34, 0, 0]);
}
