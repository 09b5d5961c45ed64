//! GRE, RFC 2784 and RFC 2890: IP packets (gre) or Ethernet frames (gretap) directly in IP, with a key, a checksum and a
//! sequence number where they are asked for.

use super::header::{Header, field};
use super::{Definition, HasId, Id, Outer};
use crate::config::model::Payload;
use crate::kernel::abi::tunnel_flags;
use crate::state::Tunnel;

/// The C flag: there is a checksum.
const CHECKSUM_FLAG: u16 = 0x8000;
/// The K flag: there is a key.
const KEY_FLAG: u16 = 0x2000;
/// The S flag: there is a sequence number.
const SEQUENCE_FLAG: u16 = 0x1000;
/// Transparent Ethernet bridging.
const PAYLOAD_ETHERNET: u16 = 0x6558;
const IPPROTO_GRE: u8 = 47;

/// IP packets.
pub(super) const GRE: Definition = Definition {
    name: "gre",
    id: Id { has: HasId::Optional, name: "GRE key", min: 0, max: u32::MAX, local: true },
    outer: Outer::Ip(Some(IPPROTO_GRE)),
    payload: Payload::Ip,
    write,
    read,
};

/// Ethernet frames.
pub(super) const GRETAP: Definition = Definition { name: "gretap", payload: Payload::Ethernet, ..GRE };

fn write(header: &mut Header, tunnel: &Tunnel) {
    let mut flags = 0;
    for (on, flag) in
        [(tunnel.checksum, CHECKSUM_FLAG), (tunnel.id.is_some(), KEY_FLAG), (tunnel.sequence, SEQUENCE_FLAG)]
    {
        flags |= if on { flag } else { 0 };
    }
    header.push(flags.to_be_bytes());
    header.push_ethertype((tunnel.payload == Payload::Ethernet).then_some(PAYLOAD_ETHERNET));
    if tunnel.checksum {
        // The checksum, and Reserved1.
        header.flags |= tunnel_flags::GRE_CHECKSUM;
        header.push([0; 4]);
    }
    header.push(tunnel.id.into_iter().flat_map(u32::to_be_bytes));
    if tunnel.sequence {
        header.flags |= tunnel_flags::SEQUENCE;
        header.sequence_offset = header.bytes.len() as u16;
        header.push([0; 4]);
    }
}

fn read(header: &Header, tunnel: &mut Tunnel) {
    let own = header.own();
    let flags = field(own, 0, 2) as u16;
    tunnel.checksum = flags & CHECKSUM_FLAG != 0;
    tunnel.sequence = flags & SEQUENCE_FLAG != 0;
    let key = if tunnel.checksum { 8 } else { 4 };
    tunnel.id = (flags & KEY_FLAG != 0).then(|| field(own, key, 4));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tests::{over_ipv4, over_ipv6, own};
    use crate::protocol::{Protocol, header};

    #[test]
    fn bytes_of_rfc_2784_section_2() {
        let plain = header(&over_ipv4(Protocol::Gretap));
        assert_eq!(plain.own(), [0, 0, 0x65, 0x58]);
        assert_eq!((plain.bytes[23], plain.l4_offset), (47, 34), "protocol 47");
        let ip = header(&over_ipv6(Protocol::Gre));
        assert_eq!(ip.own(), [0, 0, 0, 0], "the EtherType is filled in");
        assert_eq!((ip.bytes[20], ip.type_offset), (47, 56));
        let sum = Tunnel { checksum: true, ..over_ipv4(Protocol::Gretap) };
        assert_eq!(own(&sum), [0x80, 0, 0x65, 0x58, 0, 0, 0, 0]);
    }

    #[test]
    fn bytes_of_rfc_2890_section_2() {
        let key = Tunnel { id: Some(0x0102_0304), ..over_ipv4(Protocol::Gretap) };
        assert_eq!(own(&key), [0x20, 0, 0x65, 0x58, 1, 2, 3, 4]);
        let sequence = header(&Tunnel { sequence: true, ..over_ipv4(Protocol::Gretap) });
        assert_eq!(sequence.own(), [0x10, 0, 0x65, 0x58, 0, 0, 0, 0]);
        assert_eq!(sequence.sequence_offset, 38);
        let all = header(&Tunnel { checksum: true, sequence: true, ..key });
        assert_eq!(all.own(), [0xb0, 0, 0x65, 0x58, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0]);
        assert_eq!(all.sequence_offset, 46);
        assert_eq!(all.flags & tunnel_flags::GRE_CHECKSUM, tunnel_flags::GRE_CHECKSUM);
    }
}
