//! IEEE 802.1Q and 802.1ad: one tag, or two, between a frame's addresses and its EtherType.

use super::header::{Header, field};
use super::{Definition, HasId, Id, Outer};
use crate::config::model::{Payload, Pcp};
use crate::kernel::abi::tunnel_flags;

/// Tag protocol identifier of a C-tag (IEEE 802.1Q, table 9-1).
const C_TAG: [u8; 2] = [0x81, 0x00];
/// Of an S-tag.
const S_TAG: [u8; 2] = [0x88, 0xa8];
/// 0 is a priority tag and 4095 is reserved (IEEE 802.1Q, table 9-2).
const ID: Id = Id { has: HasId::Always, name: "VLAN id", min: 1, max: 4094, local: false };

/// One C-tag.
pub(super) const VLAN: Definition = Definition {
    name: "vlan",
    id: ID,
    outer: Outer::Tags,
    payload: Payload::Ethernet,
    write: |header, tunnel| write_tag(header, C_TAG, tunnel.id, tunnel.pcp),
    read: |header, tunnel| (tunnel.id, tunnel.pcp) = read_tag(header, 0),
};

/// An S-tag, then a C-tag.
pub(super) const QINQ: Definition = Definition {
    name: "qinq",
    write: |header, tunnel| {
        write_tag(header, S_TAG, tunnel.service_id, tunnel.pcp);
        write_tag(header, C_TAG, tunnel.id, tunnel.pcp);
    },
    read: |header, tunnel| {
        (tunnel.service_id, tunnel.pcp) = read_tag(header, 0);
        (tunnel.id, _) = read_tag(header, 4);
    },
    ..VLAN
};

/// The priority, drop eligibility 0, and the VLAN id (IEEE 802.1Q, 9.6).
fn write_tag(header: &mut Header, tpid: [u8; 2], id: Option<u32>, pcp: Pcp) {
    let priority = match pcp {
        Pcp::Fixed(priority) => u16::from(priority & 7) << 13,
        Pcp::Inherit => {
            header.flags |= tunnel_flags::PCP_INHERIT;
            0
        }
    };
    header.push(tpid);
    header.push((priority | id.unwrap_or(0) as u16 & 0x0fff).to_be_bytes());
}

fn read_tag(header: &Header, at: usize) -> (Option<u32>, Pcp) {
    let tci = field(header.own(), at + 2, 2);
    let pcp =
        if header.has(tunnel_flags::PCP_INHERIT) { Pcp::Inherit } else { Pcp::Fixed((tci >> 13) as u8) };
    (Some(tci & 0x0fff), pcp)
}
