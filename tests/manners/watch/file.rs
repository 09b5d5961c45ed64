//! The file and its drop-ins change.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::{Watch, has_tunnel, tunnel};
use crate::lab;
use crate::traffic::{loss_while, reaches};

#[test]
fn edits_of_all_kinds() {
    lab::run("watch: edits of all kinds", |lab| {
        lab.b.apply(&lab.b.plain_file());
        let node = &lab.a;
        let plain = node.plain_file();
        node.write(&plain);
        let watch = Watch::start(lab, "--interval 3600");
        assert!(reaches(lab));

        let (sent, lost) = loss_while(lab, || {
            // In place, as `tee` does it.
            node.write(&(plain.clone() + &tunnel("in-place", 1)));
            has_tunnel(node, "in-place", true);
            // A new file over the old one, as editors do it.
            let new = lab.path("new");
            fs::write(&new, plain.clone() + &tunnel("renamed", 2)).unwrap();
            fs::rename(&new, &node.file).unwrap();
            has_tunnel(node, "renamed", true);
            has_tunnel(node, "in-place", false);
            // The old one goes out of the way first, as vim does it.
            fs::rename(&node.file, lab.path("a.toml~")).unwrap();
            fs::write(&node.file, plain.clone() + &tunnel("vim", 3)).unwrap();
            has_tunnel(node, "vim", true);
            // A directory of drop-ins that was not there, and what is in it.
            let drop_ins = node.file.with_extension("d");
            fs::create_dir(&drop_ins).unwrap();
            fs::write(drop_ins.join("1.toml"), tunnel("dropped-in", 4)).unwrap();
            has_tunnel(node, "dropped-in", true);
            fs::write(drop_ins.join("2.toml"), tunnel("another", 5)).unwrap();
            has_tunnel(node, "another", true);
            fs::remove_dir_all(&drop_ins).unwrap();
            has_tunnel(node, "another", false);
        });
        assert_eq!(lost, 0, "of {sent}");
        let log = watch.stop();
        assert!(log.contains("file: + tunnel renamed: protocol geneve, id 2, "), "{log}");
        assert!(!log.contains("drift:") && !log.contains("error"), "{log}");
        assert!(log.ends_with("stop: no longer watching; what is there goes on forwarding\n"), "{log}");
        assert!(reaches(lab));
    });
}

#[test]
fn a_config_map() {
    lab::run("watch: a ConfigMap", |lab| {
        let node = &lab.a;
        let map = lab.path("map");
        let version = |name: &str, text: &str| {
            fs::create_dir_all(map.join(name)).unwrap();
            fs::write(map.join(name).join("mptm.toml"), text).unwrap();
        };
        version("..1", &node.plain_file());
        symlink("..1", map.join("..data")).unwrap();
        symlink("..data/mptm.toml", map.join("mptm.toml")).unwrap();
        symlink(map.join("mptm.toml"), &node.file).unwrap();
        let _watch = Watch::start(lab, "--interval 3600");
        for number in 2..5 {
            let (old, new, name) = (number - 1, format!("..{number}"), format!("t{number}"));
            version(&new, &(node.plain_file() + &tunnel(&name, number)));
            symlink(&new, map.join("..data_tmp")).unwrap();
            fs::rename(map.join("..data_tmp"), map.join("..data")).unwrap();
            fs::remove_dir_all(map.join(format!("..{old}"))).unwrap();
            has_tunnel(node, &name, true);
        }
    });
}

#[test]
fn the_last_of_many_edits_counts() {
    lab::run("watch: the last of many edits counts", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        let watch = Watch::start(lab, "--interval 3600");
        for number in 1..=50 {
            let new = lab.path("new");
            fs::write(&new, node.plain_file() + &tunnel("edited", number)).unwrap();
            fs::rename(&new, &node.file).unwrap();
            // Some fall into a pass, some come before it.
            thread::sleep(Duration::from_millis(u64::from(number % 7) * 3));
        }
        let leads = |number: u32| node.mptm(&format!("get 10.250.1.1 10.251.0.{number}")).code == Some(0);
        assert!(lab::soon(|| leads(50)), "{}", watch.log());
        watch.settle();
        assert!(!leads(49));
    });
}

#[test]
fn a_wrong_file() {
    lab::run("watch: a wrong file", |lab| {
        lab.b.apply(&lab.b.plain_file());
        let node = &lab.a;
        node.write(&node.plain_file());
        let watch = Watch::start(lab, "--interval 1");
        let errors = || watch.log().matches("error").count();

        node.write(&node.plain_file().replace("id = 42", "id = 16777216"));
        watch.says("error: VNI does not fit in 24 bits");
        watch.says("^^^^^^^^ allowed: 0 to 16777215");
        watch.says("what was right before stays in force");
        assert!(reaches(lab));
        let status = node.mptm("status").stdout;
        assert!(status.contains("drift: unknown: ") && status.contains(" has 1 error: see"), "{status}");
        // Full passes come and go, and all has been said.
        thread::sleep(Duration::from_millis(2500));
        assert_eq!(errors(), 1, "{}", watch.log());
        // What somebody else changes is mended all the same.
        lab::shell_in(&node.container, "ip link set eth0 mtu 1500");
        watch.says("drift: ~ setting");

        for (text, words) in [("", "names no interface and no tunnel"), ("[", "error: ")] {
            let before = errors();
            node.write(text);
            watch.says(words);
            assert!(lab::soon(|| errors() > before), "{}", watch.log());
            assert!(reaches(lab));
        }
        fs::remove_file(&node.file).unwrap();
        watch.says("cannot read ");
        assert!(reaches(lab));
        node.write(&(node.plain_file() + &tunnel("right", 7)));
        watch.says("is right again");
        has_tunnel(node, "right", true);
    });
}

#[test]
fn a_file_that_is_wrong_from_the_start() {
    lab::run("watch: a file that is wrong from the start", |lab| {
        lab.a.write("[tunnel.t]\nprotocol = 'tube'\n");
        let outcome = lab.a.mptm("watch");
        assert_eq!(outcome.code, Some(1));
        assert!(outcome.stderr.contains("a.toml:2:12"), "{}", outcome.stderr);
        let mut from_stdin = Command::new(lab::MPTM);
        from_stdin.args(["-n", &lab.a.netns, "-c", "-", "watch"]);
        lab::Outcome::of(&mut from_stdin).refused(&["watch follows a file, and standard input is none"]);
    });
}
