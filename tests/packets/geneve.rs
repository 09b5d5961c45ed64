//! GENEVE's options (RFC 8926, 3.5): skipped by length, and known if they are critical.

use mptm::kernel::Program;
use mptm::reason::Reason;

use crate::common::frame::{Ipv4, TYPE_IPV4, UDP, geneve_option, udp};
use crate::lab::*;
use crate::oracle::Outcome;
use crate::patched::patched;
use crate::world::{Kind, Tunnel};

/// The tunnel header, and that much of options, in front of a packet.
fn arriving(tunnel: &Tunnel, is_critical: bool, options: &[u8]) -> Vec<u8> {
    let id = tunnel.id as u8;
    let packet = Ipv4::new(behind(id), RED_IP, UDP).encode(&udp(1, 2, b"geneve"));
    let Kind::Geneve { ip, .. } = tunnel.kind else { unreachable!() };
    let plain = Tunnel { kind: Kind::Geneve { options: Vec::new(), ip }, ..tunnel.clone() };
    let frame = plain.arriving(&leaving(TYPE_IPV4).encode(&packet), 7);
    let at = tunnel.l4_offset() + 8;
    let frame = crate::patched::inserted(&frame, at + 8, options);
    patched(&frame, at, &[(options.len() / 4) as u8, if is_critical { 0x40 } else { 0 }])
}

fn delivered(lab: &Lab, tunnel: &Tunnel) -> Outcome {
    let id = tunnel.id as u8;
    let carries_ip = tunnel.kind.carries_ip();
    let ip = Ipv4 { ttl: if carries_ip { 63 } else { 64 }, ..Ipv4::new(behind(id), RED_IP, UDP) };
    let mut frame = leaving(TYPE_IPV4).encode(&ip.encode(&udp(1, 2, b"geneve")));
    frame[..6].copy_from_slice(&RED_MAC);
    if carries_ip {
        frame[6..12].copy_from_slice(&lab.own_mac(lab.red));
    }
    Outcome::Decapsulated { tunnel: tunnel.id, slot: RED, frame }
}

#[test]
fn options() {
    let Some(mut lab) = Lab::new("geneve::options") else { return };
    let ids = lab.which(|tunnel| matches!(tunnel.kind, Kind::Geneve { .. }));
    assert_eq!(ids.len(), 8);
    for id in ids {
        let tunnel = lab.tunnel(id);
        let Kind::Geneve { options: own, .. } = &tunnel.kind else { unreachable!() };
        let has_critical = own.iter().any(|option| option.1 & 0x80 != 0);
        let delivered = delivered(&lab, &tunnel);
        let harmless = geneve_option(0x1234, 5, &[1, 2, 3, 4]);
        // The tunnels with options have this one.
        let known = geneve_option(0x0103, 0x84, &[9; 12]);
        let unknown = geneve_option(0x0103, 0x85, &[]);
        let another_class = geneve_option(0x0104, 0x84, &[]);
        let longest = geneve_option(1, 1, &[7; 124]);
        let if_known = if has_critical { &delivered } else { &Outcome::Drop(Reason::CriticalOption) };
        let refused = &Outcome::Drop(Reason::CriticalOption);
        let cut = &Outcome::Drop(Reason::TunnelOption);
        // The length is in the lower five bits; the others are reserved.
        let reserved = [&harmless[..3], &[0xe0 | harmless[3]], &harmless[4..]].concat();
        let cases: [(&str, bool, Vec<u8>, &Outcome); 18] = [
            ("none", false, vec![], &delivered),
            ("C, and none", true, vec![], &delivered),
            ("one", false, harmless.clone(), &delivered),
            ("C, and one that is not", true, harmless.clone(), &delivered),
            ("without data", false, geneve_option(0, 0, &[]), &delivered),
            ("the second of two is cut off", false, [&longest[..], &longest[..124]].concat(), cut),
            ("63 without data", false, geneve_option(1, 2, &[]).repeat(63), &delivered),
            ("reserved bits", false, reserved.clone(), &delivered),
            ("reserved bits, C", true, reserved, &delivered),
            ("its own critical one", true, known.clone(), if_known),
            ("its own behind others", true, [&harmless[..], &harmless, &known].concat(), if_known),
            ("an unknown critical one", true, unknown.clone(), refused),
            ("behind its own", true, [&known[..], &another_class].concat(), refused),
            ("of another class", true, another_class, refused),
            ("critical, but no C", false, unknown.clone(), &delivered),
            ("the last is cut off", false, [&harmless[..], &[0, 1, 2, 1]].concat(), cut),
            ("the last is cut off, C", true, [&harmless[..], &[0, 1, 2, 31]].concat(), cut),
            ("at the very end", true, [&longest[..], &harmless, &unknown].concat(), refused),
        ];
        for (name, is_critical, options, outcome) in cases {
            let frame = arriving(&tunnel, is_critical, &options);
            let name = format!("{name}, tunnel {id}");
            lab.node.check(&name, Program::Decap, lab.underlay, &frame, outcome);
        }
        let oam = patched(&arriving(&tunnel, false, &unknown), tunnel.l4_offset() + 9, &[0xc0]);
        let outcome = Outcome::Leave(Reason::Oam);
        lab.node.check("OAM comes before options", Program::Decap, lab.underlay, &oam, &outcome);
    }
}
