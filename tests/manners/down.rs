//! `down` leaves the machine as it was before mptm came.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::lab::{self, Lab, Outcome, batch, ip, shell_in, soon};
use crate::noop::{add_devices, everything};
use crate::snapshot::{Machine, Pinned};

/// Takes everything down, and checks that nothing of it is left.
fn down(lab: &Lab) {
    let pinned = Pinned::look(&lab.a.pin);
    let outcome = lab.a.mptm("down").done();
    assert!(outcome.stdout.ends_with("\n"), "{outcome:?}");
    assert_eq!(lab.pins(), Vec::<String>::new());
    pinned.must_be_gone();
}

#[test]
fn all_is_as_before() {
    lab::run("down: all is as before", |lab| {
        add_devices(lab);
        let node = &lab.a;
        // It asks for forwarding, for all devices and so for each.
        node.shell("echo 1 > /proc/sys/net/ipv4/conf/w2/rp_filter");
        let before = Machine::look(lab);
        node.mptm("down").nothing_to_do();
        node.write(&everything(lab));
        assert_eq!(node.mptm("apply").code, Some(0));
        Machine::look(lab).must_differ_from(&before);

        let up = Machine::look(lab);
        let dry = node.mptm("down --dry-run").done();
        assert!(dry.stdout.contains("- program w") && dry.stderr.contains("Would do:"), "{dry:?}");
        Machine::look(lab).must_be(&up);

        down(lab);
        Machine::look(lab).must_be(&before);
        node.mptm("down").nothing_to_do();
        node.mptm("down --dry-run").nothing_to_do();
        Machine::look(lab).must_be(&before);
    });
}

/// Without a file, and with one that is wrong: down needs none.
#[test]
fn without_a_file() {
    lab::run("down: without a file", |lab| {
        let node = &lab.a;
        let before = Machine::look(lab);
        node.apply(&node.plain_file());
        fs::remove_file(&node.file).unwrap();
        down(lab);
        Machine::look(lab).must_be(&before);

        node.apply(&node.plain_file());
        node.write("[tunnel");
        down(lab);
        Machine::look(lab).must_be(&before);
    });
}

/// A file that asks for nothing is a node without a data plane.
#[test]
fn an_empty_file() {
    lab::run("down: an empty file", |lab| {
        let node = &lab.a;
        let before = Machine::look(lab);
        node.write("");
        node.mptm("apply").nothing_to_do();
        node.apply(&node.plain_file());
        let pinned = Pinned::look(&node.pin);
        node.write("# nothing\n");
        let outcome = node.mptm("apply");
        assert!(outcome.code == Some(0) && outcome.stderr.contains("all that mptm made goes"), "{outcome:?}");
        pinned.must_be_gone();
        Machine::look(lab).must_be(&before);
    });
}

#[test]
fn the_container_is_gone() {
    lab::run("down: the container is gone", |lab| {
        let node = &lab.a;
        let left = [node.netns.clone(), lab.b.netns.clone(), lab.b.container.clone()];
        let before = Machine::look_at(lab, &left).without(&node.netns, "w");
        node.apply(&node.plain_file());
        ip(&format!("netns del {}", node.container));
        assert!(soon(|| !node.shell("ip -o link").contains(" w@")));
        down(lab);
        Machine::look_at(lab, &left).must_be(&before);
    });
}

#[test]
fn the_underlay_is_another() {
    lab::run("down: the underlay is another", |lab| {
        let (node, far) = (&lab.a, &lab.b.netns);
        let look = |lab| Machine::look(lab).without(&node.netns, "u").without(far, "u");
        let before = look(lab);
        node.apply(&node.plain_file());
        node.ip("link del u");
        batch(None, &format!("link add u netns {} type veth peer name u netns {far}", node.netns));
        node.ip("link set u up mtu 1400");
        let new = Machine::look(lab).only(&node.netns, "u");
        down(lab);
        look(lab).must_be(&before);
        Machine::look(lab).only(&node.netns, "u").must_be(&new);
    });
}

/// A device of the same name and with the settings that mptm gave to the old one.
#[test]
fn the_workload_is_another() {
    lab::run("down: the workload is another", |lab| {
        let node = &lab.a;
        let look = |lab| Machine::look(lab).without(&node.netns, "w").without(&node.container, "eth0");
        let before = look(lab);
        node.apply(&node.plain_file());
        let mtu = node.shell("cat /proc/sys/net/ipv4/conf/w/forwarding; ip -o link show w");
        assert!(mtu.contains("mtu 1450"), "{mtu}");
        node.ip("link del w");
        batch(
            None,
            &format!(
                "link add w mtu 1450 netns {} type veth peer name eth0 mtu 1450 netns {}",
                node.netns, node.container
            ),
        );
        node.ip("link set w up");
        shell_in(
            &node.container,
            "ip link set eth0 up; ethtool -K eth0 tx off txvlan off tx-vlan-stag-hw-insert off gro on >/dev/null",
        );
        let new = Machine::look(lab);
        down(lab);
        look(lab).must_be(&before);
        for (netns, device) in [(&node.netns, "w"), (&node.container, "eth0")] {
            Machine::look(lab).only(netns, device).must_be(&new.clone().only(netns, device));
        }
    });
}

#[test]
fn what_others_have_changed_is_theirs() {
    lab::run("down: what others have changed", |lab| {
        let node = &lab.a;
        let mtus = || {
            let mtu = |netns: &str, device: &str| {
                let line = shell_in(netns, &format!("ip -o link show {device}"));
                line.split(" mtu ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
            };
            (mtu(&node.netns, "w"), mtu(&node.container, "eth0"))
        };
        let before = Machine::look(lab).without(&node.netns, "w");
        node.apply(&node.plain_file());
        assert_eq!(mtus(), ("1450".into(), "1450".into()));
        node.ip("link set w mtu 1300");
        down(lab);
        assert_eq!(mtus(), ("1300".into(), "1500".into()));
        Machine::look(lab).without(&node.netns, "w").must_be(&before);
    });
}

/// Settings that were right before are not mptm's to put back.
#[test]
fn what_was_right_stays() {
    lab::run("down: what was right", |lab| {
        let node = &lab.a;
        shell_in(
            &node.container,
            "ip link set eth0 mtu 1200; ethtool -K eth0 tx off txvlan off tx-vlan-stag-hw-insert off gro on >/dev/null",
        );
        node.ip("link set w mtu 1200");
        let before = Machine::look(lab);
        let applied = node.apply(&node.plain_file());
        assert!(!applied.stdout.contains("setting"), "{applied:?}");
        down(lab);
        Machine::look(lab).must_be(&before);
    });
}

#[test]
fn another_pin_directory_is_anothers() {
    lab::run("down: another pin directory", |lab| {
        let pin = format!("{}-new", lab.a.pin.display());
        let other = |arguments: &str| {
            let mut command = lab.b.command(arguments);
            Outcome::of(command.arg("--pin").arg(&pin))
        };
        lab.b.write(&lab.b.plain_file());
        other("apply").done();
        lab.a.mptm("down").nothing_to_do();
        lab.a.apply(&lab.a.plain_file());
        lab.a.mptm("down").done();
        other("apply").nothing_to_do();
        other("down").done();
    });
}

/// The record names a process by its id; it ends, and the container lives on by another.
#[test]
fn the_process_that_named_the_container_has_ended() {
    lab::run("down: the process that named the container has ended", |lab| {
        let (node, before) = (&lab.a, Machine::look(lab));
        let container = format!("--net=/run/netns/{}", node.container);
        let hold = || Command::new("nsenter").args([&container, "sleep", "60"]).spawn().unwrap();
        let (mut first, mut second) = (hold(), hold());
        let is_inside = |pid| {
            let netns = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/net")).map(|file| file.ino()).ok();
            soon(|| netns(&format!("{pid}")) != netns("self"))
        };
        assert!(is_inside(first.id()) && is_inside(second.id()));
        ip(&format!("netns del {}", node.container));
        let offloads = |pid: u32| {
            let script = format!("nsenter --net=/proc/{pid}/ns/net ethtool -k eth0; ip -o link show w");
            node.shell(&script)
        };
        let as_it_was = offloads(first.id());
        let peer =
            format!("role = \"workload\"\npeer = {{ netns = \"pid:{}\", name = \"eth0\" }}", first.id());
        node.apply(&node.plain_file().replace("role = \"workload\"", &peer));
        let pid = second.id();
        assert_ne!(offloads(pid), as_it_was);

        first.kill().unwrap();
        first.wait().unwrap();
        down(lab);
        let now = offloads(pid);
        ip(&format!("netns attach {} {pid}", node.container));
        second.kill().unwrap();
        second.wait().unwrap();
        assert_eq!(now, as_it_was);
        Machine::look(lab).must_be(&before);
    });
}
