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

#[cfg(test)]
mod tests {
    use crate::protocol::tests::{over_ipv4, over_ipv6, own};
    use crate::protocol::{Protocol, header};
    use crate::state::Tunnel;

    #[test]
    fn bytes_of_rfc_7348_section_5() {
        for tunnel in [over_ipv4(Protocol::Vxlan), over_ipv6(Protocol::Vxlan)] {
            let tunnel = Tunnel { id: Some(0x12_3456), ..tunnel };
            // Flags R R R R I R R R, 24 reserved bits, VNI, 8 reserved bits.
            assert_eq!(own(&tunnel), [0b0000_1000, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
            let header = header(&tunnel);
            let l4 = usize::from(header.l4_offset);
            assert_eq!(header.bytes[l4 + 2..l4 + 4], [0x12, 0xb5], "4789");
        }
    }

    #[test]
    fn group_policy_id() {
        let tunnel = Tunnel { gbp: Some(0x1234), ..over_ipv4(Protocol::Vxlan) };
        // G R R R I R R R, R D R R A R R R, the id, VNI.
        assert_eq!(own(&tunnel), [0b1000_1000, 0, 0x12, 0x34, 0, 0, 42, 0]);
    }
}
