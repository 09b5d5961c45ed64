//! mptm, the Multi Protocol Tunnel Multiplexer: a declarative reconciler for an XDP tunnel data plane.

pub mod config;
pub mod kernel;
pub mod mac;
pub mod protocol;
pub mod reason;
pub mod state;
