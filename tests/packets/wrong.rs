//! What can be wrong with each protocol's own header.

use mptm::reason::Reason;

use crate::common::frame::{TYPE_IPV4, TYPE_IPV6, TYPE_QINQ, TYPE_TEB, TYPE_VLAN};
use crate::patched::{damaged, inserted, patched};
use crate::strict::{Case, Sender, drop, leave, pass};
use crate::world::{Kind, Tunnel};

/// All of a tunnel's protocol.
pub fn cases(sender: &Sender) -> Vec<Case> {
    match &sender.tunnel.kind {
        Kind::Vlan => vlan(sender),
        Kind::Qinq { .. } => qinq(sender),
        Kind::Vxlan { .. } => vxlan(sender),
        Kind::Geneve { ip, .. } => geneve(sender, *ip),
        Kind::Gre { ethernet, checksum, sequence } => gre(sender, *ethernet, *checksum, *sequence),
        Kind::Ipip => ipip(sender),
        Kind::Gue { variant: 0 } => gue(sender),
        Kind::Gue { .. } => gue_variant_1(sender),
        Kind::Fou => fou(sender),
        Kind::Gtpu { flow } => gtpu(sender, flow.is_some()),
    }
}

/// The same tunnel with another id.
fn of_another(sender: &Sender, network: u32) -> Vec<u8> {
    let other = Tunnel { network: Some(network), received: None, ..sender.tunnel.clone() };
    let inner = crate::lab::datagram(crate::lab::behind(sender.tunnel.id as u8), crate::lab::RED_IP, 8);
    other.arriving(&inner, 7)
}

fn vlan(sender: &Sender) -> Vec<Case> {
    let good = sender.good();
    vec![
        pass("another VLAN", sender.with(14, &[0x07, 0x77])),
        pass("a priority tag", sender.with(14, &[0x20, 0x00])),
        pass("the reserved VLAN", sender.with(14, &[0x0f, 0xff])),
        pass("an S-tag", sender.with(12, &TYPE_QINQ.to_be_bytes())),
        pass("an old S-tag", sender.with(12, &[0x91, 0x00])),
        pass("no tag", [&good[..12], &good[16..]].concat()),
        pass("half a tag", good[..17].to_vec()),
        ("a priority, and eligible to be dropped", sender.with(14, &[good[14] | 0xf0]), sender.delivered()),
    ]
}

fn qinq(sender: &Sender) -> Vec<Case> {
    let good = sender.good();
    vec![
        pass("another S-tag", sender.with(14, &[0x07, 0x77])),
        pass("another C-tag", sender.with(18, &[0x07, 0x77])),
        // Which are those of another tunnel.
        drop(
            "ids the other way round",
            [&good[..14], &good[18..20], &good[16..18], &good[14..16], &good[20..]].concat(),
            Reason::InnerSource,
        ),
        pass("two S-tags", sender.with(16, &TYPE_QINQ.to_be_bytes())),
        drop("two C-tags", sender.with(12, &TYPE_VLAN.to_be_bytes()), Reason::InnerSource),
        pass("one tag", [&good[..16], &good[20..]].concat()),
        pass("half of the second", good[..21].to_vec()),
        (
            "priorities",
            patched(&sender.with(14, &[good[14] | 0xf0]), 18, &[good[18] | 0xb0]),
            sender.delivered(),
        ),
    ]
}

fn vxlan(sender: &Sender) -> Vec<Case> {
    let at = sender.tunnel.l4_offset() + 8;
    vec![
        drop("no I flag", sender.with(at, &[0xf7]), Reason::TunnelFlags),
        drop("no flags", sender.with(at, &[0]), Reason::TunnelFlags),
        leave("another VNI", of_another(sender, 0x55_5555), Reason::Stray),
        pass("half a header", sender.good()[..at + 7].to_vec()),
        ("reserved bits", sender.with(at, &[0xff; 4]), sender.delivered()),
        ("the last reserved byte", sender.with(at + 7, &[0xff]), sender.delivered()),
    ]
}

fn geneve(sender: &Sender, carries_ip: bool) -> Vec<Case> {
    let at = sender.tunnel.l4_offset() + 8;
    let good = sender.good();
    let version = |version: u8| sender.with(at, &[good[at] | version << 6]);
    let kind = |kind: u16| sender.with(at + 2, &kind.to_be_bytes());
    let other = if carries_ip { TYPE_TEB } else { TYPE_IPV4 };
    let options = |options: &[u8], flags: u8| {
        let frame = inserted(&sender.good(), at + 8, options);
        patched(&frame, at, &[good[at] + (options.len() / 4) as u8, flags])
    };
    let mut cases = vec![
        drop("version 1", version(1), Reason::TunnelVersion),
        drop("version 2", version(2), Reason::TunnelVersion),
        drop("version 3 and OAM", patched(&version(3), at + 1, &[0x80]), Reason::TunnelVersion),
        leave("OAM", sender.with(at + 1, &[0x80]), Reason::Oam),
        drop("the other kind of payload", kind(other), Reason::TunnelPayload),
        drop("an unknown payload", kind(0x1234), Reason::TunnelPayload),
        drop("an unknown critical option", options(&[1, 2, 0xff, 0], 0x40), Reason::CriticalOption),
        drop("an option beyond the others", options(&[1, 2, 3, 31], 0), Reason::TunnelOption),
        drop("options beyond the packet", sender.with(at, &[0x3f]), Reason::OuterLength),
        leave("another VNI", of_another(sender, 0x55_5555), Reason::Stray),
        pass("half a header", good[..at + 7].to_vec()),
        ("one more option", options(&[1, 2, 3, 1, 9, 9, 9, 9], 0), sender.delivered()),
        ("reserved bits", sender.flipped(at + 1, 0x3f), sender.delivered()),
        ("the last reserved byte", sender.with(at + 7, &[0xff]), sender.delivered()),
    ];
    if carries_ip {
        let ipv6 = sender.ipv6_with(at + 2, &TYPE_IPV4.to_be_bytes());
        cases.push(drop("the other family", kind(TYPE_IPV6), Reason::TunnelPayload));
        cases.push(drop("IPv6 as IPv4", ipv6, Reason::TunnelPayload));
    }
    cases
}

fn gre(sender: &Sender, ethernet: bool, checksum: bool, sequence: bool) -> Vec<Case> {
    let at = sender.tunnel.l4_offset();
    let good = sender.good();
    let kind = |kind: u16| sender.with(at + 2, &kind.to_be_bytes());
    let as_kind = |checksum, sequence| {
        let kind = Kind::Gre { ethernet, checksum, sequence };
        let inner = crate::lab::datagram(crate::lab::behind(sender.tunnel.id as u8), crate::lab::RED_IP, 8);
        Tunnel { kind, ..sender.tunnel.clone() }.arriving(&inner, 0)
    };
    let mut cases = vec![
        drop("routing", sender.flipped(at, 0x40), Reason::TunnelFlags),
        drop("strict source route", sender.flipped(at, 0x08), Reason::TunnelFlags),
        drop("bit 5", sender.flipped(at, 0x04), Reason::TunnelFlags),
        drop("version 1", sender.flipped(at + 1, 1), Reason::TunnelVersion),
        drop(
            "version 7 and routing",
            patched(&sender.flipped(at + 1, 7), at, &[good[at] | 0x40]),
            Reason::TunnelVersion,
        ),
        drop("another key", of_another(sender, 0x5555_5555), Reason::TunnelId),
        // It belongs to no tunnel: of this payload its far end has none.
        drop(
            "the other kind of payload",
            kind(if ethernet { TYPE_IPV4 } else { TYPE_TEB }),
            Reason::TunnelId,
        ),
        pass("an unknown payload", kind(0x880b)),
        ("reserved bits", patched(&sender.flipped(at + 1, 0xf8), at, &[good[at] | 3]), sender.delivered()),
    ];
    if !ethernet {
        let ipv6 = sender.ipv6_with(at + 2, &TYPE_IPV4.to_be_bytes());
        cases.push(drop("the other family", kind(TYPE_IPV6), Reason::TunnelPayload));
        cases.push(drop("IPv6 as IPv4", ipv6, Reason::TunnelPayload));
    }
    if checksum {
        cases.push(drop(
            "a wrong checksum",
            damaged(&good, at + 4, &[good[at + 4] ^ 1]),
            Reason::TunnelChecksum,
        ));
        cases.push(drop("no checksum", as_kind(false, sequence), Reason::TunnelChecksum));
    }
    if sequence {
        cases.push(drop("no sequence number", as_kind(checksum, false), Reason::TunnelSequence));
    }
    cases
}

fn ipip(sender: &Sender) -> Vec<Case> {
    let at = sender.tunnel.l4_offset();
    let type_at = if sender.tunnel.is_ipv6() { 20 } else { 23 };
    vec![
        drop("the other family", sender.with(type_at, &[41]), Reason::TunnelPayload),
        drop("IPv6 as IPv4", sender.ipv6_with(type_at, &[4]), Reason::TunnelPayload),
        drop("inner version 5", sender.with(at, &[0x55]), Reason::InnerMalformed),
        pass("another protocol", sender.with(type_at, &[6])),
    ]
}

fn gue(sender: &Sender) -> Vec<Case> {
    let at = sender.tunnel.l4_offset() + 8;
    let good = sender.good();
    let private = patched(&inserted(&good, at + 4, &[1, 2, 3, 4]), at, &[1]);
    vec![
        drop("variant 2", sender.with(at, &[0x80]), Reason::TunnelVersion),
        drop("variant 3", sender.with(at, &[0xc0]), Reason::TunnelVersion),
        leave("a control message", sender.with(at, &[0x20]), Reason::Oam),
        drop("flags", sender.with(at + 2, &[0x80, 0]), Reason::TunnelFlags),
        drop("the other family", sender.with(at + 1, &[41]), Reason::TunnelPayload),
        drop("IPv6 as IPv4", sender.ipv6_with(at + 1, &[4]), Reason::TunnelPayload),
        drop("another payload", sender.with(at + 1, &[17]), Reason::TunnelPayload),
        drop("fields beyond the packet", sender.with(at, &[0x1f]), Reason::OuterLength),
        drop("inner version 5", sender.with(at + 4, &[0x55]), Reason::InnerMalformed),
        pass("half a header", good[..at + 3].to_vec()),
        ("private data", private, sender.delivered()),
        ("variant 1", direct(&good, at), sender.delivered()),
    ]
}

/// Without the header of variant 0.
fn direct(frame: &[u8], at: usize) -> Vec<u8> {
    let mut frame = [&frame[..at], &frame[at + 4..]].concat();
    let (is_ipv4, l4) = (frame[12] == 8, at - 8);
    for length_at in [if is_ipv4 { 16 } else { 18 }, l4 + 4] {
        let length = u16::from_be_bytes([frame[length_at], frame[length_at + 1]]) - 4;
        frame[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }
    crate::patched::mend(&mut frame);
    frame
}

fn gue_variant_1(sender: &Sender) -> Vec<Case> {
    let at = sender.tunnel.l4_offset() + 8;
    vec![
        drop("variant 2", sender.with(at, &[0x85]), Reason::TunnelVersion),
        drop("IP version 5", sender.with(at, &[0x55]), Reason::InnerMalformed),
        drop("IP version 7", sender.with(at, &[0x75]), Reason::InnerMalformed),
        leave("a control message of variant 0", sender.with(at, &[0x25]), Reason::Oam),
        ("variant 0", inserted(&sender.good(), at, &[0, 4, 0, 0]), sender.delivered()),
    ]
}

fn fou(sender: &Sender) -> Vec<Case> {
    let at = sender.tunnel.l4_offset() + 8;
    vec![
        drop("version 5", sender.with(at, &[0x55]), Reason::InnerMalformed),
        drop("version 0", sender.with(at, &[0x05]), Reason::InnerMalformed),
    ]
}

fn gtpu(sender: &Sender, has_flow: bool) -> Vec<Case> {
    let at = sender.tunnel.l4_offset() + 8;
    let good = sender.good();
    let length = u16::from_be_bytes([good[at + 2], good[at + 3]]);
    let with_length = |length: u16| sender.with(at + 2, &length.to_be_bytes());
    let mut cases = vec![
        drop("version 2", sender.flipped(at, 0x60), Reason::TunnelVersion),
        drop("version 0", sender.flipped(at, 0x20), Reason::TunnelVersion),
        drop("GTP'", sender.flipped(at, 0x10), Reason::TunnelVersion),
        drop("too long", with_length(length + 1), Reason::TunnelLength),
        drop("too short", with_length(length - 1), Reason::TunnelLength),
        drop("no length", with_length(0), Reason::TunnelLength),
        leave("an end marker", sender.with(at + 1, &[254]), Reason::Oam),
        leave("an error indication", sender.with(at + 1, &[26]), Reason::Oam),
        leave("an unknown message", sender.with(at + 1, &[200]), Reason::Oam),
        leave("an echo request of a tunnel", sender.with(at + 1, &[1]), Reason::Oam),
        leave("another TEID", of_another(sender, 0x5555_5555), Reason::Stray),
        leave("TEID 0", of_another(sender, 0), Reason::Stray),
        pass("half a header", good[..at + 7].to_vec()),
        ("a spare bit", sender.flipped(at, 0x08), sender.delivered()),
    ];
    if has_flow {
        cases.extend([
            drop("an unknown extension", sender.with(at + 11, &[0x99]), Reason::CriticalOption),
            drop("an extension of no length", sender.with(at + 12, &[0]), Reason::TunnelOption),
            drop("an extension beyond the packet", sender.with(at + 12, &[0xff]), Reason::TunnelOption),
            ("an extension that may be skipped", sender.with(at + 11, &[0x20]), sender.delivered()),
        ]);
    } else {
        // The packet's first bytes taken for an extension header.
        cases.push(drop("an extension that is none", sender.flipped(at, 4), Reason::TunnelOption));
    }
    cases
}
