//! GTP-U, 3GPP TS 29.281: an IP packet in UDP, with a 32-bit TEID and, for 5G, a QoS flow (TS 38.415).

use super::header::{Header, field};
use super::{Definition, HasId, Id, Outer};
use crate::config::model::Payload;
use crate::kernel::abi::tunnel_flags;
use crate::state::Tunnel;

/// Version 1, protocol type GTP (5.1).
const VERSION: u8 = 0x30;
/// The E flag: there is an extension header.
const EXTENSION_FLAG: u8 = 0x04;
/// G-PDU, the message that carries packets (6.1).
const G_PDU: u8 = 255;
/// The extension header of a PDU session container (5.2.1).
const PDU_SESSION: u8 = 0x85;

/// Its definition. TEID 0 is for messages that belong to no tunnel (5.1).
pub(super) const GTPU: Definition = Definition {
    name: "gtpu",
    id: Id { has: HasId::Always, name: "TEID", min: 1, max: u32::MAX, local: true },
    outer: Outer::Udp(Some(2152)),
    payload: Payload::Ip,
    write,
    read,
};

fn write(header: &mut Header, tunnel: &Tunnel) {
    header.flags |= tunnel_flags::GTPU_LENGTH;
    header.push([if tunnel.qfi.is_some() { VERSION | EXTENSION_FLAG } else { VERSION }, G_PDU, 0, 0]);
    header.push(tunnel.id.unwrap_or(0).to_be_bytes());
    if let Some(qfi) = tunnel.qfi {
        // Sequence number and N-PDU number, which are there but not used; then the container: its length in words,
        // DL or UL PDU SESSION INFORMATION (TS 38.415, 5.5.2), the flow, and nothing behind it.
        header.push([0, 0, 0, PDU_SESSION]);
        header.push([1, u8::from(tunnel.uplink) << 4, qfi & 0x3f, 0]);
    }
}

fn read(header: &Header, tunnel: &mut Tunnel) {
    let own = header.own();
    tunnel.id = Some(field(own, 4, 4));
    if field(own, 0, 1) as u8 & EXTENSION_FLAG != 0 {
        tunnel.qfi = Some(field(own, 14, 1) as u8 & 0x3f);
        tunnel.uplink = field(own, 13, 1) >> 4 == 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tests::{over_ipv4, over_ipv6, own};
    use crate::protocol::{Protocol, header};

    #[test]
    fn bytes_of_ts_29_281_section_5_1() {
        let tunnel = Tunnel { id: Some(0x0102_0304), ..over_ipv6(Protocol::Gtpu) };
        // Version 1, PT, no E, S or PN; G-PDU; length, filled in; TEID.
        assert_eq!(own(&tunnel), [0x30, 0xff, 0, 0, 1, 2, 3, 4]);
        let header = header(&tunnel);
        assert_eq!(header.bytes[56..58], [0x08, 0x68], "2152");
        assert_eq!(header.flags & tunnel_flags::GTPU_LENGTH, tunnel_flags::GTPU_LENGTH);
    }

    #[test]
    fn container_of_ts_38_415_section_5_5_2() {
        let down = Tunnel { qfi: Some(9), ..over_ipv4(Protocol::Gtpu) };
        let expected = [
            0x34, 0xff, 0, 0, 0, 0, 0, 42, // E
            0, 0, 0, 0x85, // sequence and N-PDU number, not used; PDU session container
            1, 0x00, 9, 0, // one word; DL; QFI; no more
        ];
        assert_eq!(own(&down), expected);
        let up = Tunnel { uplink: true, qfi: Some(63), ..down };
        assert_eq!(own(&up)[12..], [1, 0x10, 63, 0]);
    }
}
