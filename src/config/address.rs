//! IP addresses and prefixes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::Span;
use super::prefix::text;
use super::raw::{At, RawAddresses};
use super::value::{Reader, short};

type Value<'a, 'i> = &'a Spanned<DeValue<'i>>;

/// What a text can be instead of a prefix.
enum BadPrefix {
    /// A version to come has it.
    V6,
    /// With a way to write what was probably meant.
    Meant(String, String),
    /// The length is out of range.
    Length,
    /// None of its addresses can be that of a host.
    NotUnicast(&'static str),
    /// Anything else.
    Garbage,
}

impl Reader<'_> {
    /// One address that a host can have.
    pub fn address(&mut self, key: &str, value: Value<'_, '_>) -> Option<At<IpAddr>> {
        let text = self.text(key, value)?;
        match text.value.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => match not_unicast(Ipv4Net::from(address)) {
                Some(why) => self.reject(text.span, format!("{address} cannot be `{key}`"), why),
                None => Some(At { value: address.into(), span: text.span }),
            },
            Ok(IpAddr::V6(_)) => self.no_v6(text.span),
            Err(_) => match text.value.parse::<IpNet>() {
                Ok(net) => {
                    let label = format!("did you mean \"{}\"?", net.addr());
                    self.reject(text.span, format!("`{key}` is one address, not a prefix"), label)
                }
                Err(_) => {
                    let title = format!("{:?} is not an IP address", short(text.value));
                    self.reject(text.span, title, "write one like \"192.0.2.1\"")
                }
            },
        }
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
        let mut first: HashMap<IpNet, Option<Span>> = HashMap::new();
        let mut list = Vec::with_capacity(values.len());
        for value in values {
            if let Some(prefix) = self.prefix(key, value)
                && self.is_new(key, &text(prefix.value), first.entry(prefix.value).or_default(), prefix.span)
            {
                list.push(prefix);
            }
        }
        (list.len() == values.len()).then_some(At { value: list, span })
    }

    fn prefix(&mut self, key: &str, value: Value<'_, '_>) -> Option<At<IpNet>> {
        let text = self.text(key, value)?;
        match read_prefix(text.value) {
            Ok(value) => Some(At { value, span: text.span }),
            Err(BadPrefix::V6) => self.no_v6(text.span),
            Err(BadPrefix::Meant(title, meant)) => {
                self.reject(text.span, title, format!("did you mean {meant}?"))
            }
            Err(BadPrefix::Length) => {
                self.reject(text.span, "prefix length out of range", "allowed: /0 to /32")
            }
            Err(BadPrefix::NotUnicast(why)) => {
                self.reject(text.span, format!("{} cannot be in `{key}`", text.value), why)
            }
            Err(BadPrefix::Garbage) => {
                let title = format!("{:?} is neither an address nor a prefix", short(text.value));
                self.reject(text.span, title, "write one like \"192.0.2.1\" or \"192.0.2.0/24\"")
            }
        }
    }

    fn no_v6<T>(&mut self, span: Span) -> Option<T> {
        self.reject(span, "IPv6 is not supported by this version of mptm", "write an IPv4 address")
    }
}

/// An address alone is a prefix of full length.
fn read_prefix(text: &str) -> Result<IpNet, BadPrefix> {
    let net = match (text.parse::<IpAddr>(), text.parse::<IpNet>()) {
        (Ok(address), _) => IpNet::from(address),
        (_, Ok(net)) => net,
        _ => return Err(mistyped_prefix(text)),
    };
    let IpNet::V4(net) = net else { return Err(BadPrefix::V6) };
    if let Some(why) = not_unicast(net) {
        return Err(BadPrefix::NotUnicast(why));
    }
    if net.trunc() != net {
        return Err(BadPrefix::Meant(format!("{net} has host bits set"), net.trunc().to_string()));
    }
    Ok(net.into())
}

/// A netmask, or a length that is too large.
fn mistyped_prefix(text: &str) -> BadPrefix {
    let Some((address, length)) = text.split_once('/') else { return BadPrefix::Garbage };
    let Ok(address) = address.parse::<Ipv4Addr>() else { return BadPrefix::Garbage };
    if let Ok(net) = length.parse::<Ipv4Addr>().map_err(|_| ()).and_then(|mask| {
        ipnet::ipv4_mask_to_prefix(mask)
            .map_err(|_| ())
            .and_then(|len| Ipv4Net::new(address, len).map_err(|_| ()))
    }) {
        return BadPrefix::Meant("a prefix has a length, not a mask".to_owned(), net.trunc().to_string());
    }
    match length.parse::<u32>() {
        Ok(33..) => BadPrefix::Length,
        _ => BadPrefix::Garbage,
    }
}

/// Why no host can have an address of this prefix.
fn not_unicast(net: Ipv4Net) -> Option<&'static str> {
    let (address, host) = (net.addr(), net.prefix_len() == 32);
    if host && address.is_unspecified() {
        Some("it stands for no address")
    } else if host && address.is_broadcast() {
        Some("it is the broadcast address")
    } else if net.prefix_len() >= 4 && address.is_multicast() {
        Some("it is multicast")
    } else if net.prefix_len() >= 4 && address.octets()[0] >= 240 {
        Some("it is reserved (RFC 1112, 4), and never forwarded")
    } else if net.prefix_len() >= 8 && address.is_loopback() {
        Some("it is loopback, which never leaves the host")
    } else {
        None
    }
}
