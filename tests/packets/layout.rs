//! Frames that lie in memory as drivers may lay them: little in the first buffer, little room before it.

use std::thread::sleep;
use std::time::Duration;

use mptm::kernel::Program;
use mptm::reason::Reason;

use crate::common::frame::{Ipv6, TYPE_IPV4, TYPE_IPV6, TYPE_QINQ, TYPE_VLAN, UDP, udp};
use crate::lab::*;
use crate::node::REDIRECT;
use crate::oracle::Outcome;
use crate::raw::Layout;
use crate::samples::samples;
use crate::wide::behind6;
use crate::world::Kind;

/// Where a frame's outermost IP packet ends; what is behind it is padding.
fn packet_end(frame: &[u8]) -> usize {
    let word = |at: usize| frame.get(at..at + 2).map_or(0, |word| u16::from_be_bytes([word[0], word[1]]));
    let mut at = 12;
    while [TYPE_VLAN, TYPE_QINQ].contains(&word(at)) {
        at += 4;
    }
    match word(at) {
        TYPE_IPV4 => at + 2 + usize::from(word(at + 4)),
        TYPE_IPV6 => at + 2 + 40 + usize::from(word(at + 6)),
        _ => frame.len(),
    }
}

/// Where the first buffer ends must not matter, but for padding in a buffer of its own.
#[test]
fn short_first_buffers() {
    let Some(mut lab) = Lab::new("layout::short_first_buffers") else { return };
    for sample in samples(&lab) {
        let end = packet_end(&sample.frame);
        for linear in (14..sample.frame.len()).step_by(3).filter(|linear| *linear != end) {
            let layout = Layout { metadata: 0, linear };
            let Some(run) = lab.node.run_as(layout, sample.program, sample.ifindex, &sample.frame) else {
                return;
            };
            let outcome = lab.node.world.judge(sample.program, sample.ifindex, &sample.frame);
            let name = format!("{:?}, {linear} bytes in the first buffer", sample.program);
            lab.node.tally_run(&name, sample.program, sample.ifindex, &sample.frame, &outcome, &run);
        }
    }
    lab.node.check_tally();
}

/// No driver parts so small a packet from its padding. If one did, the packet would still go where it goes.
#[test]
fn padding_in_a_buffer_of_its_own() {
    let Some(lab) = Lab::new("layout::padding_in_a_buffer_of_its_own") else { return };
    let mut seen = 0;
    for sample in samples(&lab) {
        let end = packet_end(&sample.frame);
        let padded = [&sample.frame[..end], &[0xee; 30]].concat();
        let run = |linear, frame: &[u8]| {
            lab.node.run_as(Layout { metadata: 0, linear }, sample.program, sample.ifindex, frame)
        };
        let Some(whole) = run(end, &padded[..end]) else { return };
        // A sequence number is taken once.
        let again = run(end, &padded[..end]).expect("it ran before");
        if [whole.action, again.action] != [REDIRECT; 2] {
            continue;
        }
        let parted = run(end, &padded).expect("it ran before");
        let name = format!("{:?}, {end} of {} bytes in the first buffer", sample.program, padded.len());
        assert_eq!(parted.action, REDIRECT, "{name}");
        if sample.program == Program::Decap {
            assert!(parted.frame.starts_with(&whole.frame), "{name}");
        }
        seen += 1;
    }
    assert!(seen > 100, "{seen} frames");
}

/// But the first buffer of a jumbo frame may end anywhere, and so just where the packet does.
#[test]
fn a_tail_in_the_next_buffer() {
    let Some(mut lab) = Lab::new("layout::a_tail_in_the_next_buffer") else { return };
    lab.change_tunnels(|tunnel| tunnel.mtu = 8000);
    let ids = lab.wide.clone();
    for id in ids {
        let packet = datagram(RED_IP, behind(id), 3520 - 14 - 20 - 8);
        let arriving = lab.tunnel(id).arriving(&datagram(behind(id), RED_IP, 3000), 7);
        for (program, ifindex, packet) in
            [(Program::Encap, lab.red, packet), (Program::Decap, lab.underlay, arriving)]
        {
            for tail in [2000, 5480] {
                let end = packet_end(&packet);
                let frame = [&packet[..end], &vec![0xee; tail][..]].concat();
                // As many answers as a CPU gives.
                sleep(Duration::from_millis(2));
                let Some(run) =
                    lab.node.run_as(Layout { metadata: 0, linear: end }, program, ifindex, &frame)
                else {
                    return;
                };
                let outcome = lab.node.world.judge(program, ifindex, &frame);
                let name = format!("{program:?}, tunnel {id}, {tail} bytes behind {end}");
                lab.node.tally_run(&name, program, ifindex, &frame, &outcome, &run);
            }
        }
    }
    lab.node.check_tally();
}

/// The kernel keeps 40 of 256 bytes of headroom for itself.
#[test]
fn little_headroom() {
    let Some(mut lab) = Lab::new("layout::little_headroom") else { return };
    // The longest header that a file can make: GENEVE over IPv6, with options of 120 bytes.
    let long = lab.which(|tunnel| tunnel.is_ipv6() && tunnel.kind == Kind::GENEVE)[0];
    lab.change_tunnels(|tunnel| {
        if tunnel.id == u32::from(long) {
            tunnel.kind = Kind::Geneve { options: vec![(1, 2, vec![3; 116])], ip: false };
        }
    });
    for (id, header) in [(GENEVE, 50), (VLAN, 4), (GENEVE_OPTIONS, 66), (OUTER_OPTIONS, 90), (long, 190)] {
        let frame = datagram(RED_IP, behind(id), 100);
        let fits = Outcome::Encapsulated { tunnel: id.into(), inner: frame.clone() };
        for (room, outcome) in [(header + 2, &fits), (header - 4, &Outcome::Drop(Reason::NoRoom))] {
            // Metadata comes in fours.
            let metadata = (256 - 40 - room) / 4 * 4;
            let layout = Layout { metadata, linear: frame.len() };
            let Some(run) = lab.node.run_as(layout, Program::Encap, lab.red, &frame) else { return };
            let name = format!("tunnel {id}, {room} bytes of headroom");
            lab.node.tally_run(&name, Program::Encap, lab.red, &frame, outcome, &run);
        }
    }
    lab.node.check_tally();
}

/// An answer needs room for its own headers, too.
#[test]
fn little_headroom_for_answers() {
    let Some(mut lab) = Lab::new("layout::little_headroom_for_answers") else { return };
    let frame = datagram(RED_IP, behind(NARROW), 1500);
    // An IPv4 header and 8 bytes of ICMP.
    for room in [30, 28, 24] {
        let metadata = (256 - 40 - room) / 4 * 4;
        let layout = Layout { metadata, linear: frame.len() };
        let Some(run) = lab.node.run_as(layout, Program::Encap, lab.red, &frame) else { return };
        let outcome = if room < 28 {
            Outcome::Drop(Reason::NoRoom)
        } else {
            lab.node.world.judge(Program::Encap, lab.red, &frame)
        };
        let name = format!("{room} bytes of headroom");
        lab.node.tally_run(&name, Program::Encap, lab.red, &frame, &outcome, &run);
    }
    lab.node.check_tally();
}

/// What is too big is answered wherever it lies.
#[test]
fn short_first_buffers_of_what_is_too_big() {
    let Some(mut lab) = Lab::new("layout::short_first_buffers_of_what_is_too_big") else { return };
    lab.change_tunnels(|tunnel| tunnel.mtu = 1400);
    let id = lab.wide[0];
    let ipv6 = Ipv6::new(RED_IP6, behind6(id), UDP).encode(&udp(1, 2, &[7; 2000]));
    for frame in [datagram(RED_IP, behind(id), 2000), leaving(TYPE_IPV6).encode(&ipv6)] {
        for linear in [14, 15, 20, 33, 34, 42, 60, 62, 100, 500, 1300, 1400, 2000] {
            // As many answers as a CPU gives.
            sleep(Duration::from_millis(2));
            let layout = Layout { metadata: 0, linear };
            let Some(run) = lab.node.run_as(layout, Program::Encap, lab.red, &frame) else { return };
            let outcome = lab.node.world.judge(Program::Encap, lab.red, &frame);
            let name = format!("{linear} bytes in the first buffer");
            lab.node.tally_run(&name, Program::Encap, lab.red, &frame, &outcome, &run);
        }
    }
    lab.node.check_tally();
}
