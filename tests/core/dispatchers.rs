//! Interfaces that are shared through dispatchers: who is there stays, what can't be joined is said, and what fails is
//! undone.

use mptm::config::model::Mode;
use mptm::dump::dump;
use mptm::kernel::Build;
use mptm::kernel::dispatcher::{Keeper, SLOTS, Slot};
use mptm::kernel::fake::Fake;
use mptm::plan::{Change, Step, plan};
use mptm::resolve::Neighbours;

use super::failures::{OTHER, fail_everywhere};
use super::scene::{SMALL, apply_text, desired, difference, down, essence, live, resolved, scene};

const PASS: u32 = 1 << 2;

fn slot(priority: u32) -> Slot {
    Slot { priority, actions: PASS, frags: false }
}

/// A file with all its interfaces shared.
fn shared(file: &str) -> String {
    file.replace("    role = ", "    dispatcher = true\n    role = ")
}

/// The programs of a device's dispatcher, in order.
fn members(fake: &Fake, device: &str) -> Vec<String> {
    let mut world = fake.world();
    let Some(xdp) = world.device(device).xdp else { return Vec::new() };
    world.dispatchers[&xdp.program_id].members.iter().map(|member| member.name.clone()).collect()
}

/// With a filter and something else on the workload's interface.
fn filtered() -> Fake {
    let fake = scene();
    let programs = [("filter", slot(10)), ("late", slot(60))];
    fake.world().attach_dispatcher("w0", Keeper::Libxdp, &programs, Mode::Native);
    fake
}

/// Why a file can't be had: everything that is said.
fn refusal(fake: &Fake, file: &str) -> String {
    let errors = resolved(fake, file, Neighbours::Look).expect_err("it is refused");
    let show = |error: &mptm::resolve::ResolveError| {
        format!("{} ({})", error.what, error.hint.as_deref().unwrap_or_default())
    };
    errors.iter().map(show).collect::<Vec<_>>().join("\n")
}

#[test]
fn whoever_is_there_stays() {
    let fake = filtered();
    let before = essence(&fake);
    apply_text(&fake, &shared(SMALL));
    assert_eq!(members(&fake, "w0"), ["filter", "mptm_encap", "late"]);
    assert_eq!(members(&fake, "u0"), ["mptm_decap"]);
    assert!(apply_text(&fake, &shared(SMALL)).is_empty());

    // Others come and go; it is nobody's business.
    fake.world().join_dispatcher("u0", "filter", slot(10));
    fake.world().leave_dispatcher("w0", "late");
    assert_eq!(members(&fake, "u0"), ["filter", "mptm_decap"]);
    assert!(apply_text(&fake, &shared(SMALL)).is_empty());
    let written = dump(&live(&fake).state, |_| None).config;
    assert!(written.interfaces.values().all(|interface| interface.dispatcher));

    // Another build: all programs are replaced, in their places.
    fake.world().build = Build([8; 32]);
    let steps = apply_text(&fake, &shared(SMALL)).steps;
    assert!(
        matches!(&steps[..], [Step::DataPlane(change)] if matches!(**change, Change::Modify { .. })),
        "{steps:?}"
    );
    assert_eq!(members(&fake, "w0"), ["filter", "mptm_encap"]);
    assert!(apply_text(&fake, &shared(SMALL)).is_empty());

    fake.world().leave_dispatcher("u0", "filter");
    fake.world().join_dispatcher("w0", "late", slot(60));
    down(&fake);
    assert_eq!(members(&fake, "u0"), Vec::<String>::new());
    fake.world().build = before.build;
    assert_eq!(members(&fake, "w0"), ["filter", "late"]);
}

#[test]
fn who_takes_it_out_makes_drift() {
    let fake = filtered();
    apply_text(&fake, &shared(SMALL));
    fake.world().leave_dispatcher("w0", "mptm_encap");
    let steps = plan(&desired(&fake, &shared(SMALL)), &live(&fake).state).steps;
    assert!(
        matches!(&steps[..], [Step::Link(name, Change::Modify { before, .. })] if &**name == "w0" && before.mode.is_none())
    );
    apply_text(&fake, &shared(SMALL));
    assert_eq!(members(&fake, "w0"), ["filter", "mptm_encap", "late"]);
    assert!(apply_text(&fake, &shared(SMALL)).is_empty());
    // And all of it.
    fake.world().device("w0").xdp = None;
    apply_text(&fake, &shared(SMALL));
    assert_eq!(members(&fake, "w0"), ["mptm_encap"]);
}

#[test]
fn what_stands_in_the_way_is_said() {
    let there = "interface w0 has a dispatcher of libxdp, id 102, in native mode";
    let programs = "filter (priority 10), late (priority 60)";
    let fake = filtered();
    assert_eq!(
        refusal(&fake, SMALL),
        format!(
            "{there}, with {programs} (`dispatcher = true` in [interface.w0] lets mptm join them; or unload them: \
             `xdp-loader unload w0 --all`)"
        )
    );
    let generic = shared(SMALL).replace("role = \"workload\"", "role = \"workload\"\nmode = \"generic\"");
    assert_eq!(
        refusal(&fake, &generic),
        format!(
            "{there}, with {programs}, and the file wants generic mode (write mode = \"native\", or load the others in \
             generic mode: `xdp-loader load -m MODE`)"
        )
    );
    // Once mptm is in, it can't have the interface for itself.
    apply_text(&fake, &shared(SMALL));
    assert!(refusal(&fake, SMALL).contains(&format!(", with {programs} (`dispatcher = true` in")));

    let full: Vec<(&str, Slot)> = vec![("one", slot(1)); SLOTS];
    let keeper = Keeper::Link { bpfman: true };
    for (keeper, programs, parts) in [
        (
            Keeper::Libxdp,
            &full[..],
            ["that is full: one (priority 1), one", "it has room for 10: unload one"],
        ),
        (Keeper::Libxdp, &[("mptm_encap", slot(50))], ["of an mptm with another pin directory", "--pin"]),
        (
            keeper,
            &[("one", slot(50))],
            [
                "has a dispatcher of bpfman, id 101, in native mode, with one (priority 50): none but bpfman can add to it",
                "`bpfman unload ID`",
            ],
        ),
        (Keeper::Link { bpfman: false }, &[], ["with no program, attached by a link", "`bpftool link show`"]),
        (Keeper::Unpinned, &[], ["whose pins are missing: its programs can't be taken over", "LIBXDP_BPFFS"]),
        (
            Keeper::Version(1),
            &[],
            ["of version 1, and mptm knows versions 2 and 3", "xdp-tools 1.3 or later"],
        ),
        (Keeper::Bound, &[("one", slot(50))], ["which is bound to the device", "xdp-loader unload w0 --all"]),
    ] {
        let fake = scene();
        fake.world().attach_dispatcher("w0", keeper, programs, Mode::Native);
        let said = refusal(&fake, &shared(SMALL));
        for part in parts {
            assert!(said.contains(part), "{keeper:?}: no {part:?} in {said}");
        }
    }
    // A program that is in no dispatcher.
    let fake = scene();
    fake.world().attach_foreign("w0", "theirs", Mode::Native);
    let said = refusal(&fake, &shared(SMALL));
    assert!(said.contains("not mptm's: theirs, id 100, in native mode"), "{said}");
    assert!(said.contains("only where libxdp loads it into a dispatcher"), "{said}");
}

#[test]
fn what_fails_is_undone() {
    let (small, other) = (shared(SMALL), shared(OTHER));
    // In another mode than the filter's, it can't be.
    let other = other.replace("mode = \"generic\"", "");
    for (fake, from, to) in [
        (filtered(), "", &*small),
        (filtered(), &small, &other),
        (filtered(), &small, ""),
        (scene(), &small, SMALL),
        (scene(), SMALL, &small),
    ] {
        apply_text(&fake, from);
        if !from.is_empty() && !to.is_empty() {
            fake.world().build = Build([8; 32]);
        }
        fail_everywhere(&fake, &desired(&fake, to));
    }
}

#[test]
fn it_leaves_nothing_behind() {
    let fake = scene();
    let before = essence(&fake);
    apply_text(&fake, &shared(SMALL));
    down(&fake);
    assert_eq!(difference(&essence(&fake), &before), None);
}
