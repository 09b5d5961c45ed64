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
