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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::abi::tunnel_flags;
    use crate::protocol::tests::{geneve_options, over_ipv4, own};
    use crate::protocol::{Protocol, header};
    use crate::state::Tunnel;

    #[test]
    fn bytes_of_rfc_8926_section_3() {
        let tunnel = over_ipv4(Protocol::Geneve);
        // Ver 0, Opt Len 0; O, C and Rsvd. 0; Protocol Type; VNI; Reserved.
        assert_eq!(own(&tunnel), [0, 0, 0x65, 0x58, 0, 0, 0x2a, 0]);
        assert_eq!(header(&tunnel).bytes[36..38], [0x17, 0xc1], "6081");

        let ip = header(&Tunnel { payload: Payload::Ip, ..tunnel });
        assert_eq!(ip.own(), [0, 0, 0, 0, 0, 0, 0x2a, 0]);
        assert_eq!((ip.type_offset, ip.flags & tunnel_flags::ETHERTYPE), (44, tunnel_flags::ETHERTYPE));
    }

    #[test]
    fn options_of_section_3_5() {
        let options = geneve_options();
        let tunnel = Tunnel { options: options[..2].to_vec(), ..over_ipv4(Protocol::Geneve) };
        let header = header(&tunnel);
        let expected = [
            0x03, 0x40, 0x65, 0x58, 0, 0, 0x2a, 0, // Opt Len 3 words; C
            0x01, 0x02, 0x03, 0x00, // class, type, no data
            0xff, 0xfe, 0x81, 0x01, 0xde, 0xad, 0xbe, 0xef, // critical, one word
        ];
        assert_eq!(header.own(), expected);
        assert_eq!(header.critical, [0xff_fe81, 0, 0, 0]);
        let harmless = Tunnel { options: options[..1].to_vec(), ..tunnel };
        assert_eq!(own(&harmless)[..2], [1, 0], "C only if one of them is critical");
    }

    #[test]
    fn options_of_anything_are_read() {
        let mut header = header(&Tunnel { options: geneve_options(), ..over_ipv4(Protocol::Geneve) });
        assert_eq!(read_options(&header), geneve_options());
        for length in (0..header.bytes.len()).rev() {
            header.bytes.truncate(length);
            assert!(read_options(&header).len() <= 3);
        }
    }
}
