//! The real kernel.

mod bpf;
mod bpf_calls;
mod pins;

pub use bpf::BpfDataPlane;
pub use bpf_calls::TestRun;
