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
