//! Outer frames with something changed, whose checksums are right all the same.

use std::net::IpAddr;

use crate::common::frame::{
    GRE, TYPE_IPV4, TYPE_IPV6, UDP, checksum, fill_gre_checksum, fill_transport_checksum,
};
use crate::oracle::inner::{ipv4_at, ipv6_at, word};

/// Writes bytes, and then every outer checksum that there is.
pub fn patched(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = damaged(frame, at, bytes);
    mend(&mut frame);
    frame
}

/// Writes bytes and nothing else.
pub fn damaged(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// Puts bytes in between, which all lengths then count: IPv4's or IPv6's, UDP's and GTP-U's.
pub fn inserted(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = [&frame[..at], bytes, &frame[at..]].concat();
    let is_ipv4 = word(&frame, 12) == Some(TYPE_IPV4);
    let (length_at, l4, protocol) = if is_ipv4 { (16, 34, frame[23]) } else { (18, 54, frame[20]) };
    let mut lengths = vec![length_at];
    if protocol == UDP && at > l4 {
        lengths.push(l4 + 4);
        if word(&frame, l4 + 2) == Some(2152) {
            lengths.push(l4 + 10);
        }
    }
    for length_at in lengths {
        let length = word(&frame, length_at).expect("a header") + bytes.len() as u16;
        frame[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }
    mend(&mut frame);
    frame
}

/// Writes every outer checksum that is not left out, of headers without options and extensions.
pub fn mend(frame: &mut [u8]) {
    let (source, destination, protocol, l4, length): (IpAddr, IpAddr, u8, usize, usize) =
        match word(frame, 12) {
            Some(TYPE_IPV4) if frame.len() >= 34 => {
                let header = 14..(14 + usize::from(frame[14] & 0xf) * 4).min(frame.len());
                frame[24..26].fill(0);
                let sum = checksum(&frame[header.clone()]);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
                let length = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
                (ipv4_at(&frame[26..]), ipv4_at(&frame[30..]), frame[23], header.end, length)
            }
            Some(TYPE_IPV6) if frame.len() >= 54 => {
                let length = 54 + usize::from(u16::from_be_bytes([frame[18], frame[19]]));
                (ipv6_at(&frame[22..]), ipv6_at(&frame[38..]), frame[20], 54, length)
            }
            _ => return,
        };
    let end = length.min(frame.len());
    let Some(segment) = frame.get_mut(l4..end) else { return };
    if protocol == UDP && segment.len() >= 8 && segment[6..8] != [0, 0] {
        fill_transport_checksum(source, destination, UDP, segment);
    }
    if protocol == GRE && segment.len() >= 8 && segment[0] & 0x80 != 0 {
        fill_gre_checksum(segment);
    }
}
