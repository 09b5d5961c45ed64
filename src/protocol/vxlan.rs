//! VXLAN, RFC 7348: an Ethernet frame in UDP, with a 24-bit VNI; and the group policy id of
//! draft-smith-vxlan-group-policy.

use super::header::field;
use super::{Definition, Outer, VNI};
use crate::config::model::Payload;

/// The I flag: the VNI is valid.
const VNI_FLAG: u8 = 0x08;
/// The G flag: there is a group policy id.
const GROUP_FLAG: u8 = 0x80;

/// Its definition.
pub(super) const VXLAN: Definition = Definition {
    name: "vxlan",
    id: VNI,
    outer: Outer::Udp(Some(4789)),
    payload: Payload::Ethernet,
    write: |header, tunnel| {
        header.push([if tunnel.gbp.is_some() { VNI_FLAG | GROUP_FLAG } else { VNI_FLAG }, 0]);
        header.push(tunnel.gbp.unwrap_or(0).to_be_bytes());
        header.push((tunnel.id.unwrap_or(0) << 8).to_be_bytes());
    },
    read: |header, tunnel| {
        let own = header.own();
        tunnel.id = Some(field(own, 4, 3));
        tunnel.gbp = (field(own, 0, 1) as u8 & GROUP_FLAG != 0).then_some(field(own, 2, 2) as u16);
    },
};
