//! Values of the outer headers: ports, TTL and TOS, tags, and what single protocols have.

use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::Span;
use super::keys;
use super::model::{Df, FlowLabel, Payload, Pcp, SourcePort, Tos, Ttl};
use super::raw::At;
use super::value::{Reader, is_number, short};
use crate::protocol::Protocol;

type Value<'a, 'i> = &'a Spanned<DeValue<'i>>;

/// 20 bits (RFC 8200, 3).
const FLOW_LABELS: (u32, u32) = (0, 0xf_ffff);

/// The bits of ECN in TOS and traffic class (RFC 3168, 5).
const ECN: u32 = 3;

impl Reader<'_> {
    pub fn port(&mut self, key: &str, value: Value<'_, '_>) -> Option<At<u16>> {
        self.small(key, value, (1, u16::MAX.into()))
    }

    pub fn src_port(&mut self, value: Value<'_, '_>) -> Option<At<SourcePort>> {
        let span = self.span(value);
        let text = match value.get_ref() {
            DeValue::Integer(_) => {
                let port = self.port("src_port", value)?;
                return Some(At { value: SourcePort::Fixed(port.value), span });
            }
            DeValue::String(text) => text.as_ref(),
            _ => {
                let label = "write \"flow\", \"MIN-MAX\" or a number";
                return self.wrong_type("src_port", "text or a number", value, label);
            }
        };
        if text == "flow" {
            return Some(At { value: SourcePort::Flow, span });
        }
        if text.parse::<u16>().is_ok() {
            return self.reject(span, "one `src_port` is a number", format!("without quotes: {text}"));
        }
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let Some((min, max)) = text.split_once('-').filter(|(min, max)| digits(min) && digits(max)) else {
            let title = format!("`src_port` cannot be {:?}", short(text));
            return self.reject(span, title, "write \"flow\", \"MIN-MAX\" or a number");
        };
        match (min.parse::<u16>(), max.parse::<u16>()) {
            (Ok(min), Ok(max)) if 0 < min && min <= max => {
                Some(At { value: SourcePort::from_range(min, max), span })
            }
            (Ok(min), Ok(max)) if min > max && max > 0 => self.reject(
                span,
                "`src_port` range is the wrong way round",
                format!("did you mean \"{max}-{min}\"?"),
            ),
            _ => self.reject(span, "`src_port` is out of range", "allowed: 1 to 65535"),
        }
    }

    pub fn ttl(&mut self, value: Value<'_, '_>) -> Option<At<Ttl>> {
        let read = self.number_or("ttl", value, (1, 255), &[("inherit", Ttl::Inherit)])?;
        Some(read.map(|number| Ttl::Fixed(number as u8)))
    }

    pub fn tos(&mut self, value: Value<'_, '_>) -> Option<At<Tos>> {
        let read = self.number_or("tos", value, (0, 255), &[("inherit", Tos::Inherit)])?;
        if let NumberOr::Number(number, span) = read
            && number & ECN != 0
        {
            let label = format!(
                "the lower two bits are ECN's, which mptm sets (RFC 6040); did you mean {}?",
                number & !ECN
            );
            return self.reject(span, "`tos` has ECN bits set", label);
        }
        Some(read.map(|number| Tos::Fixed(number as u8)))
    }

    pub fn df(&mut self, value: Value<'_, '_>) -> Option<At<Df>> {
        if let DeValue::Boolean(flag) = value.get_ref() {
            let label = format!("write \"{}\"", if *flag { Df::Set } else { Df::Unset }.name());
            return self.wrong_type("df", "text", value, &label);
        }
        self.choice("df", value, &[Df::Set, Df::Unset, Df::Inherit], Df::name)
    }

    pub fn flow_label(&mut self, value: Value<'_, '_>) -> Option<At<FlowLabel>> {
        let words = [("flow", FlowLabel::Flow), ("inherit", FlowLabel::Inherit)];
        Some(self.number_or("flow_label", value, FLOW_LABELS, &words)?.map(FlowLabel::Fixed))
    }

    pub fn pcp(&mut self, value: Value<'_, '_>) -> Option<At<Pcp>> {
        let read = self.number_or("pcp", value, (0, 7), &[("inherit", Pcp::Inherit)])?;
        Some(read.map(|number| Pcp::Fixed(number as u8)))
    }

    pub fn service_id(&mut self, value: Value<'_, '_>) -> Option<At<u32>> {
        let (_, min, max) = Protocol::Qinq.id_range();
        self.number("service_id", value, (min, max))
    }

    pub fn payload(&mut self, value: Value<'_, '_>) -> Option<At<Payload>> {
        self.choice("payload", value, &[Payload::Ethernet, Payload::Ip], Payload::name)
    }

    /// A number that fits into a smaller type, as its range says.
    pub fn small<T: TryFrom<u32>>(
        &mut self,
        key: &str,
        value: Value<'_, '_>,
        range: (u32, u32),
    ) -> Option<At<T>> {
        let number = self.number(key, value, range)?;
        Some(At { value: T::try_from(number.value).ok()?, span: number.span })
    }

    /// A number, or one of a few words.
    fn number_or<T: Copy>(
        &mut self,
        key: &str,
        value: Value<'_, '_>,
        (min, max): (u32, u32),
        words: &[(&str, T)],
    ) -> Option<NumberOr<T>> {
        let span = self.span(value);
        let quoted: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let label = format!("write {} or a number: {min} to {max}", quoted.join(", "));
        let text = match value.get_ref() {
            DeValue::Integer(_) => {
                let number = self.integer(key, value)?.value;
                let Some(number) = u32::try_from(number).ok().filter(|n| (min..=max).contains(n)) else {
                    let label = format!("allowed: {min} to {max}, or {}", quoted.join(", "));
                    return self.reject(span, format!("`{key}` is out of range"), label);
                };
                return Some(NumberOr::Number(number, span));
            }
            DeValue::String(text) => text.as_ref(),
            _ => return self.wrong_type(key, "a number or text", value, &label),
        };
        if let Some((_, word)) = words.iter().find(|(word, _)| *word == text) {
            return Some(NumberOr::Word(At { value: *word, span }));
        }
        let title = format!("`{key}` cannot be {:?}", short(text));
        let label = if is_number(text) {
            format!("without quotes: {}", text.trim())
        } else {
            let near = keys::nearest(text, words.iter().map(|(word, _)| *word));
            near.map_or(label, |word| format!("did you mean \"{word}\"?"))
        };
        self.reject(span, title, label)
    }
}

/// A number that is in range, or what a word stands for.
#[derive(Clone, Copy)]
enum NumberOr<T> {
    Number(u32, Span),
    Word(At<T>),
}

impl<T> NumberOr<T> {
    fn map(self, number: impl FnOnce(u32) -> T) -> At<T> {
        match self {
            Self::Number(value, span) => At { value: number(value), span },
            Self::Word(word) => word,
        }
    }
}
