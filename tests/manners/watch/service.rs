//! Signals, systemd's protocol, and logs.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::Watch;
use crate::lab;
use crate::traffic::reaches;

#[test]
fn signals() {
    lab::run("watch: signals", |lab| {
        lab.b.apply(&lab.b.plain_file());
        let node = &lab.a;
        node.write(&node.plain_file());
        let watch = Watch::start(lab, "--interval 3600");
        let link = node.pin.join("links/w");
        let output = Command::new("bpftool").args(["link", "detach", "pinned"]).arg(link).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        watch.signal(Signal::SIGHUP);
        watch.says("drift: ~ program w");
        watch.stop();
        assert!(reaches(lab));
    });
}

/// The next message to the service manager.
fn message(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("a message");
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn a_service_manager_is_told() {
    lab::run("watch: a service manager is told", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        let path = lab.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let watch = Watch::start_with(lab, "--interval 3600", |command| {
            command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000").env_remove("WATCHDOG_PID");
        });
        assert_eq!(message(&socket), "READY=1\nSTATUS=2 interfaces, 1 tunnel\n");
        let next = || loop {
            let message = message(&socket);
            if message != "WATCHDOG=1\n" {
                return message;
            }
        };
        watch.signal(Signal::SIGHUP);
        let reloading = next();
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert!(next().starts_with("READY=1\n"));
        assert_eq!(message(&socket), "WATCHDOG=1\n");
        assert_eq!(message(&socket), "WATCHDOG=1\n");
        node.write("[");
        let status = next();
        assert!(status.contains("is wrong, what was right before stays"), "{status}");
        watch.stop();
        assert_eq!(next(), "STOPPING=1\n");
    });
}

#[test]
fn logs() {
    lab::run("watch: logs", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        let watch = Watch::start(lab, "--interval 3600 --log-format json");
        node.write("x");
        watch.says("\"level\":\"error\"");
        watch.says("stays in force");
        let log = watch.stop();
        let mut topics = Vec::new();
        for line in log.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect(line);
            assert!(line["time"].is_f64() && !line["message"].as_str().unwrap().contains('\u{1b}'), "{line}");
            topics.push(line["topic"].as_str().unwrap().to_owned());
        }
        topics.dedup();
        assert_eq!(topics, ["start", "file", "stop"]);
        drop(log);

        // What journald would get. Its stream is the file that standard error is.
        node.write(&node.plain_file());
        let watch = Watch::start_with(lab, "--interval 3600", |command| {
            use std::os::unix::fs::MetadataExt;
            let log = std::fs::metadata(lab.path("watch.log")).unwrap();
            command.env("JOURNAL_STREAM", format!("{}:{}", log.dev(), log.ino()));
        });
        node.write("x");
        watch.says("<4>warning: file: it is wrong");
        let log = watch.stop();
        assert!(log.starts_with("<6>start: watching "), "{log}");
        assert!(log.contains("\n<3>error: ") && log.contains("\n<3>  |"), "{log}");
    });
}
