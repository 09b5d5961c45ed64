//! The skeletons that build.rs generates: here, that of bpf/mptm.bpf.c.

#![allow(missing_docs, clippy::all, unused_qualifications, clippy::undocumented_unsafe_blocks)]

include!(concat!(env!("OUT_DIR"), "/mptm.skel.rs"));

/// That of bpf/carry.bpf.c.
pub mod carry {
    include!(concat!(env!("OUT_DIR"), "/carry.skel.rs"));
}
