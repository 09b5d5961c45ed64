//! Sockets of other namespaces, kept for the next question: entering a namespace takes a thread of its own, and far longer
//! than most answers.

use std::collections::HashMap;
use std::fs;

use super::netlink::Connection;
use super::netns::{NetnsFile, NetnsId, cannot_enter, id_of};
use crate::config::model::NetnsRef;
use crate::kernel::{KernelError, refused};

/// How many are kept: each is an open file, of which a process may have 1024 as a rule.
const KEPT: usize = 512;

/// A socket keeps its namespace alive, so they are let go of by whoever is about to wait. They are told apart by the
/// namespaces themselves and not by names: one that was made anew under a name is another, as long as the old one lives.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    by_id: HashMap<NetnsId, Connection>,
    newest: Option<NetnsId>,
}

impl Sockets {
    /// A socket of the namespace that `reference` leads to now; None if that is `home`.
    pub(super) fn of(
        &mut self,
        reference: &NetnsRef,
        home: &NetnsFile,
    ) -> Result<Option<&mut Connection>, KernelError> {
        let metadata = fs::metadata(reference.path()).map_err(|error| cannot_enter(reference, error))?;
        let id = id_of(&metadata);
        if id == home.id() {
            return Ok(None);
        }
        if self.by_id.contains_key(&id) {
            return Ok(self.by_id.get_mut(&id));
        }
        let netns = NetnsFile::open(&reference.path()).map_err(|error| cannot_enter(reference, error))?;
        if netns.id() == home.id() {
            return Ok(None);
        }
        let connection = open(&netns, reference)?;
        if self.by_id.len() >= KEPT {
            // All are asked in turn, as a rule: the ones that came first are needed first again.
            self.newest.and_then(|newest| self.by_id.remove(&newest));
        }
        let id = netns.id();
        self.newest = Some(id);
        Ok(Some(self.by_id.entry(id).or_insert(connection)))
    }

    /// Closes all of them.
    pub(super) fn close(&mut self) {
        *self = Self::default();
    }
}

/// A socket of a namespace, for whoever does not want it kept.
pub(super) fn open(netns: &NetnsFile, reference: &NetnsRef) -> Result<Connection, KernelError> {
    let opened = netns.run(Connection::open).map_err(|error| cannot_enter(reference, error))?;
    opened.map_err(|error| {
        refused(format!("cannot open an rtnetlink socket in network namespace {reference}"), error)
    })
}
