//! IEEE 802.1Q: a tag between a frame's addresses and its EtherType.

use super::header::{Header, read_u16};
use crate::state::Tunnel;

/// Tag protocol identifier of a C-tag (IEEE 802.1Q, table 9-1).
const TPID: [u8; 2] = [0x81, 0x00];
/// Both addresses: the inner frame's are replaced by the header's, which may be the same.
const ADDRESSES: u16 = 12;

/// The addresses and the tag. Priority 0, drop eligibility 0.
pub fn header(tunnel: &Tunnel) -> Header {
    let mut header = Header::ethernet(tunnel);
    header.pop = ADDRESSES;
    header.bytes.extend(TPID);
    header.bytes.extend((tunnel.id as u16).to_be_bytes());
    header
}

/// The VLAN id in one.
pub fn read_id(header: &Header) -> u32 {
    u32::from(read_u16(header, usize::from(ADDRESSES) + TPID.len()) & 0x0fff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::abi::tunnel_flags;
    use crate::protocol::tests::tunnel;
    use crate::protocol::{Protocol, overhead};
    use crate::state::RemoteMac;

    #[test]
    fn bytes_of_ieee_802_1q_clause_9() {
        let mut tunnel = tunnel(Protocol::Vlan, 0x123, 0);
        let rewritten = header(&tunnel);
        assert_eq!(
            rewritten.bytes,
            [0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, 0x81, 0x00, 0x01, 0x23],
            "addresses, TPID, TCI"
        );
        assert_eq!((rewritten.pop, rewritten.flags), (12, 0));
        assert_eq!(read_id(&rewritten), 0x123);

        tunnel.local_mac = None;
        tunnel.remote_mac = RemoteMac::Inner;
        let kept = header(&tunnel);
        assert_eq!(kept.bytes[..12], [0; 12]);
        assert_eq!(kept.flags, tunnel_flags::KEEP_DESTINATION | tunnel_flags::KEEP_SOURCE);
        // A tag does not count against the MTU (IEEE 802.3, 3.2.7).
        assert_eq!(overhead(&tunnel), 0);
    }
}
