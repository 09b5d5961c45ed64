//! Which keys of one tunnel go together. `[defaults]` skips what does not go with a tunnel; a tunnel's own key is an
//! error then.

use std::net::IpAddr;

use super::diagnostic::{Diagnostic, Span};
use super::keys;
use super::model::Payload;
use super::raw::{At, RawTunnel};

/// Why a tunnel cannot have a key.
pub(super) struct Misfit {
    title: String,
    label: String,
    /// What it does not go with, and what that is.
    because: Option<(Span, String)>,
    /// What it does not go without may be where the file could not be read.
    pub lacks: bool,
}

impl Misfit {
    fn new(title: String, label: impl Into<String>) -> Self {
        Self { title, label: label.into(), because: None, lacks: false }
    }

    fn lacks(key: &str, other: &str, label: &str) -> Self {
        let title = format!("`{key}` needs `{other}`");
        Self { lacks: true, ..Self::new(title, label) }
    }

    fn because<T>(self, of: &At<T>, what: String) -> Self {
        Self { because: Some((of.span, what)), ..self }
    }

    /// As an error about the key, or about its value.
    pub fn at(self, span: Span) -> Diagnostic {
        let error = Diagnostic::at(span, self.title, self.label);
        match self.because {
            Some((span, what)) => error.also(span, what),
            None => error,
        }
    }
}

/// Whether a tunnel can have a key, by the other keys that it has so far.
pub(super) fn misfit(tunnel: &RawTunnel, key: &str) -> Option<Misfit> {
    let name = &tunnel.name.value;
    if let Some(protocol) = tunnel.protocol.given()
        && !keys::has_key(protocol.value, key)
    {
        let title = format!("`{key}` does not go with protocol {}", protocol.value);
        let misfit = Misfit::new(title, keys::instead(protocol.value, key));
        return Some(misfit.because(protocol, format!("the protocol of {name}")));
    }
    match key {
        "local" => match (tunnel.local.given(), tunnel.remote.given()) {
            (Some(local), Some(remote)) => other_family(local.value, remote),
            _ => None,
        },
        "df" | "flow_label" => {
            let remote = tunnel.remote.given()?;
            let label = match (key, remote.value) {
                ("df", IpAddr::V6(_)) => "leave it out: IPv6 has no such bit, its routers never fragment",
                ("flow_label", IpAddr::V4(_)) => "leave it out: only IPv6 has flow labels",
                _ => return None,
            };
            let family = family(remote.value);
            let misfit = Misfit::new(format!("`{key}` does not go with an {family} `remote`"), label);
            Some(misfit.because(remote, format!("the far end of {name}")))
        }
        "flood" if tunnel.flood.given().is_some_and(|flood| flood.value) && has_sources(tunnel) => {
            let from = tunnel.from.given()?;
            let title = "`flood` does not go with `from`".to_owned();
            let label = "leave it out, or `from`: what is flooded goes to and comes from all of the segment";
            Some(Misfit::new(title, label).because(from, format!("the only sources of {name}")))
        }
        "inner_mac" | "flood" => {
            let payload = tunnel.payload.given().filter(|payload| payload.value == Payload::Ip)?;
            let title = format!("`{key}` does not go with `payload = \"ip\"`");
            let label = "leave it out: IP packets are carried without an Ethernet header";
            Some(Misfit::new(title, label).because(payload, format!("the payload of {name}")))
        }
        "local_id" if tunnel.id.is_missing() => {
            let label = "add `id = NUMBER`, that of sent packets; if both ends use one, write only `id`";
            Some(Misfit::lacks(key, "id", label))
        }
        "uplink" if tunnel.qfi.is_missing() => {
            let label = "add `qfi = NUMBER`, 0 to 63: the direction stands in the header of the QoS flow";
            Some(Misfit::lacks(key, "qfi", label))
        }
        _ => None,
    }
}

/// Whether a tunnel is for some sources only.
fn has_sources(tunnel: &RawTunnel) -> bool {
    tunnel.from.given().is_some_and(|from| !from.value.is_empty())
}

/// Packets go between addresses of one family.
fn other_family(local: IpAddr, remote: &At<IpAddr>) -> Option<Misfit> {
    if local.is_ipv4() == remote.value.is_ipv4() {
        return None;
    }
    let title = "`local` and `remote` are of different families".to_owned();
    let label = format!("write this end's {} address, or leave it out", family(remote.value));
    Some(Misfit::new(title, label).because(remote, format!("the far end's is {}", family(remote.value))))
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
