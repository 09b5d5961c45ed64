//! What people and programs read: each command's whole output for a usual file.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::lab::{self, Lab, MPTM, Outcome};
use crate::noop::{add_devices, everything};
use crate::snapshot::Machine;

/// A name as long as those of the test, so that columns keep their width.
const CONTAINER: &str = "namespace-of-one-pod";

/// What differs from run to run, under names that don't.
fn normalise(lab: &Lab, text: &str) -> String {
    let mut text = text.replace(&format!("/sys/fs/bpf/{}-a", lab.tag), "PIN");
    text = text.replace(&lab.a.file.display().to_string(), "FILE").replace(&lab.a.container, CONTAINER);
    let builds: BTreeSet<String> = text
        .split("build ")
        .skip(1)
        .map(|rest| rest.chars().take_while(char::is_ascii_hexdigit).collect())
        .collect();
    for build in builds.iter().filter(|build| build.len() == 12) {
        text = text.replace(build, "BUILD");
    }
    // What memory they take depends on the number of CPUs.
    if let Some((before, (memory, rest))) =
        text.split_once("maps: ").and_then(|(before, rest)| Some((before, rest.split_once(',')?)))
        && memory.ends_with("iB")
    {
        text = format!("{before}maps: MEMORY,{rest}");
    }
    text
}

#[track_caller]
fn same(lab: &Lab, text: &str, golden: &str) {
    let text = normalise(lab, text);
    assert_eq!(text, golden, "\n{text}");
}

#[test]
fn apply() {
    lab::run("output: apply", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        let dry = node.mptm("apply --dry-run").done();
        same(lab, &dry.stdout, include_str!("golden/plan.txt"));
        same(lab, &dry.stderr, "Would do: 11 to add, 7 to change, 0 to remove.\n");
        let done = node.mptm("apply").done();
        assert_eq!(done.stdout, dry.stdout);
        same(lab, &done.stderr, "Done: 11 added, 7 changed, 0 removed.\n");
        let down = node.mptm("down").done();
        same(lab, &down.stderr, "Done: 0 added, 7 changed, 11 removed.\n");
        // The other way round, but for the programs: those go first.
        let objects =
            |text: &str| -> BTreeSet<String> { text.lines().map(|line| line[2..].to_owned()).collect() };
        let without_values = |lines: BTreeSet<String>| -> BTreeSet<String> {
            lines.into_iter().map(|line| line.split(": ").next().unwrap().to_owned()).collect()
        };
        assert_eq!(without_values(objects(&down.stdout)), without_values(objects(&dry.stdout)));
        assert!(down.stdout.lines().all(|line| line.starts_with("- ") || line.starts_with("~ setting ")));
        assert!(down.stdout.starts_with("- program "), "{}", down.stdout);
    });
}

/// The host's own packets pass when they like.
fn without_passed(status: &str) -> String {
    let line = |line: &str| match line.split_once(' ') {
        Some((program, counts)) if program.starts_with("mptm_") => {
            let counts = counts.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{program:<13}  PASSED {counts}\n")
        }
        _ => format!("{line}\n"),
    };
    let is_counted = |part: &&str| !part.starts_with("PASSED TO THE HOST");
    let status = status.split("\n\n").filter(is_counted).collect::<Vec<_>>().join("\n\n");
    status.lines().map(line).collect()
}

#[test]
fn status_get_and_dump() {
    lab::run("output: status", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        for command in ["status", "get 10.250.1.1 10.250.1.2"] {
            let pin = node.pin.display().to_string();
            node.mptm(command).refused(&["there is no data plane in", &pin, "hint: `mptm apply` makes one"]);
        }
        let dump = node.mptm("dump");
        assert_eq!((dump.code, dump.stdout.as_str()), (Some(0), ""), "nothing is what an empty file means");
        assert!(dump.stderr.contains("there is no data plane in"), "{dump:?}");
        node.apply(&node.plain_file());
        let status = without_passed(&node.mptm("status").done().stdout);
        same(lab, &status, include_str!("golden/status.txt"));
        same(lab, &node.mptm("get 10.250.1.1 10.250.1.2").done().stdout, include_str!("golden/get.txt"));
        same(lab, &node.mptm("get 10.250.1.1 10.250.1.1").done().stdout, include_str!("golden/local.txt"));
        same(lab, &node.mptm("dump").done().stdout, include_str!("golden/dump.txt"));
        node.mptm("get 10.250.1.1 10.9.9.9")
            .refused(&["10.250.1.1 -> 10.9.9.9 in segment default: no route", "hint: "]);
        node.mptm("get 10.250.1.9 10.250.1.2").refused(&["10.250.1.9 is no address of a workload", "hint: "]);
        node.mptm("get 10.250.1.1 10.250.1.2 --segment red")
            .refused(&["there is no segment red", "there are: default"]);
    });
}

#[test]
fn check() {
    lab::run("output: check", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        let checked = node.mptm("check").done();
        assert_eq!(checked.stdout, "");
        same(lab, &checked.stderr, "FILE: 2 interfaces and 1 tunnel, no errors\n");
        let printed = node.mptm("check --print").done();
        assert_eq!(printed.stderr, "");
        same(lab, &printed.stdout, include_str!("golden/printed.txt"));
        // What it prints means what the file means.
        node.apply(&node.plain_file());
        node.mptm_reading("apply -c - --detailed-exitcode", &printed.stdout).nothing_to_do();
    });
}

#[test]
fn help() {
    let help = |command: &str| {
        let mut mptm = Command::new(MPTM);
        Outcome::of(mptm.args(command.split_whitespace()).arg("--help").env("COLUMNS", "80")).done()
    };
    let top = help("");
    assert_eq!(top.stderr, "");
    for part in [
        "Usage: mptm [OPTIONS] <COMMAND>",
        "-c, --config <FILE>",
        "--pin <DIR>",
        "-n, --netns <NETNS>",
        "Exit codes: 0 done",
    ] {
        assert!(top.stdout.contains(part), "no {part:?} in\n{}", top.stdout);
    }
    let options = [
        ("check", "--print"),
        ("apply", "--detailed-exitcode"),
        ("status", "--json"),
        ("get", "<SOURCE> <DESTINATION>"),
        ("dump", "-c, --config"),
        ("down", "--dry-run"),
    ];
    for (command, option) in options {
        assert!(top.stdout.contains(&format!("\n  {command} ")), "{}", top.stdout);
        let help = help(command);
        assert!(help.stdout.contains(&format!("Usage: mptm {command} [OPTIONS]")), "{}", help.stdout);
        assert!(help.stdout.contains(option), "{}", help.stdout);
    }
    let version = Outcome::of(Command::new(MPTM).arg("--version")).done();
    assert_eq!(version.stdout, concat!("mptm ", env!("CARGO_PKG_VERSION"), "\n"));
}

/// A busy node still fits into a window.
#[test]
fn width() {
    lab::run("output: width", |lab| {
        add_devices(lab);
        lab.a.write(&everything(lab));
        assert_eq!(lab.a.mptm("apply").code, Some(0));
        let status = lab.a.mptm("status").done().stdout.replace(&lab.a.file.display().to_string(), "FILE");
        // The test's namespaces have longer names than anybody's.
        let longer = lab.a.container.len() - "vns1".len();
        let widest = status.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100 + longer), "{widest:?} columns:\n{status}");
        assert!(status.lines().all(|line| line == line.trim_end()), "{status}");
    });
}

/// Colours are for terminals whose user wants them.
#[test]
fn colours() {
    lab::run("output: colours", |lab| {
        let node = &lab.a;
        let terminal = |environment: &str, arguments: &str| {
            let line = format!(
                "{environment} {MPTM} -c {} --pin {} -n {} {arguments}",
                node.file.display(),
                node.pin.display(),
                node.netns
            );
            let mut script = Command::new("script");
            script
                .args(["-qec", &line, "/dev/null"])
                .env("TERM", "xterm")
                .env_remove("NO_COLOR")
                // Colours are shown on the pages of CI services, whatever the terminal.
                .env_remove("CI")
                .stdin(Stdio::null());
            Outcome::of(&mut script).stdout
        };
        let escape = '\u{1b}';
        let wrong = node.plain_file().replace("42", "-1");
        for (file, arguments) in [(node.plain_file(), "apply --dry-run"), (wrong, "check")] {
            node.write(&file);
            let coloured = terminal("", arguments);
            assert!(coloured.contains(escape), "{coloured:?}");
            for plain in [terminal("NO_COLOR=1", arguments), terminal("TERM=dumb", arguments)] {
                assert!(!plain.is_empty() && !plain.contains(escape), "{plain:?}");
            }
            let piped = node.mptm(arguments);
            assert!(!piped.stdout.contains(escape) && !piped.stderr.contains(escape), "{piped:?}");
        }
    });
}

#[test]
fn json_says_what_the_text_says() {
    lab::run("output: json", |lab| {
        add_devices(lab);
        let node = &lab.a;
        let plain = node.plain_file();
        for file in [plain.clone(), everything(lab), plain.replace("id = 42", "id = 41"), String::new()] {
            node.write(&file);
            let text = node.mptm("apply --dry-run");
            let json = node.mptm("apply --dry-run --json");
            assert_eq!((text.code, json.code), (Some(0), Some(0)), "{text:?}");
            let steps: Vec<Value> = serde_json::from_str(&json.stdout).expect("JSON");
            let lines: Vec<String> = steps
                .iter()
                .map(|step| {
                    let sign = match step["action"].as_str().unwrap() {
                        "add" => '+',
                        "change" => '~',
                        _ => '-',
                    };
                    format!("{sign} {} {}", step["kind"].as_str().unwrap(), step["name"].as_str().unwrap())
                })
                .map(|line| line.trim_end().to_owned())
                .collect();
            assert_eq!(text.stdout.lines().count(), lines.len());
            for (line, step) in text.stdout.lines().zip(&lines) {
                assert!(line.starts_with(step.as_str()), "{line:?} is not {step:?}");
            }
            let done = node.mptm("apply --json");
            let done: Vec<Value> = serde_json::from_str(&done.stdout).expect("JSON");
            assert_eq!(done, steps);
        }
        node.apply(&plain);
        node.write(&plain.replace("id = 42", "id = 41"));
        let status: Value = serde_json::from_str(&node.mptm("status --json").done().stdout).expect("JSON");
        let dry: Value =
            serde_json::from_str(&node.mptm("apply --dry-run --json").done().stdout).expect("JSON");
        assert_eq!(status["drift"], dry);
        assert_eq!(status["tunnels"][0]["id"], 42);
        assert_eq!(status["interfaces"][1]["program"], "mptm_encap");
        node.write("wrong");
        let status: Value = serde_json::from_str(&node.mptm("status --json").done().stdout).expect("JSON");
        assert_eq!(status["drift"], Value::Null);
        assert!(status["drift_unknown"].as_str().unwrap().contains("1 error"), "{status}");
    });
}

#[test]
fn exit_codes() {
    lab::run("output: exit codes", |lab| {
        let node = &lab.a;
        let code = |arguments: &str| node.mptm(arguments).code;
        node.write(&node.plain_file());
        let pending = [
            ("apply --dry-run", 0),
            ("apply --dry-run --detailed-exitcode", 2),
            ("apply --dry-run --json --detailed-exitcode", 2),
            ("apply --detailed-exitcode", 2),
            ("apply --detailed-exitcode", 0),
            ("apply --dry-run --detailed-exitcode", 0),
        ];
        for (arguments, expected) in pending {
            assert_eq!(code(arguments), Some(expected), "{arguments}");
        }
        node.write("wrong");
        for (arguments, expected) in
            [("apply --detailed-exitcode", 1), ("check", 1), ("status", 0), ("down", 0), ("down", 0)]
        {
            assert_eq!(code(arguments), Some(expected), "{arguments}");
        }
    });
}

/// A dry run asks for no neighbour, mounts nothing and makes no pins; `apply` does ask.
#[test]
fn a_dry_run_touches_nothing() {
    lab::run("output: dry run", |lab| {
        let node = &lab.a;
        node.ip("neigh del 10.30.30.2 dev u");
        node.write(&node.plain_file());
        let before = Machine::look(lab);
        for arguments in ["apply --dry-run", "apply --dry-run --json", "status", "down --dry-run", "check"] {
            node.mptm(arguments);
            Machine::look(lab).must_be(&before);
        }
        let dry = node.mptm("apply --dry-run");
        assert!(
            dry.stderr.contains(
                "warning: tunnel far: the MAC address of next hop 10.30.30.2 on u is not known yet"
            ),
            "{dry:?}"
        );
        assert!(dry.stdout.contains("remote_mac unknown"), "{dry:?}");
        let done = node.mptm("apply").done();
        assert!(done.stdout.contains("remote_mac 02:00:00:00:01:02"), "{done:?}");
        node.mptm("apply").nothing_to_do();

        // One that never answers is named, and the rest is applied.
        let file = node.plain_file()
            + "[tunnel.dead]\nprotocol = \"vxlan\"\nid = 1\nremote = \"10.30.30.77\"\ninner = [\"10.9.0.0/16\"]\n";
        node.write(&file);
        let outcome = node.mptm("apply");
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(
            outcome.stderr.contains("warning: tunnel dead: next hop 10.30.30.77 on u does not answer"),
            "{outcome:?}"
        );
        let status = node.mptm("status");
        assert!(status.stdout.contains("10.30.30.77 (next hop unknown)"), "{status:?}");
        assert!(status.stderr.starts_with("warning: tunnel dead: "), "{status:?}");
    });
}
