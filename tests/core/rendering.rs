//! Plans as people and programs read them.

use mptm::plan::{Plan, plan};
use mptm::render;
use mptm::state::State;

use crate::plans::{full, other};

fn text(plan: &Plan) -> String {
    plan.steps.iter().map(|step| render::step(step) + "\n").collect()
}

#[test]
fn everything_is_made() {
    let plan = plan(&full(), &State::default());
    assert_eq!(render::summary(&plan), "12 to add, 0 to change, 0 to remove");
    assert_eq!(text(&plan), include_str!("golden/add.txt"));
}

#[test]
fn everything_is_changed() {
    let plan = plan(&other(), &full());
    assert_eq!(render::summary(&plan), "0 to add, 8 to change, 0 to remove");
    assert_eq!(text(&plan), include_str!("golden/change.txt"));
    let json = serde_json::to_string_pretty(&render::json(&plan)).unwrap() + "\n";
    assert_eq!(json, include_str!("golden/change.json"));
}

#[test]
fn everything_is_removed() {
    let plan = plan(&State::default(), &full());
    assert_eq!(render::summary(&plan), "0 to add, 0 to change, 12 to remove");
    assert_eq!(text(&plan), include_str!("golden/remove.txt"));
    let json = render::json(&plan);
    let steps = json.as_array().unwrap();
    assert_eq!(steps.len(), 12);
    for step in steps {
        assert_eq!((step["action"].as_str(), step["after"].is_null()), (Some("remove"), true), "{step}");
    }
}
