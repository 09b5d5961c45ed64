//! The options of GENEVE headers (RFC 8926, 3.5).

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Span};
use super::keys;
use super::model::GeneveOption;
use super::raw::At;
use super::value::{Reader, short};

type Value<'a, 'i> = &'a Spanned<DeValue<'i>>;

/// Class, type and length stand before each option's data.
const HEADER_SIZE: usize = 4;

/// The length of an option's data is 5 bits, in units of 4 bytes.
const MAX_DATA_SIZE: usize = 124;

/// All options together: with them, a header over IPv6 fits into `MPTM_MAX_HEADER` of bpf/abi.h.
const MAX_SIZE: usize = 120;

/// `MPTM_MAX_CRITICAL` in bpf/abi.h.
const MAX_CRITICAL: usize = 4;

const KEYS: [&str; 3] = ["class", "type", "data"];

impl Reader<'_> {
    /// A list of `{ class, type, data }`; empty: no options.
    pub fn options(&mut self, value: Value<'_, '_>) -> Option<At<Vec<GeneveOption>>> {
        let DeValue::Array(values) = value.get_ref() else {
            let label = match value.get_ref() {
                DeValue::Table(_) => "put it in brackets: [{ ... }]",
                _ => "write [{ class = NUMBER, type = NUMBER, data = \"HEX\" }]",
            };
            return self.wrong_type("options", "a list", value, label);
        };
        let mut options = Vec::with_capacity(values.len());
        for value in values {
            match value.get_ref() {
                DeValue::Table(table) => options.extend(self.option(table, self.span(value))),
                _ => {
                    let label = "write { class = NUMBER, type = NUMBER, data = \"HEX\" }";
                    let _: Option<()> = self.wrong_type("options", "a list of tables", value, label);
                }
            }
        }
        let span = self.span(value);
        (options.len() == values.len() && self.fit(&options, span)).then_some(At { value: options, span })
    }

    /// Whether they fit into a header, together; reports if not.
    fn fit(&mut self, options: &[GeneveOption], span: Span) -> bool {
        let size: usize = options.iter().map(|option| HEADER_SIZE + option.data.len()).sum();
        let critical = options.iter().filter(|option| option.kind >= 0x80).count();
        if size > MAX_SIZE {
            let label =
                format!("these are {size} bytes, {HEADER_SIZE} of each for its header; allowed: {MAX_SIZE}");
            self.report.error(Diagnostic::at(span, "`options` are too long", label));
        }
        if critical > MAX_CRITICAL {
            let label = format!("these are {critical} with `type` 128 or more; allowed: {MAX_CRITICAL}");
            self.report.error(Diagnostic::at(span, "`options` has too many critical ones", label));
        }
        size <= MAX_SIZE && critical <= MAX_CRITICAL
    }

    fn option(&mut self, table: &DeTable<'_>, span: Span) -> Option<GeneveOption> {
        let (mut class, mut kind, mut data) = (None, None, None);
        let mut good = true;
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "class" => class = self.small("class", value, (0, 0xffff)),
                "type" => kind = self.small("type", value, (0, 0xff)),
                "data" => data = self.data(value),
                other => {
                    let span = Span::new(self.file, key.span());
                    let title = format!("an option has no key `{}`", short(other));
                    self.report.error(keys::unknown(span, &title, other, &KEYS));
                    good = false;
                }
            }
        }
        for key in KEYS.into_iter().filter(|key| good && !table.contains_key(*key)) {
            let label = match key {
                "data" => "add `data = \"HEX\"`; \"\" for none",
                "class" => "add `class = NUMBER`, the option's namespace",
                _ => "add `type = NUMBER`; 128 or more is critical",
            };
            self.report.error(Diagnostic::at(span, format!("an option has no `{key}`"), label));
        }
        Some(GeneveOption { class: class?.value, kind: kind?.value, data: data? }).filter(|_| good)
    }

    /// Hexadecimal digits, whole words of 4 bytes.
    fn data(&mut self, value: Value<'_, '_>) -> Option<Vec<u8>> {
        let At { value: text, span } = self.text("data", value)?;
        let digits = text.as_bytes();
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            let kept: String = text.trim().trim_start_matches("0x").replace([' ', ':', '-', '_', '.'], "");
            let label = match kept.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                true => format!("did you mean \"{}\"?", short(&kept)),
                false => "write two hexadecimal digits for each byte, and nothing else".to_owned(),
            };
            return self.reject(span, "`data` is not hexadecimal", label);
        }
        if digits.len() % 2 != 0 {
            let label = "write two for each byte";
            return self.reject(span, "`data` has an odd number of digits", label);
        }
        let size = digits.len() / 2;
        if size > MAX_DATA_SIZE {
            let label = format!("these are {size} bytes; allowed: {MAX_DATA_SIZE} (RFC 8926, 3.5)");
            return self.reject(span, "`data` is too long", label);
        }
        if size % 4 != 0 {
            let label = format!("these are {size} bytes; add zeros, as the option's definition says");
            return self.reject(span, "`data` is not a multiple of 4 bytes", label);
        }
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
    }
}
