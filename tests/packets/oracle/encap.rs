//! What leaves a workload.

use mptm::kernel::abi::role;
use mptm::reason::Reason;

use super::answer::Role;
use super::inner::{Class, Inner};
use super::{Outcome, answer, edit};
use crate::world::{Interface, Target, World};

impl World {
    pub(super) fn judge_encap(&mut self, ifindex: u32, frame: &[u8]) -> Outcome {
        let Some(interface) = self.interface(ifindex).cloned() else { return Outcome::Pass };
        if interface.role != role::WORKLOAD {
            return Outcome::Pass;
        }
        let inner = Inner::of_frame(frame);
        match inner.class {
            Class::Malformed => return Outcome::Drop(Reason::Malformed),
            Class::Group => return self.flood_out(&interface, frame, &inner),
            Class::Other => return Outcome::Pass,
            _ => {}
        }
        let own = self
            .route(interface.table, inner.source)
            .filter(|own| matches!(own, Target::Workload { slot, .. } if *slot == interface.slot));
        let Some(route) = self.way(own, interface.table, &inner) else { return Outcome::Pass };
        let is_here = |target| matches!(target, Target::Workload { slot, .. } if slot == interface.slot);
        let is_known = self.is_known_there(interface.table, &inner, is_here);
        if own.is_none() && !inner.may_be_anybody() && !is_known {
            return Outcome::Drop(Reason::Source);
        }
        let mac = frame[6..12].try_into().expect("a source address");
        self.remember(interface.table, &inner, Target::Workload { slot: interface.slot, mac, pairs: 0 });
        match route {
            Target::Gateway => {
                self.answer(interface.slot, answer::neighbour(frame, &inner, &interface, Role::Gateway))
            }
            Target::Workload { slot, .. } if slot == interface.slot => Outcome::Pass,
            Target::Workload { slot, mac, .. } => {
                let mut out = frame.to_vec();
                if out[..6] == interface.mac && inner.is_ip() && edit::decrement(&mut out, &inner).is_none() {
                    return Outcome::Drop(Reason::Ttl);
                }
                edit::address(&mut out, mac);
                self.forward(slot, out)
            }
            Target::Tunnel(id) => self.enter_tunnel(id, frame, &inner, &interface),
        }
    }

    /// A packet for several, of the workload's own or of one that has no address yet.
    fn flood_out(&self, interface: &Interface, frame: &[u8], inner: &Inner) -> Outcome {
        let own = self.route(interface.table, inner.source);
        let is_own = matches!(own, Some(Target::Workload { slot, .. }) if slot == interface.slot);
        if inner.flood && self.floods(interface.table) && (is_own || inner.has_no_address()) {
            return Outcome::Noted { tunnel: None, frame: frame.to_vec() };
        }
        Outcome::Leave(Reason::Group)
    }

    fn enter_tunnel(&self, id: u32, frame: &[u8], inner: &Inner, interface: &Interface) -> Outcome {
        let Some(tunnel) = self.tunnel(id) else { return Outcome::Drop(Reason::NoTunnel) };
        let carries_ip = tunnel.kind.carries_ip();
        if carries_ip && !inner.is_ip() {
            return self.answer(interface.slot, answer::neighbour(frame, inner, interface, Role::Host));
        }
        let (size, tags) =
            if carries_ip { (inner.end - inner.l3, 0) } else { (frame.len() - 14, inner.tags as u32) };
        if size > tunnel.mtu as usize {
            return self.answer(interface.slot, answer::too_big(frame, inner, tunnel.mtu - tags));
        }
        if tunnel.unresolved {
            return Outcome::Drop(Reason::NoNeighbour);
        }
        let mut out = frame.to_vec();
        if inner.is_ip()
            && (carries_ip || out[..6] == interface.mac)
            && edit::decrement(&mut out, inner).is_none()
        {
            return Outcome::Drop(Reason::Ttl);
        }
        if let Some(mac) = tunnel.inner_mac {
            edit::address(&mut out, mac);
        }
        if tunnel.mss_clamp {
            edit::clamp(&mut out, inner, tunnel.mtu);
        }
        if !tunnel.stack && !self.has_slot(tunnel.slot) {
            return Outcome::Drop(Reason::NoDevice);
        }
        Outcome::Encapsulated { tunnel: id, inner: out }
    }
}
