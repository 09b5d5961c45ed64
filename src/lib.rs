//! mptm, the Multi Protocol Tunnel Multiplexer: a declarative reconciler for an XDP tunnel data plane.

pub mod apply;
pub mod cli;
pub mod config;
pub mod counters;
pub mod dump;
pub mod kernel;
pub mod lookup;
pub mod mac;
pub mod plan;
pub mod protocol;
pub mod reason;
pub mod render;
pub mod resolve;
pub mod rollback;
pub mod sizing;
pub mod state;
pub mod store;
pub mod watch;
