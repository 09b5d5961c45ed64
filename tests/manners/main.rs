//! How mptm behaves towards a machine that is not its own: the real binary on the real kernel, as root.

mod change;
mod confirm;
mod dispatcher;
mod down;
mod drift;
mod faults;
mod generation;
mod killed;
mod lab;
mod load;
mod mounts;
mod noop;
mod older;
mod output;
mod refused;
mod resize;
mod rights;
mod saved;
mod snapshot;
#[path = "../common/soon.rs"]
mod soon;
mod traffic;
mod trusted;
mod undone;
mod waits;
mod watch;
