//! The settings of devices: what is changed, what is remembered, and what is put back.

use mptm::apply::apply;
use mptm::config::model::{Name, NetnsRef};
use mptm::kernel::fake::Fake;
use mptm::kernel::{Feature, Map, Netns, Setting};
use mptm::mac::MacAddr;
use mptm::plan::{Step, plan};
use mptm::state::{SavedSetting, SettingKey, State};

use crate::scene::{SMALL, apply_text, carry_out, desired, difference, down, essence, live, scene};

fn key(netns: Option<&str>, device: &str, setting: &str) -> SettingKey {
    let netns: Netns = netns.map(|name| NetnsRef::Name(name.into()));
    SettingKey { netns, device: Name::from(device), setting: Setting::from_key(setting) }
}

/// Device, setting, before and wanted value of all settings.
fn settings(state: &State) -> Vec<String> {
    let one = |(key, saved): (&SettingKey, &SavedSetting)| {
        let SettingKey { netns, device, setting } = key;
        let place = netns.as_ref().map(|netns| format!("{netns}/")).unwrap_or_default();
        let show = |value| setting.show(value);
        format!("{place}{device} {} {} -> {}", setting.key(), show(saved.before), show(saved.value))
    };
    state.settings.iter().map(one).collect()
}

#[test]
fn what_a_workload_needs() {
    assert_eq!(
        settings(&desired(&scene(), SMALL)),
        [
            "w0 mtu 1500 -> 1450",
            "ns0/c0 mtu 1500 -> 1450",
            "ns0/c0 rx-gro off -> on",
            "ns0/c0 tx-checksum-ip-generic on -> off",
            "ns0/c0 tx-checksum-sctp on -> off",
        ]
    );
    let manage = SMALL.replace("role = \"workload\"", "role = \"workload\"\nmanage = [\"mtu\"]");
    assert_eq!(settings(&desired(&scene(), &manage)), ["w0 mtu 1500 -> 1450", "ns0/c0 mtu 1500 -> 1450"]);
    let alone = SMALL.replace("role = \"workload\"", "role = \"workload\"\npeer = false");
    assert_eq!(settings(&desired(&scene(), &alone)), ["w0 mtu 1500 -> 1450"]);
    let stack = SMALL.replace("id = 42", "id = 42\nredirect = false") + "[interface.w1]\nrole = 'pass'\n";
    let sysctls = settings(&desired(&scene(), &stack));
    let sysctls: Vec<&String> = sysctls.iter().filter(|line| line.contains("sysctl")).collect();
    assert_eq!(
        sysctls,
        ["w0 sysctl:accept_local 0 -> 1", "w0 sysctl:forwarding 0 -> 1", "w0 sysctl:rp_filter 2 -> 0"]
    );
}

#[test]
fn what_a_vlan_underlay_needs() {
    let text =
        "[interface.u0]\nrole = 'underlay'\n[tunnel.t]\nprotocol = 'vlan'\nid = 5\ninner = ['10.9.0.1']\n";
    assert_eq!(settings(&desired(&scene(), text)), ["u0 promisc off -> on", "u0 rx-vlan-hw-parse on -> off"]);
    let both = text.replace("'vlan'", "'qinq'\nservice_id = 6");
    assert_eq!(
        settings(&desired(&scene(), &both)),
        ["u0 promisc off -> on", "u0 rx-vlan-hw-parse on -> off", "u0 rx-vlan-stag-hw-parse on -> off"]
    );
    let text = text.replace("'underlay'", "'underlay'\nmanage = ['offloads']");
    assert_eq!(settings(&desired(&scene(), &text)), ["u0 rx-vlan-hw-parse on -> off"]);
    let fake = scene();
    let fixed = Feature { active: true, changeable: false };
    fake.world().device("u0").features.insert("rx-vlan-hw-parse".into(), fixed);
    assert!(settings(&desired(&fake, &text)).is_empty());
}

#[test]
fn the_smallest_tunnel_of_the_segment_counts() {
    let fake = scene();
    let small = SMALL.replace("id = 43", "id = 43\nmtu = 1300");
    apply_text(&fake, &small);
    assert_eq!(fake.world().device("w0").mtu, 1300);
    assert_eq!(fake.world().device_in(1, "c0").mtu, 1300);
    let other =
        small.replace("id = 43", "id = 43\nsegment = 'other'").replace("from = [\"10.250.0.200\"]", "");
    apply_text(&fake, &other);
    assert_eq!(fake.world().device("w0").mtu, 1450);
    // The room grows beyond what was before mptm; that is still known.
    fake.world().device("u0").mtu = 9000;
    apply_text(&fake, &other);
    assert_eq!(fake.world().device("w0").mtu, 1500);
    assert_eq!(live(&fake).state.settings[&key(None, "w0", "mtu")].before, 1500);
    fake.world().device("u0").mtu = 1500;
    apply_text(&fake, &other);
    assert_eq!(fake.world().device("w0").mtu, 1450);
    down(&fake);
    assert_eq!(fake.world().device("w0").mtu, 1500);
}

/// A workload sends no bigger packets than every tunnel has room for, not even while a plan is carried out.
#[test]
fn an_mtu_falls_before_the_tunnels_and_rises_after_them() {
    let fake = scene();
    apply_text(&fake, SMALL);
    let small = SMALL.replace("id = 43", "id = 43\nmtu = 1300");
    let without = |text: &str| text[..text.find("[tunnel.t1]").unwrap()].to_owned();
    for (text, rises) in
        [(&small, false), (&SMALL.to_owned(), true), (&small, false), (&without(&small), true)]
    {
        let steps = apply_text(&fake, text).steps;
        let places = |is_it: fn(&Step) -> bool| -> Vec<usize> {
            steps.iter().enumerate().filter(|(_, step)| is_it(step)).map(|(place, _)| place).collect()
        };
        let mtus = places(|step| matches!(step, Step::Setting(key, _) if key.setting == Setting::Mtu));
        let tunnels = places(|step| matches!(step, Step::Tunnel(..) | Step::Route(..)));
        assert_eq!(mtus.len(), 2, "{steps:?}");
        let (first, second) = if rises { (&tunnels, &mtus) } else { (&mtus, &tunnels) };
        assert!(first.last() < second.first(), "{text}: {steps:?}");
    }
    let steps = down(&fake).steps;
    let tunnel = steps.iter().rposition(|step| matches!(step, Step::Tunnel(..))).unwrap();
    let setting = steps.iter().position(|step| matches!(step, Step::Setting(..))).unwrap();
    assert!(tunnel < setting, "{steps:?}");
}

/// Between what mptm read and what it does.
#[test]
fn a_device_or_namespace_that_goes_while_it_is_taken_down() {
    let ways: [fn(&Fake); 3] = [
        |fake| fake.world().delete_device(0, 10),
        |fake| fake.world().namespaces[1].references.clear(),
        |fake| {
            let mut world = fake.world();
            world.namespaces[2].references = std::mem::take(&mut world.namespaces[1].references);
        },
    ];
    for vanish in ways {
        let fake = scene();
        apply_text(&fake, SMALL);
        let mut live = live(&fake);
        let plan = plan(&State::default(), &live.state);
        vanish(&fake);
        let (mut bpf, mut net) = (fake.clone(), fake.clone());
        apply(&plan, &mut bpf, &mut net, &mut live.ids).unwrap_or_else(|error| panic!("{}", error.source));
        assert!(fake.world().maps.is_none());
    }
}

#[test]
fn what_the_kernel_does_not_take_back() {
    let fake = scene();
    apply_text(&fake, SMALL);
    fake.world().device_in(1, "c0").features.get_mut("rx-gro").unwrap().changeable = false;
    let error = carry_out(&fake, &State::default()).unwrap_err().source;
    assert_eq!(error.to_string(), "cannot set rx-gro of c0 to off");
    assert_eq!(error.source.unwrap().raw_os_error(), Some(libc::EOPNOTSUPP));
    let hint = error.hint.unwrap();
    assert!(hint.starts_with("set it by hand to the value that it should have"), "{hint}");
    assert_eq!(fake.world().device("w0").mtu, 1450, "all is as it was");
    // By hand, whatever way that was.
    fake.world().device_in(1, "c0").features.get_mut("rx-gro").unwrap().active = false;
    down(&fake);
    assert!(fake.world().maps.is_none());
}

#[test]
fn both_ends_of_a_veth_in_the_file() {
    let fake = scene();
    fake.world().add_veth([(0, 30, "x"), (0, 31, "y")]);
    let text = SMALL.to_owned()
        + "[interface.x]\nrole = 'workload'\nsegment = 'a'\naddresses = ['10.1.0.1']\n\
           [interface.y]\nrole = 'workload'\nsegment = 'b'\naddresses = ['10.1.0.2']\n";
    let tunnel = |name: &str, mtu: u32| {
        format!(
            "[tunnel.{name}]\nprotocol = 'geneve'\nid = {mtu}\nsegment = '{name}'\nremote = '10.30.0.12'\n\
             inner = ['10.2.0.1']\nmtu = {mtu}\n"
        )
    };
    for (a, b) in [(1300, 1400), (1400, 1300)] {
        let state = desired(&fake, &(text.clone() + &tunnel("a", a) + &tunnel("b", b)));
        for end in ["x", "y"] {
            assert_eq!(state.settings[&key(None, end, "mtu")].value, 1300, "{end}");
        }
    }
}

#[test]
fn what_somebody_else_changes() {
    let fake = scene();
    apply_text(&fake, SMALL);
    // Before an apply, it is drift.
    fake.world().device("w0").mtu = 1400;
    assert_eq!(live(&fake).state.settings[&key(None, "w0", "mtu")].current, Some(1400));
    assert_eq!(apply_text(&fake, SMALL).steps.len(), 1);
    assert_eq!(fake.world().device("w0").mtu, 1450);
    // Before `down`, it is theirs; the rest is put back.
    fake.world().device("w0").mtu = 1400;
    down(&fake);
    assert_eq!(fake.world().device("w0").mtu, 1400);
    assert_eq!(fake.world().device_in(1, "c0").mtu, 1500);
}

#[test]
fn what_is_right_already_is_not_ours() {
    let fake = scene();
    fake.world().device("w0").mtu = 1400;
    fake.world().device_in(1, "c0").features.get_mut("rx-gro").unwrap().active = true;
    let settings = settings(&desired(&fake, SMALL));
    assert!(!settings.iter().any(|line| line.starts_with("w0") || line.contains("rx-gro")), "{settings:?}");
}

#[test]
fn a_device_under_another_name() {
    let fake = scene();
    let before = essence(&fake);
    apply_text(&fake, SMALL);
    fake.world().device("w0").name = "web".into();
    let state = live(&fake).state;
    assert!(state.settings.contains_key(&key(None, "web", "mtu")), "{:?}", state.settings.keys());
    let text = SMALL.replace("interface.w0", "interface.web");
    apply_text(&fake, &text);
    assert_eq!(fake.world().device("web").mtu, 1450, "it is the same device");
    assert!(apply_text(&fake, &text).is_empty());
    down(&fake);
    fake.world().device("web").name = "w0".into();
    assert_eq!(difference(&essence(&fake), &before), None);
}

#[test]
fn a_namespace_by_another_name() {
    let fake = scene();
    let before = essence(&fake);
    fake.world().namespaces[1].references.push(NetnsRef::Pid(77));
    let peer = |netns: &str| {
        let peer = format!("role = \"workload\"\npeer = {{ netns = '{netns}', name = 'c0' }}");
        SMALL.replace("role = \"workload\"", &peer)
    };
    apply_text(&fake, &peer("ns0"));
    apply_text(&fake, &peer("pid:77"));
    assert!(apply_text(&fake, &peer("pid:77")).is_empty());
    assert!(!fake.world().device_in(1, "c0").features["tx-checksum-ip-generic"].active, "as it must be");
    // The name that the records have goes away, and the namespace does not.
    fake.world().namespaces[1].references = vec![NetnsRef::Name("ns0".into())];
    apply_text(&fake, &peer("ns0"));
    assert!(apply_text(&fake, &peer("ns0")).is_empty());
    down(&fake);
    assert_eq!(difference(&essence(&fake), &before), None);
}

#[test]
fn a_device_made_anew() {
    let fake = scene();
    apply_text(&fake, SMALL);
    fake.world().delete_device(0, 10);
    assert!(live(&fake).state.settings.values().any(|saved| saved.current.is_none()));
    fake.world().add_veth([(0, 40, "w0"), (1, 3, "c0")]);
    fake.world().device("w0").mtu = 2000;
    let want = desired(&fake, SMALL);
    // Undoing gives the new device back what it had.
    let fork = fake.fork();
    let last = {
        let changes = fork.world().changes;
        apply_text(&fork, SMALL);
        fork.world().changes - changes - 1
    };
    let before = fake.world().device("w0").clone();
    let failing = fake.fork();
    let first = failing.world().changes;
    failing.world().fail_at = Some(first + last);
    carry_out(&failing, &want).unwrap_err();
    assert_eq!(*failing.world().device("w0"), before);

    apply_text(&fake, SMALL);
    assert_eq!(fake.world().device("w0").mtu, 1450);
    assert_eq!(fake.world().maps.as_ref().unwrap().entries(Map::Saved).len(), 5, "no record of the old one");
    down(&fake);
    assert_eq!(fake.world().device("w0").mtu, 2000);
    assert_eq!(fake.world().device_in(1, "c0").mtu, 1500);
    assert_eq!(fake.world().device("w0").mac, Some(MacAddr([2, 0, 0, 1, 0, 40])));
}

/// The process whose namespace it was has ended, or its name is another's now; something else holds the namespace.
#[test]
fn a_namespace_that_its_record_does_not_lead_to() {
    let fake = scene();
    let before = essence(&fake);
    let peer = |netns: &str| {
        let peer = format!("role = \"workload\"\npeer = {{ netns = '{netns}', name = 'c0' }}");
        SMALL.replace("role = \"workload\"", &peer)
    };
    let call = |fake: &Fake, namespace: usize, reference: NetnsRef| {
        fake.world().namespaces[namespace].references = vec![reference];
    };
    for other_takes_the_reference in [false, true] {
        let fake = fake.fork();
        call(&fake, 1, NetnsRef::Pid(77));
        apply_text(&fake, &peer("pid:77"));
        call(&fake, 1, NetnsRef::Pid(78));
        if other_takes_the_reference {
            call(&fake, 2, NetnsRef::Pid(77));
        }
        let key = SettingKey { netns: Some(NetnsRef::Pid(78)), ..key(None, "c0", "rx-gro") };
        assert_eq!(live(&fake).state.settings[&key].current, Some(1));
        let gone = fake.fork();
        let again = fake.fork();

        down(&fake);
        call(&fake, 1, NetnsRef::Name("ns0".into()));
        call(&fake, 2, NetnsRef::Name("ns1".into()));
        assert_eq!(difference(&essence(&fake), &before), None);

        // It is the same device as before, and mptm knows what it was before mptm.
        apply_text(&again, &peer("pid:78"));
        assert!(apply_text(&again, &peer("pid:78")).is_empty());
        down(&again);
        call(&again, 1, NetnsRef::Name("ns0".into()));
        call(&again, 2, NetnsRef::Name("ns1".into()));
        assert_eq!(difference(&essence(&again), &before), None);

        // Nothing leads to it any more: it is let go.
        gone.world().namespaces[1].references.clear();
        assert!(live(&gone).state.settings.values().any(|saved| saved.current.is_none()));
        down(&gone);
        assert!(gone.world().maps.is_none());
        assert_eq!(gone.world().device("w0").mtu, 1500);
    }
}
