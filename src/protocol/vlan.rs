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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tests::over_ipv4;
    use crate::protocol::{Protocol, header};
    use crate::state::{RemoteMac, Tunnel};

    #[test]
    fn bytes_of_ieee_802_1q_clause_9() {
        let tunnel = Tunnel { id: Some(0x123), pcp: Pcp::Fixed(5), ..over_ipv4(Protocol::Vlan) };
        let rewritten = header(&tunnel);
        assert_eq!(
            rewritten.bytes,
            [0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, 0x81, 0x00, 0xa1, 0x23],
            "addresses, TPID, TCI"
        );
        assert_eq!((rewritten.pop, rewritten.flags), (12, 0));

        let kept = header(&Tunnel { local_mac: None, remote_mac: RemoteMac::Inner, ..tunnel.clone() });
        assert_eq!(kept.bytes[..12], [0; 12]);
        assert_eq!(kept.flags, tunnel_flags::KEEP_DESTINATION | tunnel_flags::KEEP_SOURCE);

        let inherited = header(&Tunnel { pcp: Pcp::Inherit, ..tunnel });
        assert_eq!(inherited.bytes[12..], [0x81, 0x00, 0x01, 0x23]);
        assert_eq!(inherited.flags, tunnel_flags::PCP_INHERIT);
    }

    #[test]
    fn an_s_tag_comes_first() {
        let tunnel = Tunnel {
            id: Some(0x123),
            service_id: Some(0xffe),
            pcp: Pcp::Fixed(1),
            ..over_ipv4(Protocol::Qinq)
        };
        let header = header(&tunnel);
        assert_eq!(header.bytes[12..], [0x88, 0xa8, 0x2f, 0xfe, 0x81, 0x00, 0x21, 0x23]);
        assert_eq!(header.pop, 12);
    }
}
