//! Every block of the README does what it says.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../README.md");
const MPTM: &str = env!("CARGO_BIN_EXE_mptm");

/// The blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in README.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(tag)) => open = Some(if tag == language { String::new() } else { "\0".into() }),
            (Some(_), Some(_)) => blocks.extend(open.take().filter(|block| !block.starts_with('\0'))),
            (Some(block), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// The block that begins with a command, without it.
fn console(command: &str) -> String {
    let first = format!("$ {command}\n");
    let all = blocks("console");
    all.iter()
        .find_map(|block| block.strip_prefix(&first).map(str::to_owned))
        .unwrap_or_else(|| panic!("no block for `{command}`"))
}

#[test]
fn every_console_block_is_run_by_a_test() {
    let commands: BTreeSet<String> =
        blocks("console").iter().map(|block| block.lines().next().unwrap_or_default().to_owned()).collect();
    // tests/run.sh is what runs this test; the others have a test of their own below.
    let known = ["$ examples/two-nodes/run.sh", "$ mptm -c tests/config/01-vni.toml check", "$ tests/run.sh"];
    assert_eq!(commands, known.map(str::to_owned).into());
}

#[test]
fn the_error_is_what_mptm_says() {
    let output = Command::new(MPTM)
        .args(["-c", "tests/config/01-vni.toml", "check"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), console("mptm -c tests/config/01-vni.toml check"));
}

#[test]
fn every_file_is_right() {
    let files = blocks("toml");
    assert!(files.len() >= 6, "{} files", files.len());
    for (number, file) in files.iter().enumerate() {
        let source = mptm::config::Source::new(format!("README block {number}"), file.as_str());
        if let Err(errors) = mptm::config::parse(&[source]) {
            panic!("{errors}");
        }
    }
}

#[test]
fn the_keys_of_the_files_and_of_the_example_are_documented() {
    let example = include_str!("../mptm.toml.example");
    for key in mptm::config::interface_keys().iter().chain(&mptm::config::tunnel_keys()) {
        assert!(example.contains(key), "mptm.toml.example does not explain {key}");
    }
}

/// What differs from run to run, made alike: numbers, MAC addresses, builds, and blanks.
fn plain(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let core = word.trim_end_matches([',', ':']);
        let is_mac = core.split(':').count() == 6;
        let is_hex = core.len() == 12 && core.chars().all(|c| c.is_ascii_hexdigit());
        let is_number = core.chars().all(|c| c.is_ascii_digit() || c == '.') && !core.is_empty();
        let is_time = core.ends_with("ms") && core.starts_with(|c: char| c.is_ascii_digit());
        let is_unit = ["B", "KiB", "MiB", "GiB"].contains(&core);
        if is_mac || is_hex || (is_number && core.matches('.').count() < 3) || is_time || is_unit {
            "_"
        } else {
            word
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_example_prints_what_the_readme_shows() {
    if !nix::unistd::Uid::effective().is_root() {
        // Not eprintln: the test harness would swallow it.
        let _ = writeln!(std::io::stderr(), "SKIPPED (needs root): the_example_prints_what_the_readme_shows");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/two-nodes/run.sh");
    let output = Command::new("bash")
        .args(["-c", "exec \"$0\" 2>&1", script.to_str().unwrap()])
        .env("MPTM", MPTM)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}");
    let mut lines = printed.lines().map(plain);
    for shown in
        console("examples/two-nodes/run.sh").lines().filter(|line| *line != "..." && !line.is_empty())
    {
        let wanted = plain(shown);
        assert!(lines.any(|line| line == wanted), "not printed, or not in this order: {shown}\n\n{printed}");
    }
}
