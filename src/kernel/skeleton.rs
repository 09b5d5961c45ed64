//! The skeleton that build.rs generates from bpf/mptm.bpf.c.

#![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]

include!(concat!(env!("OUT_DIR"), "/mptm.skel.rs"));
