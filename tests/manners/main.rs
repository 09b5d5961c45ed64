//! How mptm behaves towards a machine that is not its own: the real binary on the real kernel, as root.

mod change;
mod down;
mod drift;
mod faults;
mod lab;
mod mounts;
mod noop;
mod output;
mod refused;
mod rights;
mod snapshot;
#[path = "../common/soon.rs"]
mod soon;
mod traffic;
mod trusted;
mod waits;
mod watch;
