//! Whether the numbers are those of bpf/abi.h.

use super::*;
use crate::protocol::Protocol;
use crate::reason::Reason;

const HEADER: &str = include_str!("../../../bpf/abi.h");

/// The number that abi.h gives to a name, in an enum or a #define.
fn number(name: &str) -> u32 {
    // Long lines are broken.
    let header = HEADER.replace("\\\n", " ").replace("=\n", "= ");
    let rest = header
        .lines()
        .find_map(|line| {
            let line = line.trim().trim_start_matches("#define ");
            line.strip_prefix(name)?.strip_prefix([' ', '='])
        })
        .unwrap_or_else(|| panic!("{name} is not in abi.h"));
    let text = rest.trim_start_matches([' ', '=']);
    let text = text.split([',', '/']).next().unwrap().trim();
    match text.trim_matches(['(', ')']).split_once(" << ") {
        Some((one, shift)) => {
            one.trim_end_matches('U').parse::<u32>().unwrap() << shift.parse::<u32>().unwrap()
        }
        None => text.parse().unwrap_or_else(|_| panic!("{name}: {text:?}")),
    }
}

#[test]
fn constants_are_those_of_abi_h() {
    for (name, value) in [
        ("MPTM_LAYOUT", LAYOUT),
        ("MPTM_MAX_HEADER", MAX_HEADER as u32),
        ("MPTM_MAX_FLOOD_MEMBERS", MAX_FLOOD_MEMBERS as u32),
        ("MPTM_FLOOD_SUM", FLOOD_SUM),
        ("MPTM_PROGRAM_COUNT", PROGRAM_COUNT),
        ("MPTM_TABLE_IPV6", TABLE_IPV6),
        ("MPTM_ACTIONS", ACTIONS),
        ("MPTM_SNAP", SNAP as u32),
        ("MPTM_TUNNEL_IPV4", tunnel_flags::IPV4),
        ("MPTM_TUNNEL_UDP", tunnel_flags::UDP),
        ("MPTM_TUNNEL_KEEP_DESTINATION", tunnel_flags::KEEP_DESTINATION),
        ("MPTM_TUNNEL_KEEP_SOURCE", tunnel_flags::KEEP_SOURCE),
        ("MPTM_TUNNEL_INNER_MAC", tunnel_flags::INNER_MAC),
        ("MPTM_TUNNEL_STACK", tunnel_flags::STACK),
        ("MPTM_TUNNEL_DEBUG", tunnel_flags::DEBUG),
        ("MPTM_TUNNEL_UNRESOLVED", tunnel_flags::UNRESOLVED),
        ("MPTM_TUNNEL_IPV6", tunnel_flags::IPV6),
        ("MPTM_TUNNEL_IP_PAYLOAD", tunnel_flags::IP_PAYLOAD),
        ("MPTM_TUNNEL_TTL_INHERIT", tunnel_flags::TTL_INHERIT),
        ("MPTM_TUNNEL_TOS_INHERIT", tunnel_flags::TOS_INHERIT),
        ("MPTM_TUNNEL_DF_INHERIT", tunnel_flags::DF_INHERIT),
        ("MPTM_TUNNEL_DF_UNSET", tunnel_flags::DF_UNSET),
        ("MPTM_TUNNEL_LABEL_FLOW", tunnel_flags::LABEL_FLOW),
        ("MPTM_TUNNEL_LABEL_INHERIT", tunnel_flags::LABEL_INHERIT),
        ("MPTM_TUNNEL_UDP_CHECKSUM", tunnel_flags::UDP_CHECKSUM),
        ("MPTM_TUNNEL_GRE_CHECKSUM", tunnel_flags::GRE_CHECKSUM),
        ("MPTM_TUNNEL_SEQUENCE", tunnel_flags::SEQUENCE),
        ("MPTM_TUNNEL_ETHERTYPE", tunnel_flags::ETHERTYPE),
        ("MPTM_TUNNEL_IP_PROTOCOL", tunnel_flags::IP_PROTOCOL),
        ("MPTM_TUNNEL_GTPU_LENGTH", tunnel_flags::GTPU_LENGTH),
        ("MPTM_TUNNEL_MSS_CLAMP", tunnel_flags::MSS_CLAMP),
        ("MPTM_TUNNEL_PCP_INHERIT", tunnel_flags::PCP_INHERIT),
        ("MPTM_TUNNEL_FLOOD", tunnel_flags::FLOOD),
        ("MPTM_MAX_CRITICAL", MAX_CRITICAL as u32),
        ("MPTM_GRE_KEY", GRE_KEY.into()),
        ("MPTM_INTERFACE_CPUS", interface_flags::CPUS.into()),
        ("MPTM_MANAGE_OFFLOADS", interface_flags::OFFLOADS.into()),
        ("MPTM_MANAGE_MTU", interface_flags::MTU.into()),
        ("MPTM_MANAGE_PROMISC", interface_flags::PROMISC.into()),
        ("MPTM_MANAGE_SYSCTLS", interface_flags::SYSCTLS.into()),
        ("MPTM_ROLE_UNDERLAY", role::UNDERLAY),
        ("MPTM_ROLE_WORKLOAD", role::WORKLOAD),
        ("MPTM_ROLE_REDIRECT", role::REDIRECT),
        ("MPTM_ROLE_PASS", role::PASS),
        ("MPTM_TARGET_WORKLOAD", target::WORKLOAD.into()),
        ("MPTM_TARGET_TUNNEL", target::TUNNEL.into()),
        ("MPTM_TARGET_GATEWAY", target::GATEWAY.into()),
        ("MPTM_NAME_INTERFACE", name_kind::INTERFACE),
        ("MPTM_NAME_TUNNEL", name_kind::TUNNEL),
        ("MPTM_NAME_SEGMENT", name_kind::SEGMENT),
        ("MPTM_NAME_PEER_NETNS", name_kind::PEER_NETNS),
        ("MPTM_NAME_PEER", name_kind::PEER),
        ("MPTM_NAME_NEXT_HOP", name_kind::NEXT_HOP),
    ] {
        assert_eq!(number(name), value, "{name}");
    }
}

#[test]
fn protocols_and_reasons_are_those_of_abi_h() {
    for protocol in Protocol::ALL {
        let name = format!("MPTM_PROTOCOL_{}", protocol.name().to_uppercase());
        assert_eq!(number(&name), protocol as u32, "{name}");
    }
    assert_eq!(number("MPTM_PROTOCOL_COUNT") as usize, Protocol::ALL.len() + 1);
    for reason in Reason::ALL {
        let name = format!("MPTM_DROP_{}", reason.name().to_uppercase().replace('-', "_"));
        assert_eq!(number(&name), *reason as u32, "{name}");
    }
    assert_eq!(number("MPTM_DROP_COUNT") as usize, Reason::ALL.len() + 1);
}

#[test]
fn addresses_there_and_back() {
    for text in ["10.250.1.100", "255.255.255.255", "2001:db8::1"] {
        let address: IpAddr = text.parse().unwrap();
        assert_eq!(unmap_address(map_address(address)), Some(address));
    }
    assert_eq!(unmap_address([0; 16]), None);
    assert_eq!(map_address("1.2.3.4".parse().unwrap())[8..], [0, 0, 0xff, 0xff, 1, 2, 3, 4]);
}

#[test]
fn text_fields_cut_and_keep() {
    assert_eq!(field_text(&text_field::<8>("veth-a")), "veth-a");
    assert_eq!(field_text(&text_field::<4>("abcd")), "abcd");
}
