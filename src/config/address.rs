//! IP addresses and prefixes.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::Span;
use super::prefix::text;
use super::raw::{At, RawAddresses};
use super::unicast::{BadPrefix, LINK_LOCAL, address_within, is_link_local, not_unicast, read_prefix};
use super::value::{Reader, short};

type Value<'a, 'i> = &'a Spanned<DeValue<'i>>;

impl Reader<'_> {
    /// One address of a tunnel's end.
    pub fn outer_address(&mut self, key: &str, value: Value<'_, '_>) -> Option<At<IpAddr>> {
        if let DeValue::String(text) = value.get_ref()
            && address_within(text).is_some_and(|address| is_link_local(address.into()))
        {
            let label = "it is link-local, an address of one link only: write a global address, or a unique local \
                         one (fd00::/8)";
            return self.reject(self.span(value), format!("{} cannot be `{key}`", short(text)), label);
        }
        self.address(key, value)
    }

    /// One or more next hops; none twice. They may be link-local: they are on the workload's link.
    pub fn gateway(&mut self, value: Value<'_, '_>) -> Option<At<Vec<At<IpAddr>>>> {
        let span = self.span(value);
        let values = match value.get_ref() {
            DeValue::Array(values) => values,
            DeValue::String(_) => {
                let address = self.address("gateway", value)?;
                return Some(At { value: vec![address], span });
            }
            _ => {
                let label = "write an address in quotes, or a list of them";
                return self.wrong_type("gateway", "text or a list", value, label);
            }
        };
        if values.is_empty() {
            return self.reject(span, "`gateway` is empty", "name one address, or leave it out");
        }
        let mut first: HashMap<IpAddr, Option<Span>> = HashMap::new();
        let mut list = Vec::with_capacity(values.len());
        for value in values {
            if let Some(address) = self.address("gateway", value)
                && self.is_new(
                    "gateway",
                    &address.value,
                    first.entry(address.value).or_default(),
                    address.span,
                )
            {
                list.push(address);
            }
        }
        (list.len() == values.len()).then_some(At { value: list, span })
    }

    /// One address that a host can have.
    fn address(&mut self, key: &str, value: Value<'_, '_>) -> Option<At<IpAddr>> {
        let text = self.text(key, value)?;
        let (title, label) = match (text.value.parse::<IpAddr>(), text.value.parse::<IpNet>()) {
            (Ok(address), _) => match not_unicast(address.into()) {
                Some(why) => (format!("{address} cannot be `{key}`"), why),
                None => return Some(At { value: address, span: text.span }),
            },
            (_, Ok(net)) => {
                let label = format!("did you mean \"{}\"?", net.addr());
                (format!("`{key}` is one address, not a prefix"), label)
            }
            _ => {
                let label = meant(text.value, "write one like \"192.0.2.1\" or \"2001:db8::1\"");
                (format!("{:?} is not an IP address", short(text.value)), label)
            }
        };
        self.reject(text.span, title, label)
    }

    pub fn addresses(&mut self, value: Value<'_, '_>) -> Option<At<RawAddresses>> {
        let span = self.span(value);
        match value.get_ref() {
            DeValue::String(text) if text == "peer" => Some(At { value: RawAddresses::Peer, span }),
            DeValue::Array(_) => {
                let list = self.prefixes("addresses", value)?;
                Some(At { value: RawAddresses::List(list.value), span })
            }
            DeValue::String(text) if read_prefix(text).is_ok() => {
                let label = format!("put it in brackets: [\"{text}\"]");
                self.reject(span, "`addresses` is a list", label)
            }
            _ => {
                let label = "write \"peer\", or a list of addresses and prefixes";
                self.wrong_type("addresses", "a list or \"peer\"", value, label)
            }
        }
    }

    /// A list of addresses and prefixes; not empty, none twice.
    pub fn prefixes(&mut self, key: &str, value: Value<'_, '_>) -> Option<At<Vec<At<IpNet>>>> {
        let DeValue::Array(values) = value.get_ref() else {
            let label = match value.get_ref() {
                DeValue::String(text) if read_prefix(text).is_ok() => {
                    format!("put it in brackets: [\"{text}\"]")
                }
                _ => "write a list of addresses and prefixes".to_owned(),
            };
            return self.wrong_type(key, "a list", value, &label);
        };
        let span = self.span(value);
        if values.is_empty() {
            let label = match key {
                "from" => "name one address or prefix; left out, all sources may take the tunnel",
                _ => "name one address or prefix",
            };
            return self.reject(span, format!("`{key}` is empty"), label);
        }
        let mut list: Vec<At<IpNet>> = values.iter().filter_map(|value| self.prefix(key, value)).collect();
        if has_any_twice(&list) {
            let mut first: HashMap<IpNet, Option<Span>> = HashMap::new();
            list.retain(|prefix| {
                let first = first.entry(prefix.value).or_default();
                self.is_new(key, &text(prefix.value), first, prefix.span)
            });
        }
        (list.len() == values.len()).then_some(At { value: list, span })
    }

    fn prefix(&mut self, key: &str, value: Value<'_, '_>) -> Option<At<IpNet>> {
        let text = self.text(key, value)?;
        let (title, label) = match read_prefix(text.value) {
            Ok(value) => return Some(At { value, span: text.span }),
            Err(BadPrefix::Meant(title, meant)) => (title, format!("did you mean {meant}?")),
            Err(BadPrefix::Length(max)) => {
                ("prefix length out of range".to_owned(), format!("allowed: /0 to /{max}"))
            }
            Err(BadPrefix::NotUnicast(why)) => (format!("{} cannot be in `{key}`", text.value), why),
            Err(BadPrefix::Garbage) => {
                let example = "write one like \"192.0.2.1\", \"192.0.2.0/24\" or \"2001:db8::/64\"";
                let label = match address_within(text.value) {
                    Some(address) if is_link_local(address.into()) => LINK_LOCAL.to_owned(),
                    _ => meant(text.value, example),
                };
                (format!("{:?} is neither an address nor a prefix", short(text.value)), label)
            }
        };
        self.reject(text.span, title, label)
    }
}

/// Whether a prefix is in a list more than once. Long lists are sorted, as a rule.
fn has_any_twice(list: &[At<IpNet>]) -> bool {
    if list.is_sorted_by(|one, next| one.value < next.value) {
        return false;
    }
    let mut all: Vec<IpNet> = list.iter().map(|prefix| prefix.value).collect();
    all.sort_unstable();
    all.windows(2).any(|two| two[0] == two[1])
}

/// The address that a text has beside other things, if it can be one.
fn meant(text: &str, example: &str) -> String {
    match address_within(text) {
        Some(address) => {
            not_unicast(address.into()).unwrap_or_else(|| format!("did you mean \"{address}\"?"))
        }
        None => example.to_owned(),
    }
}
