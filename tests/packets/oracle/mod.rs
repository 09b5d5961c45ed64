//! What must become of a frame, decided from the RFCs and the test's own tables.

mod answer;
mod decap;
pub mod edit;
mod encap;
pub mod inner;
mod outer;

use std::net::IpAddr;

use mptm::kernel::Program;
use mptm::kernel::abi::role;
use mptm::reason::Reason;

use crate::world::{Target, World};
use answer::Answer;
use inner::{Class, Inner, is_link_local};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// To the host's stack, as it came.
    Pass,
    /// The same, but it is counted why.
    Leave(Reason),
    Drop(Reason),
    /// Back to where it came from, as another frame.
    Answer {
        slot: u32,
        frame: Vec<u8>,
        /// Of a packet that is too big.
        reason: Option<Reason>,
    },
    /// Redirected without a tunnel.
    Forward {
        slot: u32,
        frame: Vec<u8>,
    },
    /// `inner`, as it is after all that is done to it, within the tunnel's header; a tunnel that carries IP packets has
    /// only the packet of it.
    Encapsulated {
        tunnel: u32,
        inner: Vec<u8>,
    },
    /// To the host's stack, with a note for mptm_flood; a frame that came out of a tunnel has an EtherType that nobody
    /// speaks.
    Noted {
        tunnel: Option<u32>,
        frame: Vec<u8>,
    },
    Decapsulated {
        tunnel: u32,
        slot: u32,
        frame: Vec<u8>,
    },
}

impl Outcome {
    /// Whether something goes on, or back.
    pub fn is_sent(&self) -> bool {
        !matches!(self, Self::Pass | Self::Leave(_) | Self::Drop(_))
    }
}

impl World {
    /// Learns from the frame what the programs do.
    pub fn judge(&mut self, program: Program, ifindex: u32, frame: &[u8]) -> Outcome {
        match program {
            Program::Encap => self.judge_encap(ifindex, frame),
            Program::Decap => self.judge_decap(ifindex, frame),
            Program::Redirect => match self.interface(ifindex) {
                Some(interface) if interface.role == role::REDIRECT => {
                    self.forward(interface.to, frame.to_vec())
                }
                _ => Outcome::Pass,
            },
            Program::Pass => Outcome::Pass,
            Program::Flood => unreachable!("it is tc's"),
        }
    }

    fn forward(&self, slot: u32, frame: Vec<u8>) -> Outcome {
        if self.has_slot(slot) { Outcome::Forward { slot, frame } } else { Outcome::Drop(Reason::NoDevice) }
    }

    /// By the interface that it came in by.
    fn answer(&self, slot: u32, answer: Answer) -> Outcome {
        match answer {
            Answer::Frame(frame, reason) if self.has_slot(slot) => Outcome::Answer { slot, frame, reason },
            Answer::Frame(..) => Outcome::Drop(Reason::NoDevice),
            Answer::None(outcome) => outcome,
        }
    }

    /// From a local address's own pairs, or else from its segment.
    fn route_between(&self, local: Option<Target>, table: u32, remote: IpAddr) -> Option<Target> {
        match local {
            Some(Target::Workload { pairs, .. }) if pairs != 0 => self.route(pairs, remote),
            _ => None,
        }
        .or_else(|| self.route(table, remote))
    }

    /// What is for a link-local address goes nowhere, unless it asks for a gateway, or is of neighbour discovery and a
    /// solicitation has come from there.
    fn way(&self, local: Option<Target>, table: u32, inner: &Inner) -> Option<Target> {
        if is_link_local(inner.destination) {
            let learned = self.link_locals.get(&(table, inner.destination)).copied();
            return match inner.class {
                Class::Advertisement => learned,
                Class::Solicitation => self
                    .route(table, inner.destination)
                    .filter(|target| *target == Target::Gateway)
                    .or(learned),
                _ => None,
            };
        }
        self.route_between(local, table, inner.destination)
    }

    /// Whether it says where a link-local address is that has been heard of from there.
    fn is_known_there(&self, table: u32, inner: &Inner, is_there: impl Fn(Target) -> bool) -> bool {
        inner.class == Class::Advertisement
            && is_link_local(inner.source)
            && self.link_locals.get(&(table, inner.source)).is_some_and(|target| is_there(*target))
    }

    fn remember(&mut self, table: u32, inner: &Inner, from: Target) {
        if inner.class == Class::Solicitation && is_link_local(inner.source) {
            self.link_locals.insert((table, inner.source), from);
        }
    }
}
