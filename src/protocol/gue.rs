//! Generic UDP Encapsulation, draft-ietf-intarea-gue: an IP packet in UDP, behind a header of 4 bytes (variant 0) or none
//! (variant 1). And foo over UDP, which never has one.

use super::{Definition, NO_ID, Outer};
use crate::config::model::Payload;
use crate::kernel::abi::tunnel_flags;

/// Its definition.
pub(super) const GUE: Definition = Definition {
    name: "gue",
    id: NO_ID,
    outer: Outer::Udp(Some(6080)),
    payload: Payload::Ip,
    write: |header, tunnel| {
        if tunnel.variant == 0 {
            // Variant 0, not a control message, no optional fields; the protocol; no flags.
            header.push([0]);
            header.push_ip_protocol();
            header.push([0, 0]);
        }
    },
    read: |header, tunnel| tunnel.variant = u8::from(!header.has(tunnel_flags::IP_PROTOCOL)),
};

/// Of Linux's fou module; no port is assigned to it.
pub(super) const FOU: Definition =
    Definition { name: "fou", outer: Outer::Udp(None), write: |_, _| {}, read: |_, _| {}, ..GUE };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tests::{over_ipv4, over_ipv6};
    use crate::protocol::{Protocol, header};
    use crate::state::Tunnel;

    #[test]
    fn bytes_of_draft_ietf_intarea_gue_section_3() {
        let tunnel = over_ipv4(Protocol::Gue);
        let zero = header(&tunnel);
        // Variant 0, C 0, Hlen 0; Proto/ctype, filled in; flags.
        assert_eq!(zero.own(), [0, 0, 0, 0]);
        assert_eq!(zero.bytes[36..38], [0x17, 0xc0], "6080");
        assert_eq!(
            (zero.type_offset, zero.flags & tunnel_flags::IP_PROTOCOL),
            (43, tunnel_flags::IP_PROTOCOL)
        );
        let one = header(&Tunnel { variant: 1, ..tunnel });
        assert_eq!((one.own(), one.flags & tunnel_flags::IP_PROTOCOL), (&[][..], 0));
    }

    #[test]
    fn fou_has_nothing_of_its_own() {
        assert!(header(&over_ipv6(Protocol::Fou)).own().is_empty());
        assert_eq!(Protocol::Fou.default_port(), None);
    }
}
