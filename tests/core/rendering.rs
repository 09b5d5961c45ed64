//! Plans as people and programs read them.

use std::path::Path;

use mptm::plan::{Plan, plan};
use mptm::render;
use mptm::state::State;

use crate::plans::{full, other};

/// Compares with a file of tests/core/golden; MPTM_BLESS=1 writes it.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/core/golden").join(name);
    if std::env::var_os("MPTM_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name}");
}

fn text(plan: &Plan) -> String {
    plan.steps.iter().map(|step| render::step(step) + "\n").collect()
}

#[test]
fn everything_is_made() {
    let plan = plan(&full(), &State::default());
    assert_eq!(render::summary(&plan), "15 to add, 1 to change, 0 to remove");
    golden("add.txt", &text(&plan));
}

#[test]
fn everything_is_changed() {
    let plan = plan(&other(), &full());
    assert_eq!(render::summary(&plan), "0 to add, 9 to change, 0 to remove");
    golden("change.txt", &text(&plan));
    let json = serde_json::to_string_pretty(&render::json(&plan)).unwrap() + "\n";
    golden("change.json", &json);
}

#[test]
fn everything_is_removed() {
    let plan = plan(&State::default(), &full());
    assert_eq!(render::summary(&plan), "0 to add, 1 to change, 15 to remove");
    golden("remove.txt", &text(&plan));
    let json = render::json(&plan);
    let steps = json.as_array().unwrap();
    assert_eq!(steps.len(), 16);
    for step in steps {
        // A setting does not go: it is put back.
        let wanted = if step["kind"] == "setting" { (Some("change"), false) } else { (Some("remove"), true) };
        assert_eq!((step["action"].as_str(), step["after"].is_null()), wanted, "{step}");
    }
}
