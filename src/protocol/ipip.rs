//! IP directly in IP: RFC 2003 (4in4), RFC 4213 (6in4) and RFC 2473 (4in6, 6in6).

use super::{Definition, NO_ID, Outer};
use crate::config::model::Payload;

/// Its definition. All that it has of its own is the protocol number, 4 or 41, which is filled in.
pub(super) const IPIP: Definition = Definition {
    name: "ipip",
    id: NO_ID,
    outer: Outer::Ip(None),
    payload: Payload::Ip,
    write: |_, _| {},
    read: |_, _| {},
};

#[cfg(test)]
mod tests {
    use crate::kernel::abi::tunnel_flags;
    use crate::protocol::tests::{over_ipv4, over_ipv6};
    use crate::protocol::{Protocol, header};

    #[test]
    fn the_protocol_number_is_filled_in() {
        let four = header(&over_ipv4(Protocol::Ipip));
        assert_eq!((four.bytes.len(), four.bytes[23], four.type_offset), (34, 0, 23));
        let six = header(&over_ipv6(Protocol::Ipip));
        assert_eq!((six.bytes.len(), six.bytes[20], six.type_offset), (54, 0, 20));
        assert_eq!(six.flags & tunnel_flags::IP_PROTOCOL, tunnel_flags::IP_PROTOCOL);
        assert_eq!((six.l4_offset, six.own()), (54, &[][..]));
    }
}
