//! One pass as `mptm apply` makes it, phase by phase.

use std::path::Path;
use std::time::Instant;

use mptm::apply::apply_and;
use mptm::config;
use mptm::config::model::NetnsRef;
use mptm::kernel::linux::{BpfDataPlane, LinuxNetwork, enter_netns};
use mptm::plan::plan;
use mptm::resolve::{Neighbours, resolve};
use mptm::store;

/// How the bench calls itself.
pub const ARGUMENT: &str = "--one-pass";
/// Of the file; of the kernel; what it means; the difference; the changes, with what of a new data plane is looked at
/// while the programs are being loaded; the kernel once more.
pub const PHASES: [&str; 6] = ["parse", "read", "resolve", "diff", "apply", "verify"];

/// FILE PIN NETNS: prints how many steps there were, and the phases in milliseconds.
pub fn main(arguments: &[String]) {
    let [file, pin, netns] = arguments else { panic!("FILE PIN NETNS, not {arguments:?}") };
    enter_netns(&NetnsRef::Name(netns.as_str().into())).expect("the bench has made it");
    let mut times = Vec::new();
    let mut last = Instant::now();
    let mut lap = || {
        let now = Instant::now();
        times.push((now - last).as_secs_f64() * 1e3);
        last = now;
    };
    let loaded = config::load(Path::new(file)).expect("a file of the bench's own");
    lap();
    let mut bpf = BpfDataPlane::new(Path::new(pin));
    let mut net = LinuxNetwork::new().expect("it has rights");
    let mut live = store::read(&bpf, &net).expect("the kernel answers");
    lap();
    let resolved =
        resolve(&loaded.config, &bpf, &net, &live, Neighbours::Look).expect("the node has all of it");
    lap();
    if let (Some(data_plane), None) = (resolved.state.data_plane, &live.state.data_plane) {
        bpf.prepare(&data_plane.sizes);
    }
    let plan_made = plan(&resolved.state, &live.state);
    lap();
    let mut contents = None;
    apply_and(&plan_made, &mut bpf, &mut net, &mut live.ids, &mut |bpf, ids| {
        contents = Some(store::contents_are_as_in(&resolved.state, bpf, ids));
    })
    .expect("the kernel takes it");
    lap();
    let is_done = plan_made.is_empty()
        || store::is_carried_out(&plan_made, &resolved.state, &bpf, &net, &live.ids, contents)
            .expect("the kernel answers");
    assert!(is_done, "it is not as it should be");
    lap();
    let times: Vec<String> = times.iter().map(|ms| format!("{ms:.3}")).collect();
    println!("{} {}", plan_made.steps.len(), times.join(" "));
}
