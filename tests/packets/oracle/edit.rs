//! What is changed in a packet on its way: TTL, ECN, the MSS. Checksums that were right stay right; those that were wrong
//! stay as wrong as they were.

use super::inner::{Class, Inner};
use crate::common::frame::{Mac, TCP};

/// The sum of 16-bit words, modulo what a checksum is modulo.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(0, |sum, pair| {
        (sum + (u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))) % 0xffff
    })
}

/// Changes something in what a checksum at `at` covers.
fn mending(covered: &mut [u8], at: usize, change: impl FnOnce(&mut [u8])) {
    let before = covered.to_vec();
    change(covered);
    if covered == before {
        return;
    }
    let old = sum(&before);
    covered[at..at + 2].fill(0);
    // The whole sums up to what it did; 0xffff is another zero, which no sum of a header gives.
    let new = (old + 0xffff - sum(covered)) % 0xffff;
    covered[at..at + 2].copy_from_slice(&(new as u16).to_be_bytes());
}

/// Writes a byte of an IPv4 header.
fn write_ipv4(packet: &mut [u8], at: usize, value: u8) {
    // The fixed part is enough: the rest stays what it is.
    mending(&mut packet[..20], 10, |header| header[at] = value);
}

/// A hop less, in a frame or packet. None: there is none left.
pub fn decrement(bytes: &mut [u8], inner: &Inner) -> Option<()> {
    if inner.ttl <= 1 {
        return None;
    }
    let packet = &mut bytes[inner.l3..];
    match inner.class {
        Class::Ipv4 => write_ipv4(packet, 8, inner.ttl - 1),
        _ => packet[7] = inner.ttl - 1,
    }
    Some(())
}

/// RFC 6040, 4.2, figure 4: the rows are the inner header's marks, the columns the outer one's, both in the order Not-ECT,
/// ECT(1), ECT(0), CE, which is that of their numbers. None: drop.
const ECN: [[Option<u8>; 4]; 4] = [
    [Some(0), Some(0), Some(0), None],
    [Some(1), Some(1), Some(1), Some(3)],
    [Some(2), Some(1), Some(2), Some(3)],
    [Some(3), Some(3), Some(3), Some(3)],
];

/// The outer header's congestion mark becomes the inner one's. None: it can't.
pub fn join_ecn(bytes: &mut [u8], inner: &Inner, outer: u8) -> Option<()> {
    if inner.class == Class::Arp {
        return Some(());
    }
    let new = ECN[usize::from(inner.tos & 3)][usize::from(outer)]?;
    let packet = &mut bytes[inner.l3..];
    if inner.source.is_ipv4() {
        write_ipv4(packet, 1, inner.tos & 0xfc | new);
    } else {
        packet[1] = packet[1] & 0xcf | new << 4;
    }
    Some(())
}

/// Lowers the MSS of a SYN to what a packet of `mtu` bytes leaves for it.
pub fn clamp(bytes: &mut [u8], inner: &Inner, mtu: u32) {
    let most = mtu - if inner.source.is_ipv6() { 60 } else { 40 };
    let Some(l4) = inner.l4.filter(|_| (inner.is_ip() || inner.flood) && inner.protocol == TCP) else {
        return;
    };
    let segment = &mut bytes[l4..inner.end];
    if segment.len() < 20 || segment[13] & 2 == 0 {
        return;
    }
    let header = usize::from(segment[12] >> 4) * 4;
    if header > segment.len() {
        return;
    }
    let mut at = 20;
    while at + 4 <= header {
        match (segment[at], segment[at + 1]) {
            (0, _) => return,
            (1, _) => at += 1,
            (2, 4) => {
                let own = u16::from_be_bytes([segment[at + 2], segment[at + 3]]);
                if u32::from(own) > most {
                    let most = (most as u16).to_be_bytes();
                    mending(segment, 16, |segment| segment[at + 2..at + 4].copy_from_slice(&most));
                }
                return;
            }
            (_, length @ 2..) => at += usize::from(length),
            _ => return,
        }
    }
}

/// Addresses a frame to somebody, unless it is to a group or nobody is known.
pub fn address(frame: &mut [u8], mac: Mac) {
    if frame[0] & 1 == 0 && mac != [0; 6] {
        frame[..6].copy_from_slice(&mac);
    }
}
