//! What others call a key or a protocol: iproute2, Open vSwitch, systemd-networkd, WireGuard, the standards, and the
//! tool that mptm replaces.

/// Other names in lower case with underscores for dashes, and mptm's.
const KEYS: [(&str, &str); 29] = [
    ("vni vnid vid vlan_id vlid cvid c_vid ctag c_tag inner_id inner_vid key okey output_key", "id"),
    ("teid o_tei o_teid tun_id tunnel_id remote_id", "id"),
    ("ikey input_key i_tei i_teid local_teid", "local_id"),
    ("svid s_vid svlan s_vlan stag s_tag outer_id outer_vid outer_vlan", "service_id"),
    ("type kind", "protocol"),
    ("inner_proto_inherit innerprotoinherit", "payload"),
    ("dev link", "underlay"),
    ("endpoint remote_ip remote_addr dest_ip", "remote"),
    ("local_ip local_addr source_ip", "local"),
    ("source_mac", "local_mac"),
    ("dest_mac", "remote_mac"),
    ("allowed_ips allowedips inner_dst_ip", "inner"),
    ("inner_src_ip", "from"),
    ("inner_dest_mac", "inner_mac"),
    ("srcport sport encap_sport source_port", "src_port"),
    ("dstport dport encap_dport dest_port destination_port port", "dst_port"),
    ("hoplimit hop_limit", "ttl"),
    ("tclass traffic_class dscp", "tos"),
    ("pmtudisc nopmtudisc df_default", "df"),
    ("flowlabel label", "flow_label"),
    ("udpcsum udp_csum encap_csum", "udp_checksum"),
    ("prio priority tci cos vlan_prio", "pcp"),
    ("group_policy group_policy_id", "gbp"),
    ("opts tun_opts geneve_opts tlvs", "options"),
    ("csum", "checksum"),
    ("seq serial", "sequence"),
    ("gue_variant", "variant"),
    ("mss advmss clamp_mss", "mss_clamp"),
    ("enable_logs", "debug"),
];

/// The same for the keys of interfaces.
const INTERFACE_KEYS: [(&str, &str); 2] =
    [("gw gateways via next_hop", "gateway"), ("ip address", "addresses")];

/// The same for protocols.
const PROTOCOLS: [(&str, &str); 7] = [
    ("6in4 4in6 6in6 4in4 sit ip6tnl ipip6 ip6ip6 ip4ip6", "ipip"),
    ("ip6gre", "gre"),
    ("ip6gretap", "gretap"),
    ("gtp gtp-u gtp1u", "gtpu"),
    ("802.1q dot1q 8021q", "vlan"),
    ("802.1ad dot1ad 8021ad q-in-q", "qinq"),
    ("foo-over-udp", "fou"),
];

/// The key, one of `own`, that others call `other`.
pub(super) fn key(other: &str, own: &[&str]) -> Option<&'static str> {
    let other = plain(other);
    let tables = KEYS.iter().chain(&INTERFACE_KEYS);
    tables
        .filter(|(_, name)| own.contains(name))
        .find_map(|(others, name)| has(others, &other).then_some(*name))
}

/// What to write instead of another's name for a key.
pub(super) fn instead_of(other: &str, key: &str) -> String {
    match &*plain(other) {
        "dscp" => "did you mean `tos`? It is the DSCP times 4".to_owned(),
        "tci" => "did you mean `pcp`, or `id`?".to_owned(),
        "csum" => "did you mean `checksum`, GRE's own, or `udp_checksum`?".to_owned(),
        "pmtudisc" => "did you mean `df = \"set\"`?".to_owned(),
        "nopmtudisc" => "did you mean `df = \"unset\"`?".to_owned(),
        "inner_proto_inherit" | "innerprotoinherit" => "did you mean `payload = \"ip\"`?".to_owned(),
        "mss" | "advmss" => "did you mean `mss_clamp = true`?".to_owned(),
        _ => format!("did you mean `{key}`?"),
    }
}

/// What to write instead of another's name for a protocol.
pub(super) fn protocol(other: &str) -> Option<String> {
    let other = other.to_lowercase();
    let (_, name) = PROTOCOLS.iter().find(|(others, _)| has(others, &other))?;
    Some(match *name {
        "ipip" => {
            "write \"ipip\": it carries IPv4 and IPv6, and the family of `remote` is the outer one".to_owned()
        }
        "gre" | "gretap" => format!("write \"{name}\": the family of `remote` is the outer one"),
        _ => format!("did you mean `{name}`?"),
    })
}

fn plain(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

fn has(names: &str, name: &str) -> bool {
    names.split(' ').any(|one| one == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{interface_keys, tunnel_keys};
    use crate::protocol::Protocol;

    #[test]
    fn each_leads_to_a_name_that_there_is() {
        let keys = |table: &[(&str, &'static str)], own: &[&str]| {
            for (others, name) in table {
                assert!(own.contains(name), "{name}");
                for other in others.split(' ') {
                    assert!(!own.contains(&other), "{other}");
                    assert_eq!(key(other, own), Some(*name));
                }
            }
        };
        keys(&KEYS, &tunnel_keys());
        keys(&INTERFACE_KEYS, &interface_keys());
        for (others, name) in PROTOCOLS {
            assert!(Protocol::from_name(name).is_some(), "{name}");
            assert!(others.split(' ').all(|other| Protocol::from_name(other).is_none()), "{others}");
        }
    }
}
