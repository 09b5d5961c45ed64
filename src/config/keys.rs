//! Which keys and protocols there are for whom, and what to say about the others.

use super::diagnostic::{Diagnostic, Span};
use super::model::Payload;
use super::raw::RoleName;
use super::synonyms;
use super::value::short;
use crate::protocol::{HasId, Protocol};

/// The roles that have an interface key, if not all have it.
pub(super) fn role_of(key: &str) -> Option<RoleName> {
    match key {
        "segment" | "addresses" | "mac" | "gateway" => Some(RoleName::Workload),
        "to" => Some(RoleName::Redirect),
        _ => None,
    }
}

/// Whether tunnels of a protocol can have a tunnel key.
pub(super) fn has_key(protocol: Protocol, key: &str) -> bool {
    match key {
        "id" => protocol.has_id() != HasId::Never,
        "local_id" => protocol.has_local_id(),
        // A tagged frame is no packet that the host could route, and its destination is the workload's business.
        "remote" | "local" | "ttl" | "tos" | "df" | "flow_label" | "redirect" => protocol.has_outer_ip(),
        "src_port" | "dst_port" | "udp_checksum" => protocol.has_udp(),
        "inner_mac" | "flood" => protocol.payload() == Payload::Ethernet,
        "service_id" => protocol == Protocol::Qinq,
        "pcp" => matches!(protocol, Protocol::Vlan | Protocol::Qinq),
        "gbp" => protocol == Protocol::Vxlan,
        "payload" | "options" => protocol == Protocol::Geneve,
        "checksum" | "sequence" => matches!(protocol, Protocol::Gre | Protocol::Gretap),
        "variant" => protocol == Protocol::Gue,
        "qfi" | "uplink" => protocol == Protocol::Gtpu,
        _ => true,
    }
}

/// What to do with a key that tunnels of a protocol cannot have: the label at it.
pub(super) fn instead(protocol: Protocol, key: &str) -> String {
    match key {
        "id" => format!("leave it out: {protocol} has none, its tunnels differ by `remote` and `local`"),
        "local_id" if protocol.has_id() == HasId::Always => {
            format!("leave it out: both ends of {protocol} have the same `id`")
        }
        "tos" => format!("leave it out: {protocol} has no outer IP header; did you mean `pcp`?"),
        "remote" | "local" | "ttl" | "df" | "flow_label" | "redirect" => {
            format!("leave it out: {protocol} has no outer IP header")
        }
        "udp_checksum" if has_key(protocol, "checksum") => {
            format!("{protocol} has no outer UDP header; did you mean `checksum`?")
        }
        "src_port" | "dst_port" | "udp_checksum" => {
            format!("leave it out: {protocol} has no outer UDP header")
        }
        "inner_mac" | "flood" => format!("leave it out: {protocol} carries IP packets, not Ethernet frames"),
        "payload" if protocol == Protocol::Gre => {
            "leave it out: gre carries IP packets, gretap Ethernet frames".to_owned()
        }
        "payload" => match protocol.payload() {
            Payload::Ethernet => format!("leave it out: {protocol} carries Ethernet frames"),
            Payload::Ip => format!("leave it out: {protocol} carries IP packets"),
        },
        "checksum" if protocol.has_udp() => only(key) + "; did you mean `udp_checksum`?",
        "pcp" => only(key) + "; did you mean `tos`?",
        _ => only(key),
    }
}

/// The few protocols that have a key.
fn only(key: &str) -> String {
    let with: Vec<&str> =
        Protocol::ALL.into_iter().filter(|protocol| has_key(*protocol, key)).map(Protocol::name).collect();
    format!("only {} {} it", with.join(" and "), if with.len() == 1 { "has" } else { "have" })
}

/// The names of the protocols that there are.
pub(super) fn protocols() -> String {
    Protocol::ALL.map(Protocol::name).join(", ")
}

/// A protocol that there is not.
pub(super) fn bad_protocol(span: Span, name: &str) -> Diagnostic {
    let title = format!("unknown protocol {:?}", short(name));
    match synonyms::protocol(name) {
        Some(label) => Diagnostic::at(span, title, label),
        None => unknown(span, &title, name, &Protocol::ALL.map(Protocol::name)),
    }
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
    let title = format!("{owner} has no key `{}`", short(key));
    if others.1.contains(&key) {
        return Diagnostic::at(span, title, format!("this is a key of {}", others.0));
    }
    match synonyms::key(key, own) {
        Some(name) => Diagnostic::at(span, title, synonyms::instead_of(key, name)),
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
