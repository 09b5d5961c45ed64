//! The boundary to the kernel: two small traits, their real implementations, and a fake of both.

use std::io;

pub mod abi;
mod data_plane;
#[doc(hidden)]
pub mod fake;
pub mod linux;
mod network;
mod sizes;
mod skeleton;

pub use data_plane::{Batch, Build, DataPlane, Each, Map, PinnedLink, Program};
pub use network::{AttachedXdp, Feature, Link, Netns, Network, Route, Setting};
pub use sizes::{Sizes, Table};

/// What the kernel refused: the object and the operation, the cause, and a way out where there is one.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct KernelError {
    /// `cannot set the MTU of veth-a to 1450`.
    pub what: String,
    /// What the kernel said.
    #[source]
    pub source: Option<io::Error>,
    /// A way out.
    pub hint: Option<String>,
}

impl KernelError {
    /// With what the kernel said.
    pub fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { what: what.into(), source: Some(source.into()), hint: None }
    }

    /// Without a cause below it.
    pub fn plain(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None, hint: None }
    }

    /// Adds a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A refusal, with a hint if it was for want of privilege.
fn refused(what: impl Into<String>, cause: io::Error) -> KernelError {
    let denied = cause.kind() == io::ErrorKind::PermissionDenied;
    let error = KernelError::new(what, cause);
    if denied { error.hint("this needs root, or CAP_NET_ADMIN") } else { error }
}
