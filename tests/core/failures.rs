//! Every kind of step fails, at every change that it makes: all is as it was, and the error says all there is to say.

use std::collections::BTreeSet;

use mptm::apply::apply;
use mptm::kernel::Build;
use mptm::kernel::fake::Fake;
use mptm::plan::{Change, Step, plan};
use mptm::render;
use mptm::state::State;

use super::scene::{SMALL, apply_text, desired, difference, essence, live, scene};

/// Differs from `SMALL` in something of every kind.
pub const OTHER: &str = r#"
    [interface.u0]
    role = "underlay"
    manage = []

    [interface.w0]
    role = "workload"
    addresses = ["10.250.0.100"]
    mode = "generic"

    [interface.w1]
    role = "workload"
    segment = "red"
    addresses = ["10.250.1.100"]

    [tunnel.t0]
    protocol = "geneve"
    id = 42
    remote = "10.30.0.12"
    mtu = 1300
    redirect = false
    flood = true
    inner = ["10.100.0.0/16", "10.101.0.2"]

    [tunnel.t2]
    protocol = "fou"
    dst_port = 4789
    remote = "10.30.0.11"
    segment = "red"
    inner = ["10.100.5.0/24"]
"#;

/// What a step does, and to what kind of thing.
fn kind(step: &Step) -> String {
    fn of<T>(kind: &str, change: &Change<T>) -> String {
        let what = match change {
            Change::Add(_) => "add",
            Change::Modify { .. } => "modify",
            Change::Remove(_) => "remove",
        };
        format!("{kind} {what}")
    }
    // Exhaustive: a new kind of step must be made to fail, too.
    match step {
        Step::DataPlane(change) => of("data plane", change),
        Step::StackCpus(change) => of("stack cpus", change),
        Step::Setting(_, change) => of("setting", change),
        Step::Segment(_, change) => of("segment", change),
        Step::Interface(_, change) => of("interface", change),
        Step::Port(_, change) => of("port", change),
        Step::Tunnel(_, change) => of("tunnel", change),
        Step::Route(_, _, change) => of("route", change),
        Step::Endpoint(_, change) => of("endpoint", change),
        Step::Link(_, change) => of("link", change),
        Step::FloodLink(_, change) => of("flood link", change),
        Step::Flood(_, change) => of("flood", change),
    }
}

/// Fails every change on the way from what is there to what is wanted; the kinds of the steps that did.
pub fn fail_everywhere(origin: &Fake, want: &State) -> BTreeSet<String> {
    let (before, before_state) = (essence(origin), live(origin).state);
    let mut failed = BTreeSet::new();
    for number in 0.. {
        let fake = origin.fork();
        let first = fake.world().changes;
        fake.world().fail_at = Some(first + number);
        let mut now = live(&fake);
        let steps = plan(want, &now.state);
        let Err(error) = apply(&steps, &mut fake.clone(), &mut fake.clone(), &mut now.ids) else {
            assert_eq!(&live(&fake).state, want);
            let all: BTreeSet<String> = steps.steps.iter().map(kind).collect();
            assert_eq!(failed, all, "some kinds never failed");
            return failed;
        };
        let at = steps.steps.iter().position(|step| render::step(step) == error.step).expect(&error.step);
        failed.insert(kind(&steps.steps[at]));
        assert!(error.source.to_string().ends_with("injected"), "{}", error.source);
        assert_eq!((error.undone, error.stuck.len()), (at, 0), "{error}");
        assert_eq!(live(&fake).state, before_state, "change {number}: {error}");
        let difference = difference(&essence(&fake), &before);
        assert!(difference.is_none(), "change {number}: {error}\n{}", difference.unwrap_or_default());
    }
    unreachable!("some change is the last");
}

#[test]
fn every_kind_of_step_fails_and_is_undone() {
    let mut failed = BTreeSet::new();
    for (from, to) in [("", SMALL), (SMALL, OTHER), (OTHER, SMALL), (OTHER, ""), ("", OTHER)] {
        let fake = scene();
        apply_text(&fake, from);
        if !from.is_empty() && !to.is_empty() {
            fake.world().build = Build([8; 32]);
        }
        failed.extend(fail_everywhere(&fake, &desired(&fake, to)));
    }
    // Where a segment is flooded to more, and to less.
    let more = OTHER.to_owned()
        + "[interface.w2]\nrole = \"workload\"\naddresses = [\"10.250.2.100\"]\n[tunnel.t3]\nprotocol = \"gretap\"\nid = 3\nremote = \
           \"10.30.0.13\"\nflood = true\ninner = [\"10.103.0.0/16\"]\n";
    let fake = scene();
    apply_text(&fake, OTHER);
    failed.extend(fail_everywhere(&fake, &desired(&fake, &more)));
    // Where a tunnel has another name.
    let fake = scene();
    apply_text(&fake, SMALL);
    failed.extend(fail_everywhere(&fake, &desired(&fake, &SMALL.replace("tunnel.t0", "tunnel.t9"))));
    // Where the CPUs change, too.
    let fake = scene();
    apply_text(&fake, OTHER);
    let mut want = live(&fake).state;
    want.stack_cpus.pop_first();
    failed.extend(fail_everywhere(&fake, &want));
    let mut all = BTreeSet::new();
    for kind in [
        "data plane",
        "stack cpus",
        "setting",
        "segment",
        "interface",
        "port",
        "tunnel",
        "route",
        "endpoint",
        "link",
        "flood link",
        "flood",
        "flood link",
        "flood",
    ] {
        all.extend(["add", "modify", "remove"].map(|what| format!("{kind} {what}")));
    }
    // A segment is there or not.
    all.remove("segment modify");
    // Nor is there another program that floods; a link that is dead is mended, and can't be made dead again.
    all.remove("flood link modify");
    assert_eq!(all.difference(&failed).collect::<Vec<_>>(), Vec::<&String>::new(), "these never failed");
}
