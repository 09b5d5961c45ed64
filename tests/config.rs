//! Configuration files, right and wrong, with what mptm says of them.
//!
//! `tests/config/NN-*.toml` are wrong and have their errors in `NN-*.stderr`; `ok-*.toml` are right and have their
//! normalised text in `ok-*.print`. A directory is a file `mptm.toml` with its drop-ins. `MPTM_BLESS=1` writes what
//! is expected anew.

use std::fs;
use std::path::{Path, PathBuf};

use mptm::config::{self, Source};

/// The cases whose name begins in a way, by name: what to load, and the path of what is expected without extension.
fn cases(wanted: impl Fn(&str) -> bool) -> Vec<(PathBuf, PathBuf)> {
    let mut cases = Vec::new();
    for entry in fs::read_dir("tests/config").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !wanted(name) {
            continue;
        }
        if path.is_dir() {
            cases.push((path.join("mptm.toml"), path));
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            cases.push((path.clone(), path.with_extension("")));
        }
    }
    cases.sort();
    cases
}

/// Compares, or writes anew; says what differs.
fn matches(expected: &Path, actual: &str) -> bool {
    if std::env::var_os("MPTM_BLESS").is_some() {
        fs::write(expected, actual).unwrap();
        return true;
    }
    let text = fs::read_to_string(expected)
        .unwrap_or_else(|error| format!("(no {}: {error})\n", expected.display()));
    if text != actual {
        eprintln!("{} is not what is said:\n--- expected\n{text}--- said\n{actual}---", expected.display());
    }
    text == actual
}

#[test]
fn wrong_files() {
    let cases = cases(|name| name.starts_with(|c: char| c.is_ascii_digit()));
    assert!(cases.len() >= 45, "{} cases", cases.len());
    let mut failures = Vec::new();
    for (file, expected) in cases {
        let good = match config::load(&file) {
            Ok(_) => {
                eprintln!("{} is accepted", file.display());
                false
            }
            Err(errors) => {
                let text = errors.to_string();
                let titles: Vec<&str> =
                    text.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
                assert_eq!(titles, errors.iter().map(|error| error.title()).collect::<Vec<_>>());
                matches(&expected.with_extension("stderr"), &text)
            }
        };
        if !good {
            failures.push(file);
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn right_files() {
    let cases = cases(|name| name.starts_with("ok-"));
    assert!(cases.len() >= 5, "{} cases", cases.len());
    let mut failures = Vec::new();
    for (file, expected) in cases {
        let good = match config::load(&file) {
            Ok(loaded) => matches(&expected.with_extension("print"), &config::print(&loaded.config)),
            Err(errors) => {
                eprintln!("{errors}");
                false
            }
        };
        if !good {
            failures.push(file);
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn every_expectation_has_its_case() {
    for entry in fs::read_dir("tests/config").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "stderr" || extension == "print") {
            let case = path.with_extension("");
            assert!(case.with_extension("toml").is_file() || case.is_dir(), "{}", path.display());
        }
    }
}

#[test]
fn colours_only_if_asked() {
    let errors = config::parse(&[Source::new("mptm.toml", "id = 1")]).unwrap_err();
    assert!(!errors.render(false).contains('\x1b'));
    assert!(errors.render(true).contains("\x1b["));
}

#[test]
fn sources_are_the_file_and_its_drop_ins_in_order() {
    let loaded = config::load(Path::new("tests/config/ok-drop-ins/mptm.toml")).unwrap();
    let names: Vec<&str> =
        loaded.sources.iter().map(|source| source.name.rsplit('/').next().unwrap_or_default()).collect();
    assert_eq!(names, ["mptm.toml", "10-ports.toml", "9-tunnels.toml", "linked.toml"]);
    let at = &loaded.config.tunnels["far"].at;
    assert_eq!(at.to_string(), "tests/config/ok-drop-ins/mptm.d/9-tunnels.toml:2");
}

const EXAMPLE: &str = include_str!("../mptm.toml.example");

fn parses(text: &str) -> config::model::Config {
    config::parse(&[Source::new("mptm.toml.example", text)]).unwrap_or_else(|errors| panic!("{errors}"))
}

/// `#key = value` and `#[table]` are commented out; prose has a blank behind the `#`.
fn uncommented(text: &str) -> String {
    let live = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '[') => rest.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(|line| live(line) + "\n").collect()
}

#[test]
fn the_example_is_right() {
    let config = parses(EXAMPLE);
    assert!(!config.interfaces.is_empty() && !config.tunnels.is_empty());
}

#[test]
fn the_example_is_right_with_all_that_it_shows() {
    let all = parses(&uncommented(EXAMPLE));
    assert!(all.interfaces.len() > parses(EXAMPLE).interfaces.len());
}

#[test]
fn the_example_has_every_key() {
    let all: toml::Table = uncommented(EXAMPLE).parse().unwrap();
    let has = |kind: &str, key: &str| {
        all[kind].as_table().unwrap().values().any(|table| table.as_table().unwrap().contains_key(key))
    };
    for key in config::interface_keys() {
        assert!(has("interface", key), "interface key {key}");
    }
    for key in config::tunnel_keys() {
        assert!(has("tunnel", key), "tunnel key {key}");
    }
    assert!(all.contains_key("defaults"));
}

#[test]
fn every_file_of_the_examples_is_right() {
    let mut files = Vec::new();
    for directory in ["examples", "examples/two-nodes"] {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "toml")));
    }
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let loaded = config::load(&file).unwrap_or_else(|error| panic!("{}: {error:?}", file.display()));
        assert!(!loaded.config.tunnels.is_empty(), "{}", file.display());
    }
}
