//! The packet path in nanoseconds per frame: `cargo bench --bench packets`, as root.
//!
//! Frames are live ones (BPF_F_TEST_XDP_LIVE_FRAMES): real memory, and a real redirection into a veth whose far end
//! drops. Every round runs all rows one after the other, so that what else the machine does hits all alike; a row's
//! distance from its floor is taken within its round, and the median over the rounds is printed. Counters are checked:
//! that every frame was sent, and counted once, and nothing else was.
//!
//! MPTM_BENCH=short only sees to it that all of it runs. Words on the command line choose rows.

#[path = "../common/mod.rs"]
mod bench;
#[path = "../../tests/common/mod.rs"]
mod common;

mod curve;
mod floor;
mod rows;
mod site;
mod tunnels;

use std::process::ExitCode;

use site::Site;

fn main() -> ExitCode {
    let tunnels = tunnels::all();
    let Some(mut site) = Site::new(&tunnels) else { return ExitCode::SUCCESS };
    rows::measure(&site, &tunnels);
    curve::measure(&mut site, &tunnels[0]);
    ExitCode::SUCCESS
}
