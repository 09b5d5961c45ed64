//! What `mptm watch` is made of: what it hears of files and of the kernel, which of it matters, and what it says.

pub mod files;
pub mod interest;
pub mod log;
pub mod service;
pub mod timing;
