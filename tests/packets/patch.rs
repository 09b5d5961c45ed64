//! Patch cables and their ends.

use mptm::kernel::Program;
use mptm::kernel::abi::role;

use crate::common::frame::{BROADCAST, Ethernet, TYPE_IPV6};
use crate::lab::*;
use crate::oracle::Outcome;

#[test]
fn redirect_and_pass() {
    let Some(mut lab) = Lab::new("patch::redirect_and_pass") else { return };
    let (cable, end) = (lab.cable, lab.end);
    for frame in [
        datagram(RED_IP, GREEN_IP, 30),
        datagram(RED_IP, GREEN_IP, 8000),
        Ethernet::new(BROADCAST, RED_MAC, TYPE_IPV6).encode(&[]),
    ] {
        let out = Outcome::Forward { slot: END, frame: frame.clone() };
        lab.node.check("a cable", Program::Redirect, cable, &frame, &out);
        lab.node.check("its end", Program::Pass, end, &frame, &Outcome::Pass);
    }
    let frame = datagram(RED_IP, GREEN_IP, 30);
    lab.node.check("a cable from nowhere", Program::Redirect, lab.far, &frame, &Outcome::Pass);
}

/// What the interface is comes first, then which program it has: in between, nothing may go where it should not.
#[test]
fn a_role_that_changes() {
    let Some(mut lab) = Lab::new("patch::a_role_that_changes") else { return };
    let frame = datagram(RED_IP, GREEN_IP, 30);
    for role in [role::UNDERLAY, role::WORKLOAD, role::PASS] {
        for interface in &mut lab.node.world.interfaces {
            if interface.ifindex == lab.cable {
                interface.role = role;
            }
        }
        lab.node.install();
        lab.node.check("no longer a cable", Program::Redirect, lab.cable, &frame, &Outcome::Pass);
    }
}
