//! The units of examples/systemd under a real systemd, which is booted for it in namespaces.

mod machine;

use std::thread;
use std::time::Duration;

use machine::Machine;

/// The machine's network: the underlay is `u`, with a silent far end, and the workload `w`, with its end in a container.
const NETWORK: &str = "[Unit]\nDefaultDependencies=no\nBefore=network.target\nAfter=local-fs.target\n[Service]\n\
    Type=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -ec '\
    ip link add u type veth peer name far; ip link set far up; ip addr add 10.30.30.1/24 dev u; ip link set u up; \
    ip neigh replace 10.30.30.2 lladdr 02:00:00:00:01:02 dev u nud permanent; exec /make-container'\n";

const CONTAINER: &str = "#!/bin/sh -e\nip netns add c\nip link add w type veth peer name eth0 netns c\nip link set w up\n\
    ip -n c addr add 10.250.1.1/24 dev eth0\nip -n c link set eth0 up\n";

fn file(id: u32) -> String {
    format!(
        "[interface.u]\nrole = \"underlay\"\n[interface.w]\nrole = \"workload\"\naddresses = [\"10.250.1.1\"]\n\
         [tunnel.t]\nprotocol = \"geneve\"\nid = {id}\nremote = \"10.30.30.2\"\ninner = [\"10.250.1.2\"]\n"
    )
}

/// So that there is a time at which the network is called online.
const ONLINE: &str = "[Unit]\nAfter=network-online.target\nWants=network-online.target network.target\n[Service]\n\
    Type=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n";

fn boot(test: &str, enabled: &[&str]) -> Option<Machine> {
    let first = file(1);
    let files = [
        ("etc/systemd/system/lab-network.service", NETWORK),
        ("etc/systemd/system/online.service", ONLINE),
        ("make-container", CONTAINER),
        ("etc/mptm.toml", &first),
    ];
    let mut wants = vec![("network.target", "lab-network.service"), ("multi-user.target", "online.service")];
    wants.extend(enabled.iter().map(|unit| ("multi-user.target", *unit)));
    Machine::boot(test, &files, &wants)
}

/// The id of the tunnel that is in force; 0: there is none.
fn id(machine: &Machine) -> u32 {
    let dump = machine.run("mptm dump").0;
    let line = dump.lines().find_map(|line| line.strip_prefix("id")).unwrap_or("= 0");
    line.trim_start_matches([' ', '=']).parse().unwrap()
}

fn has_id(machine: &mut Machine, wanted: u32) -> Duration {
    machine.until(&format!("the tunnel's id is not {wanted}"), |machine| id(machine) == wanted)
}

#[test]
fn units_are_right() {
    let Some(machine) = boot("units_are_right", &[]) else { return };
    let units = "mptm.service mptm.path mptm-drop-ins.path mptm-edit.service mptm-watch.service";
    let said = machine.must(&format!("cd /etc/systemd/system && systemd-analyze verify {units} 2>&1"));
    assert_eq!(said, "", "systemd-analyze verify");
    let exposure = machine.must("systemd-analyze security --no-pager mptm-watch.service | tail -n 1");
    println!("{exposure}");
}

#[test]
fn apply_at_boot_and_after_edits() {
    let Some(mut machine) = boot("apply_at_boot_and_after_edits", &["mptm.service", "mptm.path"]) else {
        return;
    };
    assert_eq!(machine.property("mptm.service", "ActiveState"), "active", "{}", machine.journal());
    assert_eq!(id(&machine), 1);
    let time = |unit: &str, what: &str| machine.property(unit, what).parse::<u64>().unwrap();
    let applied = time("mptm.service", "ExecMainExitTimestampMonotonic");
    let online = time("network-online.target", "ActiveEnterTimestampMonotonic");
    assert!(applied > 0 && applied < online, "applied at {applied}, online at {online}");

    machine.write("/etc/mptm.toml", &file(2));
    let took = has_id(&mut machine, 2);
    println!("edit to apply by mptm.path: {took:?}");

    for number in 1..=50 {
        machine.write("/etc/mptm.toml", &file(100 + number));
        thread::sleep(Duration::from_millis(u64::from(number % 10) * 4));
    }
    let took = has_id(&mut machine, 150);
    println!("the last of 50 edits, after {took:?}");

    // An edit while an apply is at work. Many tunnels, so that there is a while.
    let mut large = file(3);
    for number in 0..4000 {
        let (high, low) = (number / 256, number % 256);
        large += &format!(
            "[tunnel.t{number}]\nprotocol = \"geneve\"\nid = {}\nremote = \"10.30.30.2\"\ninner = [\"10.251.{high}.{low}\"]\n",
            1000 + number
        );
    }
    let idle = |machine: &mut Machine| machine.property("mptm-edit.service", "ActiveState") == "inactive";
    machine.until("mptm-edit.service does not end", idle);
    machine.write("/etc/mptm.toml", &large);
    machine.until("no apply begins", |machine| {
        machine.property("mptm-edit.service", "ActiveState") == "activating"
    });
    machine.write("/etc/mptm.toml", &file(4));
    assert_eq!(machine.property("mptm-edit.service", "ActiveState"), "activating", "the apply was too fast");
    has_id(&mut machine, 4);
    machine.until("the many tunnels stay", |machine| !machine.run("mptm dump").0.contains("[tunnel.t1]"));

    // Drop-ins, whose directory was not there.
    machine.until("mptm-edit.service does not end", idle);
    machine.must("mkdir /etc/mptm.d");
    for name in ["a", "b"] {
        machine.until("mptm-edit.service does not end", idle);
        let id = if name == "a" { 90 } else { 91 };
        let tunnel = format!(
            "[tunnel.{name}]\nprotocol = \"geneve\"\nid = {id}\nremote = \"10.30.30.2\"\ninner = [\"10.252.0.{id}\"]\n"
        );
        machine.write(&format!("/etc/mptm.d/{name}.toml"), &tunnel);
        machine
            .until("no drop-in", |machine| machine.run("mptm dump").0.contains(&format!("[tunnel.{name}]")));
    }
    machine.must("rm -r /etc/mptm.d");
    machine.until("a drop-in stays", |machine| !machine.run("mptm dump").0.contains("[tunnel.a]"));

    machine.until("mptm-edit.service does not end", idle);
    machine.write("/etc/mptm.toml", &file(1 << 24));
    machine.until("a wrong edit does not fail", |machine| {
        machine.property("mptm-edit.service", "ActiveState") == "failed"
    });
    assert_eq!(id(&machine), 4, "the tunnels are up");
    assert_eq!(machine.property("mptm.service", "ActiveState"), "active");
    assert!(machine.journal().contains("^^^^^^^^ allowed: 0 to 16777215"), "{}", machine.journal());
    machine.write("/etc/mptm.toml", &file(5));
    has_id(&mut machine, 5);
    machine.must("systemctl reload mptm.service && systemctl stop mptm.service mptm.path");
    assert_eq!(id(&machine), 5);
}

#[test]
fn watch_as_a_service() {
    let Some(mut machine) = boot("watch_as_a_service", &["mptm-watch.service"]) else { return };
    machine.must("mkdir /etc/mptm.d");
    let state = |machine: &Machine| machine.property("mptm-watch.service", "ActiveState");
    assert_eq!(state(&machine), "active", "{}", machine.journal());
    assert_eq!(id(&machine), 1);
    assert_eq!(machine.property("mptm-watch.service", "StatusText"), "2 interfaces, 1 tunnel");
    machine.write("/etc/mptm.toml", &file(2));
    println!("edit to apply by mptm-watch.service: {:?}", has_id(&mut machine, 2));
    for number in 1..=50 {
        machine.write("/etc/mptm.toml", &file(100 + number));
        thread::sleep(Duration::from_millis(u64::from(number % 10) * 4));
    }
    println!("the last of 50 edits, after {:?}", has_id(&mut machine, 150));

    // Reloading is done when it returns.
    machine.must("systemctl reload mptm-watch.service");
    assert_eq!(state(&machine), "active");

    // The container is made again: nothing of the service keeps the old one alive.
    machine.must(
        "ip netns del c && until ! ip link show w >/dev/null 2>&1; do sleep 0.01; done && /make-container",
    );
    let is_applied = |machine: &mut Machine| machine.run("mptm apply --dry-run --detailed-exitcode").1;
    let took = machine.until("the container that was made again is not served", is_applied);
    println!("made again, and served after {took:?}");

    // A container whose namespace has no name: found by its process, with the rights that the unit has.
    machine.must("systemd-run --quiet --unit=nameless -p PrivateNetwork=yes sleep infinity");
    machine.must(
        // At first the process is still in the namespace of whoever started it.
        "pid=$(systemctl show -P MainPID nameless) && while [ $(readlink /proc/$pid/ns/net) = $(readlink \
         /proc/self/ns/net) ]; do sleep 0.01; done && ip link add v type veth peer name e netns $pid && ip link set v up && nsenter -t $pid -n sh -c 'ip addr add 10.250.1.9/24 dev e; ip link set e up'",
    );
    machine.write("/etc/mptm.d/v.toml", "[interface.\"v*\"]\nrole = \"workload\"\naddresses = \"peer\"\n");
    machine.until("the nameless container is not served", |machine| {
        machine.run("mptm get 10.250.1.9 10.250.1.2").1
    });
    machine.must("systemctl stop nameless");
    machine.until("its device stays", |machine| !machine.run("ip link show v").1);

    machine.write("/etc/mptm.toml", &file(1 << 24));
    machine.until("systemd is not told", |machine| {
        machine.property("mptm-watch.service", "StatusText").contains("/etc/mptm.toml is wrong")
    });
    assert_eq!((state(&machine), id(&machine)), ("active".into(), 150));
    let errors = machine.must("journalctl --no-pager -o cat -u mptm-watch.service -p err");
    assert!(
        errors.starts_with("error: VNI does not fit in 24 bits\n") && errors.contains("^^^^^^^^"),
        "{errors}"
    );
    let changes = machine.must("journalctl --no-pager -o cat -u mptm-watch.service -p info..info");
    assert!(changes.contains("file: ~ tunnel t: id "), "{changes}");
    machine.write("/etc/mptm.toml", &file(6));
    has_id(&mut machine, 6);

    // Whoever hangs is started again; tunnels don't mind.
    machine.must(
        "mkdir -p /run/systemd/system/mptm-watch.service.d && \
         printf '[Service]\\nWatchdogSec=1s\\nRestartSec=100ms\\nWatchdogSignal=SIGKILL\\n' \
         >/run/systemd/system/mptm-watch.service.d/fast.conf && systemctl daemon-reload && \
         systemctl restart mptm-watch.service",
    );
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(machine.property("mptm-watch.service", "NRestarts"), "0", "{}", machine.journal());
    machine.must("kill -STOP $(systemctl show -P MainPID mptm-watch.service)");
    machine.until("the watchdog does not bite", |machine| {
        machine.property("mptm-watch.service", "NRestarts") == "1" && state(machine) == "active"
    });
    machine.must("systemctl stop mptm-watch.service");
    assert_eq!(machine.property("mptm-watch.service", "Result"), "success");
    assert_eq!(id(&machine), 6, "the tunnels stay");
}
