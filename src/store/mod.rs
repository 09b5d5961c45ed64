//! A [`State`](crate::state::State) as the bytes of the pinned maps and the settings of devices: read from the kernel,
//! and written to it step by step.

mod check;
mod codec;
mod contents;
mod flood;
mod ids;
mod read;
mod runs;
mod tunnels;
mod write;

pub use check::{is_as_in, is_carried_out, is_done};
pub use contents::contents_are_as_in;
pub use ids::Ids;
pub use read::{Live, read};
pub use runs::execute_some;
pub use write::{execute, revert};
