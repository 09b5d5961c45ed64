//! A dry run that is kept, and carried out later: that and nothing else, or not at all.

use std::fs;

use crate::lab;
use crate::snapshot::{Machine, Pinned};

#[test]
fn a_saved_plan_is_carried_out_or_refused() {
    lab::run("saved: plans", |lab| {
        let node = &lab.a;
        let plan = lab.path("plan.json");
        let plan = plan.display();
        node.write(&node.plain_file());
        let before = Machine::look(lab);
        let dry = node.mptm(&format!("apply --dry-run --out {plan}")).done();
        assert_eq!(dry.stdout, node.mptm("apply --dry-run").done().stdout);
        Machine::look(lab).must_be(&before);
        assert!(fs::read_to_string(lab.path("plan.json")).unwrap().starts_with("{\n  \"version\": 1,\n"));
        let again = format!("hint: make it again, and look at it: mptm apply --dry-run --out {plan}");
        let apply = format!("apply --plan {plan}");
        let out_of_date = format!("the plan {plan} is out of date: ");
        let refused = |parts: &[&str]| {
            node.mptm(&apply).refused(&[&[out_of_date.as_str(), again.as_str()], parts].concat());
            node.mptm(&format!("{apply} --dry-run")).refused(parts);
            Machine::look(lab).must_be(&before);
        };

        // The file has moved on.
        node.write(&(node.plain_file() + "mtu = 1400\n"));
        refused(&[
            "a.toml is not what",
            "no longer: + tunnel far: ",
            "now:       + tunnel far: ",
            "mtu 1400",
        ]);
        // What it means: a device was made again.
        node.write(&node.plain_file());
        node.mptm(&format!("{apply} --dry-run")).done();
        node.ip("link set w address 02:00:00:00:02:99");
        let other = Machine::look(lab);
        node.mptm(&apply).refused(&[&out_of_date, "the file means something else now", "02:00:00:00:02:99"]);
        Machine::look(lab).must_be(&other);
        node.ip("link set w address 02:00:00:00:02:01");
        // The file of the plan itself.
        let text = fs::read_to_string(lab.path("plan.json")).unwrap();
        for (old, new, part) in [
            ("+ tunnel far", "+ tunnel fur", "its steps are not those that the same file makes now"),
            ("\"version\": 1", "\"version\": 2", "it is of version 2, and this mptm knows 1"),
            ("\"version\": 1,", "", "it is none: it has no version"),
            ("\"steps\"", "\"stops\"", "it is damaged: unknown field `stops`"),
            ("{", "", "it is none: "),
            (", build ", ", build f", "it was made by mptm 0.1.0, build f"),
        ] {
            fs::write(lab.path("plan.json"), text.replacen(old, new, 1)).unwrap();
            node.mptm(&apply).refused(&[part, &again]);
        }
        fs::remove_file(lab.path("plan.json")).unwrap();
        node.mptm(&apply).refused(&["cannot read the plan", "No such file", &again]);
        fs::write(lab.path("plan.json"), text).unwrap();

        let done = node.mptm(&apply).done();
        assert_eq!(done.stdout, dry.stdout);
        node.mptm("apply").nothing_to_do();
        // The kernel has moved on: by this very plan.
        let pinned = Pinned::look(&node.pin);
        node.mptm(&apply).refused(&[&out_of_date, "the kernel is not as it was", "no longer: + data-plane"]);
        Pinned::look(&node.pin).must_be(&pinned);

        // Nothing to do is a plan, too; and one may be confirmed.
        node.mptm(&format!("apply --dry-run --out {plan}")).nothing_to_do();
        node.mptm(&apply).nothing_to_do();
        node.write(&(node.plain_file() + "mtu = 1400\n"));
        node.mptm(&format!("apply --dry-run --out {plan}")).done();
        node.mptm(&format!("{apply} --confirm 1")).refused_after(&["not confirmed within 1 s"]);
        node.mptm(&apply).done();
        node.mptm("apply").nothing_to_do();

        node.mptm(&format!("apply --out {plan}")).refused(&["--dry-run"]);
        node.mptm("apply --dry-run --out /nowhere/plan.json")
            .refused(&["cannot write the plan /nowhere/plan.json"]);
        assert_eq!(fs::read_dir(lab.dir.path()).unwrap().count(), 2, "something is left behind");
    });
}
