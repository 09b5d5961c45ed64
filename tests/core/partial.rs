//! What a file means where patterns match, and where something is missing but the rest must go on.

use std::collections::{BTreeMap, BTreeSet};

use mptm::config::model::{Mode, Name};
use mptm::kernel::fake::Fake;
use mptm::kernel::{AttachedXdp, Network};
use mptm::resolve::{Neighbours, Partial, Subject, resolve_what_can_be};
use mptm::state::{Role, Route};

use crate::scene::{SMALL, apply_text, config, live, resolved, scene};

fn what_can_be(fake: &Fake, text: &str) -> Partial {
    let none = BTreeSet::new();
    resolve_what_can_be(&config(text), fake, fake, &live(fake), &none).expect("the rest goes on")
}

fn names<V>(map: &BTreeMap<Name, V>) -> Vec<&str> {
    map.keys().map(|name| &**name).collect()
}

#[test]
fn patterns_match_what_is_there() {
    let fake = scene();
    let text = "[interface.'w*']\nrole = 'workload'\naddresses = 'peer'\n\
                [interface.'w?']\nrole = 'workload'\naddresses = 'peer'\nsegment = 'narrow'\n\
                [interface.w3]\nrole = 'workload'\naddresses = ['10.9.9.9']\nsegment = 'own'\n\
                [interface.'p*']\nrole = 'pass'\n\
                [interface.'u*']\nrole = 'workload'\naddresses = 'peer'\n";
    let state = resolved(&fake, text, Neighbours::Look).unwrap().state;
    // u0 and u1 are no veths.
    assert_eq!(names(&state.interfaces), ["p0", "p1", "w0", "w1", "w2", "w3", "w4"]);
    let segment = |name: &str| match &state.interfaces[name].role {
        Role::Workload { segment } => segment.to_string(),
        _ => String::new(),
    };
    assert_eq!((segment("w0"), segment("w3")), ("narrow".into(), "own".into()));
    assert!(matches!(&state.segments["narrow"][&"10.250.4.100/32".parse().unwrap()], Route::Workload { .. }));
    assert_eq!(state.segments["own"].len(), 1);

    let clash = "[interface.'w*0']\nrole = 'pass'\n[interface.'*w0']\nrole = 'pass'\n";
    let errors = resolved(&fake, clash, Neighbours::Look).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].what.starts_with("device w0 is one of "), "{}", errors[0]);
    assert_eq!(what_can_be(&fake, clash).left_out.len(), 1);
}

#[test]
fn what_is_missing_is_left_out_with_what_hangs_on_it() {
    let fake = scene();
    let text = SMALL.to_owned()
        + "[interface.u9]\nrole = 'underlay'\n[interface.w9]\nrole = 'workload'\naddresses = ['10.250.9.1']\n\
           [interface.p0]\nrole = 'redirect'\nto = 'w9'\n\
           [tunnel.t9]\nprotocol = 'geneve'\nid = 9\nunderlay = 'u9'\nremote = '10.30.0.12'\ninner = ['10.9.0.0/16']\n\
           [tunnel.nowhere]\nprotocol = 'geneve'\nid = 8\nunderlay = 'u0'\nremote = '10.30.0.13'\nmtu = 9000\ninner = ['10.8.0.0/16']\n";
    let text = text.replace("remote = \"10.30.0.1", "underlay = \"u0\"\nremote = \"10.30.0.1");
    let partial = what_can_be(&fake, &text);
    assert_eq!(names(&partial.state.interfaces), ["u0", "w0"]);
    assert_eq!(names(&partial.state.tunnels), ["t0", "t1"]);
    assert_eq!(names(&partial.devices), ["u0", "w0"]);
    let left_out: Vec<String> = partial.left_out.iter().map(ToString::to_string).collect();
    assert_eq!(left_out.len(), 3, "{left_out:?}");

    let excluded = [Subject::Interface("w0".into())].into();
    let partial = resolve_what_can_be(&config(SMALL), &fake, &fake, &live(&fake), &excluded).unwrap();
    assert_eq!(names(&partial.state.interfaces), ["u0"]);
    // Its workload is away: the tunnel waits for it.
    assert_eq!(names(&partial.state.tunnels), ["t0", "t1"]);
    assert!(partial.warnings.iter().any(|warning| warning.contains("which `from` names")));
}

#[test]
fn what_is_away_for_a_moment_stays() {
    let fake = scene();
    apply_text(&fake, SMALL);
    let before = live(&fake).state;
    fake.world().device("u0").up = false;
    fake.world().neighbours.clear();
    let partial = what_can_be(&fake, SMALL);
    assert_eq!(partial.state.tunnels, before.tunnels);
    assert!(partial.warnings.iter().any(|warning| warning.contains("its last known way stays")));
    assert!(partial.left_out.is_empty());
    // All devices gone is not a file that asks for nothing.
    for ifindex in [2, 10] {
        fake.world().delete_device(0, ifindex);
    }
    let partial = what_can_be(&fake, SMALL);
    assert!(partial.state.data_plane.is_some() && partial.state.tunnels.is_empty());
}

#[test]
fn a_program_of_somebody_else_takes_nothing_away_but_ours() {
    let fake = scene();
    apply_text(&fake, SMALL);
    let before = live(&fake).state;
    let foreign = fake.world().attach_foreign("u0", "somebodys", Mode::Native);
    let link = fake.link(&None, "u0").unwrap().unwrap();
    assert_eq!(link.xdp, Some(AttachedXdp { program_id: foreign, mode: Mode::Native }));
    let partial = what_can_be(&fake, SMALL);
    assert_eq!(names(&partial.state.links), ["w0"]);
    assert_eq!(partial.state.tunnels, before.tunnels);
    assert_eq!(partial.state.interfaces, before.interfaces);
}
