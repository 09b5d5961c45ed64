//! GENEVE, RFC 8926: an Ethernet frame in UDP, with a 24-bit VNI and options.

use super::header::{Header, read_u24};
use crate::state::Tunnel;

/// Transparent Ethernet bridging.
const PAYLOAD_ETHERNET: [u8; 2] = [0x65, 0x58];
/// Of the VNI, from the UDP header on.
const VNI: usize = 8 + 4;

/// The whole outer header.
pub fn header(tunnel: &Tunnel) -> Header {
    let mut header = Header::ethernet(tunnel).ip_udp(tunnel);
    // Version 0, no options; neither O nor C.
    header.bytes.extend([0, 0]);
    header.bytes.extend(PAYLOAD_ETHERNET);
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
    fn bytes_of_rfc_8926_section_3() {
        let tunnel = tunnel(Protocol::Geneve, 0x00_002a, 6081);
        let header = header(&tunnel);
        let mut expected = OUTER_IPV4_UDP.to_vec();
        expected[36..38].copy_from_slice(&[0x17, 0xc1]); // 6081
        // Ver 0, Opt Len 0; O, C and Rsvd. 0; Protocol Type; VNI; Reserved.
        expected.extend([0, 0, 0x65, 0x58, 0, 0, 0x2a, 0]);
        assert_eq!(header.bytes, expected);
        assert_eq!((header.pop, header.l3_offset, header.l4_offset), (0, 14, 34));
        assert_eq!(read_id(&header), 42);
        assert_eq!(overhead(&tunnel), 50);
    }
}
