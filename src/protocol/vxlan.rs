//! VXLAN, RFC 7348: an Ethernet frame in UDP, with a 24-bit VNI.

use super::header::{Header, read_u24};
use crate::state::Tunnel;

/// The I flag: the VNI is valid.
const FLAGS: u8 = 0x08;
/// Of the VNI, from the UDP header on.
const VNI: usize = 8 + 4;

/// The whole outer header.
pub fn header(tunnel: &Tunnel) -> Header {
    let mut header = Header::ethernet(tunnel).ip_udp(tunnel);
    header.bytes.extend([FLAGS, 0, 0, 0]);
    header.bytes.extend((tunnel.id << 8).to_be_bytes());
    header
}

/// The VNI in one.
pub fn read_id(header: &Header) -> u32 {
    read_u24(header, usize::from(header.l4_offset) + VNI)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tests::{OUTER_IPV4_UDP, tunnel};
    use crate::protocol::{Protocol, overhead};

    #[test]
    fn bytes_of_rfc_7348_section_5() {
        let tunnel = tunnel(Protocol::Vxlan, 0x12_3456, 4789);
        let header = header(&tunnel);
        let mut expected = OUTER_IPV4_UDP.to_vec();
        expected[36..38].copy_from_slice(&[0x12, 0xb5]); // 4789
        // Flags R R R R I R R R, 24 reserved bits, VNI, 8 reserved bits.
        expected.extend([0b0000_1000, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
        assert_eq!(header.bytes, expected);
        assert_eq!((header.pop, header.l3_offset, header.l4_offset), (0, 14, 34));
        assert_eq!(read_id(&header), 0x12_3456);
        // 50 bytes of a 1500-byte underlay, as everybody knows.
        assert_eq!(overhead(&tunnel), 50);
    }
}
