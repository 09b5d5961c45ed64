//! The real kernel.

mod attached;
mod bpf;
mod bpf_calls;
mod copy;
mod cpus;
mod dispatched;
mod dispatchers;
mod ethtool;
mod events;
mod generation;
mod libbpf;
mod links;
mod load;
mod lock;
mod making;
mod migrate;
mod netlink;
mod netns;
mod network;
mod observe;
mod peers;
mod pins;
mod programs;
mod resize;
mod rights;
mod routes;
mod settings;
mod sockets;
mod task;

pub use bpf::BpfDataPlane;
pub use bpf_calls::TestRun;
pub use events::{Event, Events, Nsid};
pub use lock::Holder;
pub use netns::{NetnsLock, enter_netns};
pub use network::LinuxNetwork;
pub use rights::require_rights;
