//! Frames that lie in memory as drivers may lay them: little in the first buffer, little room before it.

use mptm::kernel::Program;
use mptm::reason::Reason;

use crate::lab::*;
use crate::oracle::Outcome;
use crate::raw::Layout;
use crate::samples::samples;

/// Where the first buffer ends must not matter.
#[test]
fn short_first_buffers() {
    let Some(mut lab) = Lab::new("layout::short_first_buffers") else { return };
    for sample in samples(&lab) {
        for linear in (14..sample.frame.len()).step_by(3) {
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

/// The kernel keeps 40 of 256 bytes of headroom for itself.
#[test]
fn little_headroom() {
    let Some(mut lab) = Lab::new("layout::little_headroom") else { return };
    for (id, header) in [(GENEVE, 50), (VLAN, 4), (GENEVE_OPTIONS, 66), (OUTER_OPTIONS, 90)] {
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
