//! Which keys there are for whom, and what to say about the others.

use super::diagnostic::{Diagnostic, Span};
use super::raw::RoleName;
use super::value::short;
use crate::protocol::Protocol;

/// Keys that the design has and this version not yet.
const NOT_YET: [&str; 11] = [
    "ttl",
    "tos",
    "df",
    "flow_label",
    "udp_checksum",
    "options",
    "checksum",
    "sequence",
    "flood",
    "gbp",
    "pcp",
];

/// Protocols that the design has and this version not yet.
const PROTOCOLS_NOT_YET: [&str; 11] =
    ["qinq", "gre", "gretap", "ipip", "6in4", "4in6", "6in6", "sit", "gue", "fou", "gtpu"];

/// What others call a key; the last ten are arguments of the tool that mptm replaces.
const OTHER_NAMES: [(&str, &str); 19] = [
    ("vni", "id"),
    ("vid", "id"),
    ("vlan_id", "id"),
    ("dev", "underlay"),
    ("dstport", "dst_port"),
    ("srcport", "src_port"),
    ("port", "dst_port"),
    ("type", "protocol"),
    ("allowed_ips", "inner"),
    ("vlid", "id"),
    ("source_port", "src_port"),
    ("source_ip", "local"),
    ("source_mac", "local_mac"),
    ("dest_ip", "remote"),
    ("dest_mac", "remote_mac"),
    ("inner_dest_mac", "inner_mac"),
    ("inner_src_ip", "from"),
    ("inner_dst_ip", "inner"),
    ("enable_logs", "debug"),
];

/// The roles that have an interface key, if not all have it.
pub(super) fn role_of(key: &str) -> Option<RoleName> {
    match key {
        "segment" | "addresses" | "mac" => Some(RoleName::Workload),
        "to" => Some(RoleName::Redirect),
        _ => None,
    }
}

/// Whether tunnels of a protocol have a tunnel key.
pub(super) fn has_key(protocol: Protocol, key: &str) -> bool {
    match key {
        // A tagged frame is no packet that the host could route, and its destination is the workload's business.
        "remote" | "local" | "redirect" => protocol.has_outer_ip(),
        "src_port" | "dst_port" => protocol.default_port().is_some(),
        _ => true,
    }
}

/// Whether a key is one of a version to come.
pub(super) fn is_not_yet(key: &str) -> bool {
    NOT_YET.contains(&key)
}

/// The names of the protocols that there are.
pub(super) fn protocols() -> String {
    Protocol::ALL.map(Protocol::name).join(", ")
}

/// A protocol that cannot be used.
pub(super) fn bad_protocol(span: Span, name: &str) -> Diagnostic {
    if PROTOCOLS_NOT_YET.contains(&name) {
        let title = format!("protocol {name} is not supported by this version of mptm");
        return Diagnostic::at(span, title, format!("it has: {}", protocols()));
    }
    unknown(span, &format!("unknown protocol {:?}", short(name)), name, &Protocol::ALL.map(Protocol::name))
}

/// A key of `[interface.NAME]`, `[tunnel.NAME]` or `[defaults]` that there is not: `owner` is which, `own` are its
/// keys, `others` those of the other kind of table.
pub(super) fn bad_key(
    span: Span,
    key: &str,
    owner: &str,
    own: &[&str],
    others: (&str, &[&str]),
) -> Diagnostic {
    if is_not_yet(key) {
        let title = format!("key `{key}` is not supported by this version of mptm");
        return Diagnostic::at(span, title, format!("it has: {}", own.join(", ")));
    }
    let title = format!("{owner} has no key `{}`", short(key));
    if others.1.contains(&key) {
        return Diagnostic::at(span, title, format!("this is a key of {}", others.0));
    }
    let other_name = OTHER_NAMES.iter().find(|(other, name)| *other == key && own.contains(name));
    match other_name {
        Some((_, name)) => Diagnostic::at(span, title, format!("did you mean `{name}`?")),
        None => unknown(span, &title, key, own),
    }
}

/// Something that is none of what is allowed: the label proposes one, or has them all.
pub(super) fn unknown(span: Span, title: &str, word: &str, allowed: &[&str]) -> Diagnostic {
    let label = match nearest(word, allowed.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("allowed: {}", allowed.join(", ")),
    };
    Diagnostic::at(span, title, label)
}

/// The name that a word was probably meant to be.
pub(super) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The cost grows with the product of both lengths.
    if word.len() > 64 {
        return None;
    }
    let word = &word.to_lowercase();
    let limit = if word.chars().count() <= 3 { 1 } else { 2 };
    names
        .map(|name| (strsim::osa_distance(word, name), name))
        .filter(|(distance, name)| *distance <= limit && *distance < name.len())
        .min()
        .map(|(_, name)| name)
}
