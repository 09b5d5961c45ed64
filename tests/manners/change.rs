//! A changed file changes what it must, in place, and nothing else.

use crate::lab::{self, Lab, Node};
use crate::noop::add_devices;
use crate::snapshot::{Pinned, poke_meta};
use crate::traffic::{loss_while, reaches};

/// A second tunnel, with one key more.
fn second(key: &str) -> String {
    format!(
        "\n[tunnel.other]\nprotocol = \"vxlan\"\nremote = \"10.30.30.2\"\ninner = [\"10.252.0.0/16\", \"10.253.0.1\"]\n{key}\n"
    )
}

/// What `get` says of the way to an address behind the second tunnel.
fn way(node: &Node) -> String {
    node.mptm("get 10.250.1.1 10.252.0.9").done().stdout
}

#[test]
fn a_tunnel_is_changed_in_place() {
    lab::run("change: in place", |lab| {
        let node = &lab.a;
        let plain = node.plain_file();
        node.apply(&(plain.clone() + &second("id = 7")));
        let before = Pinned::look(&node.pin);
        let same_key = [
            ("mtu = 1300\nid = 7", "mtu 1450 -> 1300", "mtu         1300"),
            ("src_port = 5555\nid = 7", "src_port 49152-65535 -> 5555", "src_port    5555"),
            (
                "remote_mac = \"02:00:5e:00:00:09\"\nid = 7",
                "remote_mac 02:00:00:00:01:02 -> 02:00:5e:00:00:09",
                "02:00:5e:00:00:09",
            ),
            ("debug = true\nid = 7", "debug false -> true", "debug       true"),
            ("id = 8", "id 7 -> 8", "id          8"),
            ("dst_port = 8472\nid = 7", "dst_port 4789 -> 8472", "dst_port    8472"),
            (
                "remote = \"10.30.30.9\"\nremote_mac = \"02:00:5e:00:00:09\"\nid = 7",
                "remote 10.30.30.2 -> 10.30.30.9",
                "remote      10.30.30.9",
            ),
        ];
        for (key, step, shown) in same_key {
            let mut file = plain.clone() + &second(key);
            if key.starts_with("remote =") {
                file = file.replace("remote = \"10.30.30.2\"\ninner = [\"10.252", "inner = [\"10.252");
            }
            let outcome = node.apply(&file);
            assert!(
                outcome.stdout.contains("~ tunnel other: ") && outcome.stdout.contains(step),
                "{key}: {outcome:?}"
            );
            let unrelated = ["tunnel far", "program", "interface", "data-plane"];
            assert!(!unrelated.iter().any(|other| outcome.stdout.contains(other)), "{key}: {outcome:?}");
            assert!(way(node).contains(shown), "{key}: {}", way(node));
            node.mptm("apply").nothing_to_do();
            node.apply(&(plain.clone() + &second("id = 7")));
            let now = Pinned::look(&node.pin);
            now.must_have_the_objects_of(&before);
            // A tunnel has two places for its header, and all the rest is as it was.
            for map in before.contents.keys().filter(|map| !["tunnels", "active"].contains(&map.as_str())) {
                assert_eq!(now.contents[map], before.contents[map], "{key}: the map {map}");
            }
        }
    });
}

#[test]
fn a_tunnel_moves_to_another_segment() {
    lab::run("change: segment", |lab| {
        let node = &lab.a;
        let plain = node.plain_file();
        node.apply(&(plain.clone() + &second("id = 7")));
        let before = Pinned::look(&node.pin);
        node.apply(&(plain.clone() + &second("id = 7\nsegment = \"red\"")));
        Pinned::look(&node.pin).must_have_the_objects_of(&before);
        node.mptm("get 10.250.1.1 10.252.0.9").refused(&["no route"]);
        node.mptm("apply").nothing_to_do();
        node.apply(&(plain.clone() + &second("id = 7")));
        assert!(way(node).contains("tunnel    other"));
        let red = |node: &Node| node.mptm("status --json").done().stdout.contains("\"red\"");
        assert!(!red(node));
    });
}

/// What is not in the file any more goes, with all that was its own.
#[test]
fn a_table_that_is_deleted_is_an_object_deleted() {
    lab::run("change: deletion", |lab| {
        let node = &lab.a;
        let plain = node.plain_file();
        node.apply(&plain);
        let before = Pinned::look(&node.pin);
        node.apply(&(plain.clone() + &second("id = 7\ndst_port = 8472")));
        assert_ne!(Pinned::look(&node.pin), before);
        let outcome = node.apply(&plain);
        for step in [
            "- tunnel other",
            "- route default 10.252.0.0/16",
            "- route default 10.253.0.1",
            "- port udp/8472",
        ] {
            assert!(outcome.stdout.contains(step), "{outcome:?}");
        }
        let now = Pinned::look(&node.pin);
        now.must_have_the_objects_of(&before);
        for map in before.contents.keys().filter(|map| *map != "tunnels") {
            assert_eq!(now.contents[map], before.contents[map], "the map {map}");
        }
        assert!(!node.mptm("status").done().stdout.contains("other"));
    });
}

#[test]
fn a_tunnel_is_renamed() {
    lab::run("change: renamed", |lab| {
        let node = &lab.a;
        lab.b.apply(&lab.b.plain_file());
        node.apply(&node.plain_file());
        let before = Pinned::look(&node.pin);
        node.apply(&node.plain_file().replace("tunnel.far", "tunnel.near"));
        Pinned::look(&node.pin).must_have_the_objects_of(&before);
        let dump = node.mptm("dump").done().stdout;
        assert!(dump.contains("[tunnel.near]") && !dump.contains("tunnel.far"), "{dump}");
        node.mptm("apply").nothing_to_do();
        assert!(reaches(lab));
    });
}

#[test]
fn another_mode_attaches_again() {
    lab::run("change: mode", |lab| {
        let node = &lab.a;
        lab.b.apply(&lab.b.plain_file());
        node.apply(&node.plain_file());
        let xdp = || node.shell("ip -o link show w");
        let before = Pinned::look(&node.pin);
        assert!(xdp().contains(" xdp/id:") || xdp().contains(" xdp "), "{}", xdp());
        let generic = node.plain_file().replace("\"workload\"", "\"workload\"\nmode = \"generic\"");
        let outcome = node.apply(&generic);
        assert!(outcome.stdout.contains("~ program w: mode native -> generic\n"), "{outcome:?}");
        assert!(xdp().contains("xdpgeneric"), "{}", xdp());
        let after = Pinned::look(&node.pin);
        assert_ne!(after.links["w"], before.links["w"]);
        assert_eq!(after.links["u"], before.links["u"]);
        assert_eq!(after.programs, before.programs);
        node.mptm("apply").nothing_to_do();
        assert!(reaches(lab));
        node.apply(&node.plain_file());
        assert!(!xdp().contains("xdpgeneric"), "{}", xdp());
        assert!(reaches(lab));
    });
}

#[test]
fn interfaces_come_and_go() {
    lab::run("change: interfaces", |lab| {
        add_devices(lab);
        let node = &lab.a;
        node.apply(&node.plain_file());
        let before = Pinned::look(&node.pin);
        let look = || node.shell("ip -d -o link show w2; ethtool -k w2; ethtool -k u");
        let device = look();
        let more = "\n[interface.w2]\nrole = \"workload\"\naddresses = [\"10.249.0.1\"]\n\
                    [interface.p2]\nrole = \"pass\"\n[interface.p1]\nrole = \"redirect\"\nto = \"p2\"\n";
        let outcome = node.apply(&(node.plain_file() + more));
        for step in ["+ program w2", "+ program p1", "+ program p2", "+ route default 10.249.0.1"] {
            assert!(outcome.stdout.contains(step), "{outcome:?}");
        }
        let after = Pinned::look(&node.pin);
        assert_eq!(after.links.len(), 5);
        assert_eq!((after.links["w"], after.links["u"]), (before.links["w"], before.links["u"]));
        assert_ne!(look(), device);
        assert!(node.mptm("get 10.250.1.1 10.249.0.1").done().stdout.contains("w2, on this node"));
        node.apply(&node.plain_file());
        Pinned::look(&node.pin).must_be(&before);
        assert_eq!(look(), device);
    });
}

/// The tunnel of a steady stream is none of a neighbour's business.
#[test]
fn other_tunnels_lose_nothing() {
    lab::run("change: no loss", |lab: &Lab| {
        let node = &lab.a;
        for node in [&lab.a, &lab.b] {
            node.apply(&node.plain_file());
        }
        let plain = node.plain_file();
        let (sent, lost) = loss_while(lab, || {
            for round in 0..20 {
                node.apply(&(plain.clone() + &second(&format!("id = {}", 100 + round))));
                node.apply(&(plain.clone() + &second(&format!("id = {}\nsrc_port = 5555", 200 + round))));
                node.apply(&(plain.clone() + &second("id = 300\nsegment = \"red\"")));
                node.apply(&plain);
            }
        });
        assert!(sent > 1000, "only {sent} were sent");
        assert_eq!(lost, 0, "of {sent}");
    });
}

/// Nor does it lose anything when its own header changes, as long as the far end understands both.
#[test]
fn a_changed_tunnel_loses_nothing() {
    lab::run("change: no loss in the tunnel itself", |lab: &Lab| {
        let node = &lab.a;
        for node in [&lab.a, &lab.b] {
            node.apply(&node.plain_file());
        }
        let plain = node.plain_file();
        let (sent, lost) = loss_while(lab, || {
            for round in 0..20 {
                node.apply(&(plain.clone() + &format!("src_port = {}\n", 50000 + round)));
                node.apply(&(plain.clone() + &format!("mtu = {}\n", 1400 - round)));
            }
        });
        assert!(sent > 1000, "only {sent} were sent");
        assert_eq!(lost, 0, "of {sent}");
    });
}

/// The programs of another build are replaced where they run, with the maps that are there.
#[test]
fn another_build_takes_over() {
    lab::run("change: another build", |lab: &Lab| {
        let node = &lab.a;
        for node in [&lab.a, &lab.b] {
            node.apply(&node.plain_file());
        }
        let mut before = Pinned::look(&node.pin);
        let offset = std::mem::offset_of!(mptm::kernel::abi::Meta, build);
        let (sent, lost) = loss_while(lab, || {
            for _ in 0..20 {
                let own = before.contents["meta"].values().next().unwrap()[offset];
                poke_meta(&node.pin, offset, !own);
                let outcome = node.mptm("apply").done();
                assert!(outcome.stdout.starts_with("~ data-plane: build "), "{outcome:?}");
                assert_eq!(outcome.stdout.lines().count(), 1, "{outcome:?}");
                let after = Pinned::look(&node.pin);
                assert_eq!(after.maps, before.maps);
                for (name, (link, program)) in &after.links {
                    assert_eq!(*link, before.links[name].0, "{name} was attached again");
                    assert_ne!(*program, before.links[name].1, "{name} runs the old program");
                    assert!(after.programs.values().any(|pinned| pinned == program), "{name}");
                }
                assert_eq!(after.contents, before.contents);
                before = after;
            }
        });
        assert!(sent > 500, "only {sent} were sent");
        assert_eq!(lost, 0, "of {sent}");
        node.mptm("apply").nothing_to_do();
    });
}
