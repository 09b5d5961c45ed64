//! Single values: from the tree to a type, or to an error that says what would be right. Addresses are in
//! `address.rs`, those of outer headers in `outer.rs` and `options.rs`.

use std::fmt::Display;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::diagnostic::{Diagnostic, Report, Span};
use super::keys;
use super::model::pattern::is_pattern;
use super::model::{Manage, Mode, Name, NetnsRef};
use super::raw::{At, RawPeer, RoleName};
use crate::mac::MacAddr;
use crate::protocol::Protocol;

type Value<'a, 'i> = &'a Spanned<DeValue<'i>>;

/// What IPv4 requires of every link (RFC 791, 3.2), and what its length field can say.
const MTU: (u32, u32) = (68, 65535);

/// The kernel's IFNAMSIZ less the zero at the end.
const INTERFACE_NAME_SIZE: usize = 15;

/// `MPTM_NAME_SIZE` in bpf/abi.h.
const NAME_SIZE: usize = 64;

/// Reads the values of one text.
pub(super) struct Reader<'a> {
    pub file: usize,
    pub report: &'a mut Report,
}

impl Reader<'_> {
    pub fn span(&self, value: Value<'_, '_>) -> Span {
        Span::new(self.file, value.span())
    }

    /// Reports, and has no value.
    pub fn reject<T>(&mut self, span: Span, title: impl Into<String>, label: impl Into<String>) -> Option<T> {
        self.report.error(Diagnostic::at(span, title, label));
        None
    }

    /// `wants` ends the sentence "`key` is ...".
    pub fn wrong_type<T>(&mut self, key: &str, wants: &str, value: Value<'_, '_>, label: &str) -> Option<T> {
        let kind = match value.get_ref() {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a decimal number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.reject(self.span(value), format!("`{key}` is {wants}, not {kind}"), label)
    }

    pub fn text<'v>(&mut self, key: &str, value: &'v Spanned<DeValue<'_>>) -> Option<At<&'v str>> {
        let span = self.span(value);
        let wants = match key {
            "manage" | "addresses" | "inner" | "from" => "a list of text",
            _ => "text",
        };
        match value.get_ref() {
            DeValue::String(text) => Some(At { value: text.as_ref(), span }),
            DeValue::Array(list) if list.len() == 1 && list.iter().all(|one| one.get_ref().is_str()) => {
                self.wrong_type(key, wants, value, "write it without brackets")
            }
            _ => self.wrong_type(key, wants, value, &format!("write {}", example(key))),
        }
    }

    pub fn integer(&mut self, key: &str, value: Value<'_, '_>) -> Option<At<i128>> {
        match value.get_ref() {
            DeValue::Integer(number) => Some(At { value: saturating(number), span: self.span(value) }),
            DeValue::String(text) if is_number(text) => {
                self.wrong_type(key, "a number", value, &format!("without quotes: {}", text.trim()))
            }
            _ => self.wrong_type(key, "a number", value, "write a whole number"),
        }
    }

    pub fn number(&mut self, key: &str, value: Value<'_, '_>, (min, max): (u32, u32)) -> Option<At<u32>> {
        let number = self.integer(key, value)?;
        match u32::try_from(number.value) {
            Ok(value) if (min..=max).contains(&value) => Some(At { value, span: number.span }),
            _ => self.reject(
                number.span,
                format!("`{key}` is out of range"),
                format!("allowed: {min} to {max}"),
            ),
        }
    }

    pub fn mtu(&mut self, value: Value<'_, '_>) -> Option<At<u32>> {
        self.number("mtu", value, MTU)
    }

    pub fn boolean(&mut self, key: &str, value: Value<'_, '_>) -> Option<At<bool>> {
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(At { value: *flag, span: self.span(value) }),
            _ => self.wrong_type(key, "true or false", value, "write true or false, without quotes"),
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(
        &mut self,
        key: &str,
        value: Value<'_, '_>,
        all: &[T],
        name: fn(T) -> &'static str,
    ) -> Option<At<T>> {
        let text = self.text(key, value)?;
        if let Some(one) = all.iter().find(|one| name(**one) == text.value) {
            return Some(At { value: *one, span: text.span });
        }
        let names: Vec<&str> = all.iter().map(|one| name(*one)).collect();
        let title = format!("unknown {key} {:?}", short(text.value));
        self.report.error(keys::unknown(text.span, &title, text.value, &names));
        None
    }

    pub fn role(&mut self, value: Value<'_, '_>) -> Option<At<RoleName>> {
        self.choice("role", value, &RoleName::ALL, RoleName::name)
    }

    pub fn mode(&mut self, value: Value<'_, '_>) -> Option<At<Mode>> {
        self.choice("mode", value, &[Mode::Native, Mode::Generic, Mode::Offload], Mode::name)
    }

    pub fn protocol(&mut self, value: Value<'_, '_>) -> Option<At<Protocol>> {
        let text = self.text("protocol", value)?;
        let protocol = Protocol::from_name(text.value);
        if protocol.is_none() {
            self.report.error(keys::bad_protocol(text.span, text.value));
        }
        Some(At { value: protocol?, span: text.span })
    }

    pub fn segment(&mut self, value: Value<'_, '_>) -> Option<At<Name>> {
        let text = self.text("segment", value)?;
        self.is_own_name("segment", text.span, text.value)
            .then(|| At { value: text.value.into(), span: text.span })
    }

    /// The name of an interface of the file: whether it is there is seen later.
    pub fn reference(&mut self, key: &str, value: Value<'_, '_>) -> Option<At<Name>> {
        let text = self.text(key, value)?;
        Some(At { value: text.value.into(), span: text.span })
    }

    pub fn mac(&mut self, key: &str, value: Value<'_, '_>) -> Option<At<MacAddr>> {
        let text = self.text(key, value)?;
        match text.value.parse::<MacAddr>() {
            Ok(MacAddr::ZERO) => self.reject(text.span, "no interface has this MAC address", "all zero"),
            Ok(mac) if mac.is_group() => {
                let label = "the lowest bit of its first byte must be 0";
                self.reject(text.span, "this is the MAC address of a group, not of an interface", label)
            }
            Ok(mac) => Some(At { value: mac, span: text.span }),
            Err(_) => {
                let digits: String = text.value.chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
                let label = if digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    let pairs: Vec<&str> = (0..6).map(|pair| &digits[2 * pair..2 * pair + 2]).collect();
                    format!("did you mean \"{}\"?", pairs.join(":").to_lowercase())
                } else {
                    "write six two-digit hexadecimal numbers, like \"02:00:5e:10:00:01\"".to_owned()
                };
                self.reject(text.span, format!("{:?} is not a MAC address", short(text.value)), label)
            }
        }
    }

    pub fn peer(&mut self, value: Value<'_, '_>) -> Option<At<RawPeer>> {
        let label = "write { netns = \"NETNS\", name = \"NAME\" } or false; left out, mptm finds the peer";
        match value.get_ref() {
            DeValue::Boolean(false) => Some(At { value: RawPeer::None, span: self.span(value) }),
            DeValue::Table(table) => self.peer_table(table, self.span(value)),
            DeValue::Boolean(true) => self.reject(
                self.span(value),
                "`peer` cannot be true",
                "leave it out, and mptm finds the peer",
            ),
            _ => self.wrong_type("peer", "a table or false", value, label),
        }
    }

    fn peer_table(&mut self, table: &DeTable<'_>, span: Span) -> Option<At<RawPeer>> {
        let (mut name, mut netns, mut good) = (None, None, true);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "name" => {
                    let text = self.text("name", value);
                    name = text.filter(|text| self.is_device_name(text.span, text.value));
                    good &= name.is_some();
                }
                "netns" => {
                    netns = self.netns(value);
                    good &= netns.is_some();
                }
                other => {
                    let span = Span::new(self.file, key.span());
                    let title = format!("`peer` has no key `{other}`");
                    self.report.error(keys::unknown(span, &title, other, &["netns", "name"]));
                    good = false;
                }
            }
        }
        match name {
            Some(name) if good => {
                let name = At { value: Arc::from(name.value), span: name.span };
                Some(At { value: RawPeer::At { netns, name }, span })
            }
            None if good => {
                self.reject(span, "`peer` has no `name`", "add `name = \"NAME\"`, the interface's name there")
            }
            _ => None,
        }
    }

    fn netns(&mut self, value: Value<'_, '_>) -> Option<At<NetnsRef>> {
        let text = self.text("netns", value)?;
        match text.value.parse() {
            Ok(netns) => Some(At { value: netns, span: text.span }),
            Err(_) => {
                let title = format!("{:?} is not a network namespace", short(text.value));
                self.reject(text.span, title, "write a name as in `ip netns`, an absolute path, or \"pid:N\"")
            }
        }
    }

    pub fn manage(&mut self, value: Value<'_, '_>) -> Option<At<Manage>> {
        const ALL: [&str; 4] = ["offloads", "mtu", "promisc", "sysctls"];
        let DeValue::Array(list) = value.get_ref() else {
            let label = "write a list of \"offloads\", \"mtu\", \"promisc\", \"sysctls\"; [] for nothing";
            return self.wrong_type("manage", "a list", value, label);
        };
        let mut first = [None; ALL.len()];
        let mut good = true;
        for value in list {
            let Some(text) = self.text("manage", value) else {
                good = false;
                continue;
            };
            match ALL.iter().position(|name| *name == text.value) {
                Some(index) => good &= self.is_new("manage", &text.value, &mut first[index], text.span),
                None => {
                    let title = format!("`manage` cannot have {:?}", short(text.value));
                    self.report.error(keys::unknown(text.span, &title, text.value, &ALL));
                    good = false;
                }
            }
        }
        let [offloads, mtu, promisc, sysctls] = first.map(|span| span.is_some());
        good.then(|| At { value: Manage { offloads, mtu, promisc, sysctls }, span: self.span(value) })
    }

    /// Whether something stands in a list for the first time; reports the second.
    pub fn is_new(&mut self, key: &str, what: &dyn Display, first: &mut Option<Span>, span: Span) -> bool {
        match *first {
            None => {
                *first = Some(span);
                true
            }
            Some(first) => {
                let error = Diagnostic::at(span, format!("`{key}` has {what} twice"), "leave one of them");
                self.report.error(error.also(first, "first here"));
                false
            }
        }
    }

    /// Whether it can be the name of one device; reports if not.
    fn is_device_name(&mut self, span: Span, name: &str) -> bool {
        if is_pattern(name) {
            let title = format!("{:?} is a pattern, and a peer is one device", short(name));
            self.report.error(Diagnostic::at(span, title, "leave `peer` out, and mptm finds it"));
            return false;
        }
        self.is_interface_name(span, name)
    }

    /// Whether Linux takes it for an interface's name, or it is a pattern of such names; reports if not.
    pub fn is_interface_name(&mut self, span: Span, name: &str) -> bool {
        let (title, label) = if name.contains('[') {
            let title = format!("{:?} cannot be an interface's name, nor a pattern", short(name));
            (title, "in patterns, `*` stands for any characters, and `?` for one".to_owned())
        } else {
            let label = if name.is_empty() {
                "the name is empty".to_owned()
            } else if name.len() > INTERFACE_NAME_SIZE {
                format!("Linux allows {INTERFACE_NAME_SIZE} bytes, these are {}", name.len())
            } else if name == "." || name == ".." {
                "Linux reserves . and ..".to_owned()
            } else if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
                "Linux allows no `/`, `:`, blanks or control characters in it".to_owned()
            } else {
                return true;
            };
            (format!("{:?} cannot be an interface's name", short(name)), label)
        };
        self.report.error(Diagnostic::at(span, title, label));
        false
    }

    /// Whether it can be the name of a tunnel or a segment; reports if not.
    pub fn is_own_name(&mut self, kind: &str, span: Span, name: &str) -> bool {
        let label = if name.is_empty() {
            "the name is empty".to_owned()
        } else if name.len() > NAME_SIZE {
            format!("allowed: {NAME_SIZE} bytes, these are {}", name.len())
        } else if name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            "allowed: anything but blanks and control characters".to_owned()
        } else {
            return true;
        };
        let title = format!("{:?} cannot be a {kind}'s name", short(name));
        self.report.error(Diagnostic::at(span, title, label));
        false
    }
}

/// Beyond what 128 bits can hold, the largest or smallest number: out of every range, too.
fn saturating(number: &DeInteger<'_>) -> i128 {
    let limit = if number.as_str().starts_with('-') { i128::MIN } else { i128::MAX };
    i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(limit)
}

/// Whether TOML would take it for a number, had it no quotes.
pub(super) fn is_number(text: &str) -> bool {
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).is_ok(),
        None => text.parse::<i64>().is_ok_and(|number| number.to_string() == text),
    }
}

/// What a key of type text is.
fn example(key: &str) -> &'static str {
    match key {
        "role" => "\"underlay\", \"workload\", \"redirect\" or \"pass\"",
        "mode" => "\"native\", \"generic\" or \"offload\"",
        "df" => "\"set\", \"unset\" or \"inherit\"",
        "payload" => "\"ethernet\" or \"ip\"",
        "data" => "hexadecimal digits in quotes, like \"00000001\"",
        "manage" => "\"offloads\", \"mtu\", \"promisc\" or \"sysctls\"",
        "remote" | "local" | "gateway" => "an address in quotes, like \"192.0.2.1\"",
        "addresses" | "inner" | "from" => "addresses in quotes, like \"192.0.2.1\" or \"192.0.2.0/24\"",
        "mac" | "local_mac" | "remote_mac" | "inner_mac" => "it in quotes, like \"02:00:5e:10:00:01\"",
        _ => "a name in quotes",
    }
}

/// A text for a title: a long one is cut, since the excerpt below shows it.
pub(super) fn short(text: &str) -> String {
    const LONG: usize = 40;
    match text.char_indices().nth(LONG) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
