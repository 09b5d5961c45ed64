//! GENEVE, RFC 8926: an Ethernet frame or an IP packet in UDP, with a 24-bit VNI and options.

use super::header::{Header, field};
use super::{Definition, Outer, VNI};
use crate::config::model::{GeneveOption, Payload};

/// Transparent Ethernet bridging.
const PAYLOAD_ETHERNET: u16 = 0x6558;
/// The C flag: there are critical options.
const CRITICAL_FLAG: u8 = 0x40;
/// Of an option's type: it is critical.
const CRITICAL: u8 = 0x80;
/// Bytes of the header before the options.
const FIXED: usize = 8;
/// Bytes of an option before its data.
const OPTION: usize = 4;

/// Its definition.
pub(super) const GENEVE: Definition = Definition {
    name: "geneve",
    id: VNI,
    outer: Outer::Udp(Some(6081)),
    payload: Payload::Ethernet,
    write: |header, tunnel| {
        let words: usize = tunnel.options.iter().map(|option| (OPTION + option.data.len()) / 4).sum();
        let critical: Vec<u32> = tunnel
            .options
            .iter()
            .filter(|option| option.kind & CRITICAL != 0)
            .map(|option| u32::from(option.class) << 8 | u32::from(option.kind))
            .collect();
        for (slot, option) in header.critical.iter_mut().zip(&critical) {
            *slot = *option;
        }
        // Version 0, O 0.
        header.push([words as u8 & 0x3f, if critical.is_empty() { 0 } else { CRITICAL_FLAG }]);
        header.push_ethertype((tunnel.payload == Payload::Ethernet).then_some(PAYLOAD_ETHERNET));
        header.push((tunnel.id.unwrap_or(0) << 8).to_be_bytes());
        for GeneveOption { class, kind, data } in &tunnel.options {
            header.push(class.to_be_bytes());
            header.push([*kind, (data.len() / 4) as u8 & 0x1f]);
            header.push(data.iter().copied());
        }
    },
    read: |header, tunnel| {
        tunnel.id = Some(field(header.own(), 4, 3));
        tunnel.options = read_options(header);
    },
};

fn read_options(header: &Header) -> Vec<GeneveOption> {
    let mut options = Vec::new();
    let mut rest = header.own().get(FIXED..).unwrap_or_default();
    while let Some((&[class_high, class_low, kind, length], after)) = rest.split_first_chunk() {
        let length = usize::from(length & 0x1f) * 4;
        let Some((data, after)) = after.split_at_checked(length) else { break };
        let class = u16::from_be_bytes([class_high, class_low]);
        options.push(GeneveOption { class, kind, data: data.to_vec() });
        rest = after;
    }
    options
}
