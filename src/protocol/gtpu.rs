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
