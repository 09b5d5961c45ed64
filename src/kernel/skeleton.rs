//! The skeletons that build.rs generates: here, that of bpf/mptm.bpf.c.

#![allow(
    missing_docs,
    clippy::all,
    unused_imports,
    unused_qualifications,
    clippy::undocumented_unsafe_blocks
)]

include!(concat!(env!("OUT_DIR"), "/mptm.skel.rs"));

/// That of bpf/carry.bpf.c.
pub mod carry {
    include!(concat!(env!("OUT_DIR"), "/carry.skel.rs"));
}

/// That of bpf/dispatcher.bpf.c, version 2 of the protocol.
pub mod dispatcher2 {
    include!(concat!(env!("OUT_DIR"), "/dispatcher2.skel.rs"));
}

/// The same, version 3.
pub mod dispatcher3 {
    include!(concat!(env!("OUT_DIR"), "/dispatcher3.skel.rs"));
}
