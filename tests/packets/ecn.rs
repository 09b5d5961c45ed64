//! Congestion marks: RFC 6040, 4.1 (normal mode) and the whole of 4.2's figure 4.

use mptm::kernel::Program;
use mptm::reason::Reason;

use crate::common::frame::{Ipv4, Ipv6, TYPE_IPV4, TYPE_IPV6, UDP, checksum, udp};
use crate::lab::*;
use crate::oracle::Outcome;
use crate::patched::patched;
use crate::wide::behind6;
use crate::world::Tunnel;

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// Inner and outer mark, and what is forwarded: figure 4, row by row.
const FIGURE_4: [(u8, [Option<u8>; 4]); 4] = [
    // The outer mark: Not-ECT, ECT(0), ECT(1), CE.
    (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
    (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
    (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
    (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
];

/// An inner frame of either family with a mark, and a DSCP that must stay what it is.
fn marked(id: u8, is_ipv6: bool, ecn: u8, ttl: u8, leaves: bool) -> Vec<u8> {
    let tos = 0xb8 | ecn;
    let payload = udp(1, 2, b"marked");
    if is_ipv6 {
        let (source, destination) = if leaves { (RED_IP6, behind6(id)) } else { (behind6(id), RED_IP6) };
        let ip = Ipv6 { traffic_class: tos, hop_limit: ttl, ..Ipv6::new(source, destination, UDP) };
        leaving(TYPE_IPV6).encode(&ip.encode(&payload))
    } else {
        let (source, destination) = if leaves { (RED_IP, behind(id)) } else { (behind(id), RED_IP) };
        let ip = Ipv4 { tos, ttl, ..Ipv4::new(source, destination, UDP) };
        leaving(TYPE_IPV4).encode(&ip.encode(&payload))
    }
}

fn with_outer_mark(tunnel: &Tunnel, frame: &[u8], ecn: u8) -> Vec<u8> {
    if tunnel.is_ipv6() {
        patched(frame, 15, &[frame[15] & 0xcf | ecn << 4])
    } else {
        patched(frame, 15, &[frame[15] & 0xfc | ecn])
    }
}

#[test]
fn decapsulation() {
    let Some(mut lab) = Lab::new("ecn::decapsulation") else { return };
    for id in lab.wide.clone() {
        let tunnel = lab.tunnel(id);
        if tunnel.kind.is_tags() || tunnel.has_sequence() {
            continue;
        }
        for is_ipv6 in [false, true] {
            for (inner, row) in FIGURE_4 {
                for (outer, result) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
                    let frame = tunnel.arriving(&marked(id, is_ipv6, inner, 64, false), 7);
                    let frame = with_outer_mark(&tunnel, &frame, outer);
                    let routed = tunnel.kind.carries_ip();
                    let outcome = match result {
                        None => Outcome::Drop(Reason::Ecn),
                        Some(ecn) => {
                            let mut frame = marked(id, is_ipv6, ecn, if routed { 63 } else { 64 }, false);
                            frame[..6].copy_from_slice(&RED_MAC);
                            if routed {
                                frame[6..12].copy_from_slice(&lab.own_mac(lab.red));
                            }
                            Outcome::Decapsulated { tunnel: id.into(), slot: RED, frame }
                        }
                    };
                    let name = format!("tunnel {id}, IPv6: {is_ipv6}, inner {inner}, outer {outer}");
                    lab.node.check(&name, Program::Decap, lab.underlay, &frame, &outcome);
                }
            }
        }
    }
}

/// The outer mark is the inner one's, whatever the outer DSCP comes from.
#[test]
fn encapsulation() {
    let Some(mut lab) = Lab::new("ecn::encapsulation") else { return };
    for tos in [Some(0x28), None] {
        lab.change_tunnels(|tunnel| tunnel.tos = tos);
        for id in lab.wide.clone() {
            let tunnel = lab.tunnel(id);
            if tunnel.kind.is_tags() {
                continue;
            }
            for is_ipv6 in [false, true] {
                for ecn in [NOT_ECT, ECT_1, ECT_0, CE] {
                    let frame = marked(id, is_ipv6, ecn, 64, true);
                    let run = lab.node.run(Program::Encap, lab.red, &frame);
                    let outer = if tunnel.is_ipv6() {
                        run.frame[14] << 4 | run.frame[15] >> 4
                    } else {
                        assert_eq!(checksum(&run.frame[14..34]), 0);
                        run.frame[15]
                    };
                    let dscp = tos.unwrap_or(0xb8);
                    assert_eq!(outer, dscp | ecn, "tunnel {id}, IPv6: {is_ipv6}");
                }
            }
        }
    }
}

/// Neighbour discovery is IPv6 as well.
#[test]
fn solicitations() {
    let Some(mut lab) = Lab::new("ecn::solicitations") else { return };
    let id = lab.which(|tunnel| !tunnel.kind.is_tags() && !tunnel.kind.carries_ip())[0];
    let tunnel = lab.tunnel(id);
    let solicitation = crate::samples::solicitation(behind6(id), RED_IP6);
    let frame = tunnel.arriving(&solicitation, 7);
    let delivered = Outcome::Decapsulated { tunnel: id.into(), slot: RED, frame: solicitation };
    lab.node.check("not marked", Program::Decap, lab.underlay, &frame, &delivered);
    let congested = with_outer_mark(&tunnel, &frame, CE);
    let outcome = Outcome::Drop(Reason::Ecn);
    lab.node.check("marked", Program::Decap, lab.underlay, &congested, &outcome);
}
