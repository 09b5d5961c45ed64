//! The command line of mptm.

fn main() {}
