//! An apply that has nothing to do does nothing.

use std::process::Command;

use crate::lab::{self, Lab, MPTM, Node, Outcome, batch};
use crate::snapshot::{Machine, Pinned};

/// Devices for every role, at node a.
pub fn add_devices(lab: &Lab) {
    let (node, container, far) = (&lab.a.netns, &lab.a.container, &lab.b.netns);
    let pairs = [
        ("u2", "u2", far),
        ("w2", "eth1", container),
        ("w3", "eth2", container),
        ("p1", "q1", container),
        ("p2", "q2", container),
        ("p3", "q3", container),
    ];
    let add = pairs.map(|(here, there, netns)| {
        format!("link add {here} netns {node} type veth peer name {there} netns {netns}")
    });
    batch(None, &add.join("\n"));
    batch(Some(node), &pairs.map(|(here, ..)| format!("link set {here} up")).join("\n"));
    batch(
        Some(container),
        "addr add 10.249.0.1/24 dev eth1\nlink set eth1 up\nlink set eth2 up\nlink set q1 up\nlink set q2 up\nlink set q3 up",
    );
}

/// A file with every feature there is.
pub fn everything(lab: &Lab) -> String {
    format!(
        r#"
[defaults]
protocol = "geneve"
underlay = "u"

[interface.u]
role = "underlay"

[interface.u2]
role = "underlay"
manage = ["offloads", "promisc"]

[interface.w]
role = "workload"
addresses = ["10.250.1.1"]
peer = {{ netns = "{container}", name = "eth0" }}

[interface.w2]
role = "workload"
segment = "blue"
addresses = "peer"

[interface.w3]
role = "workload"
addresses = ["10.251.0.0/24", "10.251.1.7"]
mac = "02:00:5e:10:00:01"
peer = false
manage = []

[interface.p1]
role = "redirect"
to = "p2"

[interface.p2]
role = "pass"
peer = false
manage = ["mtu"]

[interface.p3]
role = "pass"
mode = "generic"

[tunnel.plain]
id = 42
remote = "10.30.30.2"
inner = ["10.250.1.2"]

[tunnel.full]
protocol = "vxlan"
id = 16777215
underlay = "u"
remote = "10.30.30.2"
local = "10.30.30.1"
local_mac = "02:00:5e:10:00:11"
remote_mac = "02:00:5e:10:00:12"
src_port = "50000-50100"
dst_port = 14789
inner_mac = "02:00:5e:10:00:02"
mtu = 1300
debug = true
inner = ["10.252.0.0/16", "10.253.1.1"]

[tunnel.pair]
id = 43
remote = "10.30.30.2"
src_port = 55555
inner = ["10.250.1.2", "10.255.0.0/16"]
from = ["10.250.1.1"]

[tunnel.part]
id = 44
remote = "10.30.30.2"
inner = ["10.250.1.3"]
from = ["10.251.0.0/25"]

[tunnel.blue]
segment = "blue"
id = 45
remote = "10.30.30.2"
inner = ["0.0.0.0/0"]
redirect = false

[tunnel.tagged]
protocol = "vlan"
id = 100
underlay = "u2"
inner = ["10.254.0.0/24"]
"#,
        container = lab.a.container
    )
}

/// Applies a file with every feature; what it says is not looked at.
fn apply_everything(lab: &Lab) -> &Node {
    add_devices(lab);
    lab.a.write(&everything(lab));
    let outcome = lab.a.mptm("apply");
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    &lab.a
}

#[test]
fn nothing_changes_and_nothing_is_loaded() {
    lab::run("noop: nothing changes", |lab| {
        let node = apply_everything(lab);
        let machine = Machine::look(lab);
        let pinned = Pinned::look(&node.pin);
        for arguments in ["apply", "apply --detailed-exitcode", "apply --dry-run --detailed-exitcode"] {
            node.mptm(arguments).nothing_to_do();
            Pinned::look(&node.pin).must_be(&pinned);
        }
        Machine::look(lab).must_be(&machine);
        assert_eq!(node.mptm("apply --json").done().stdout, "[]\n");
    });
}

/// The kernel refuses every write to a frozen map: not even a byte that is already there may be written.
#[test]
fn no_map_is_written() {
    lab::run("noop: frozen maps", |lab| {
        let node = apply_everything(lab);
        for map in Pinned::look(&node.pin).maps.keys() {
            let path = node.pin.join("maps").join(map);
            let frozen =
                Command::new("bpftool").args(["map", "freeze", "pinned"]).arg(path).output().unwrap();
            assert!(frozen.status.success(), "{map}: {frozen:?}");
        }
        node.mptm("apply").nothing_to_do();
        node.mptm("apply --detailed-exitcode").nothing_to_do();
        node.write(&everything(lab).replace("id = 42", "id = 4242"));
        node.mptm("apply").refused(&["tunnel plain", "cannot write to the map"]);
    });
}

/// Without CAP_BPF and CAP_SYS_ADMIN the kernel loads no program: none is needed.
#[test]
fn no_program_is_loaded() {
    lab::run("noop: no right to load", |lab| {
        let node = &lab.a;
        node.apply(&node.plain_file().replace("role = \"workload\"", "role = \"workload\"\npeer = false"));
        let powerless = |node: &Node| {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{}", node.netns));
            command.args([
                "setpriv",
                "--bounding-set",
                "-bpf,-sys_admin",
                "--inh-caps",
                "-bpf,-sys_admin",
                MPTM,
            ]);
            command.arg("-c").arg(&node.file).arg("--pin").arg(&node.pin).arg("apply");
            Outcome::of(&mut command)
        };
        powerless(node).nothing_to_do();
        lab.b.write(&lab.b.plain_file().replace("role = \"workload\"", "role = \"workload\"\npeer = false"));
        powerless(&lab.b).refused(&["cannot load the BPF programs", "CAP_BPF"]);
        assert!(!lab.b.pin.exists());
    });
}

#[test]
fn a_dump_is_what_is_there() {
    lab::run("noop: dump", |lab| {
        let node = apply_everything(lab);
        let dump = node.mptm("dump").done().stdout;
        let pinned = Pinned::look(&node.pin);
        for arguments in [
            "apply -c - --dry-run",
            "apply -c - --dry-run --detailed-exitcode",
            "apply -c - --detailed-exitcode",
        ] {
            node.mptm_reading(arguments, &dump).nothing_to_do();
        }
        Pinned::look(&node.pin).must_be(&pinned);
        node.write(&dump);
        assert_eq!(node.mptm("dump").done().stdout, dump);
        node.mptm("check").done();

        let other =
            node.mptm_reading("apply -c - --dry-run --detailed-exitcode", &dump.replace("= 42\n", "= 41\n"));
        assert_eq!(other.code, Some(2), "{other:?}");
        assert!(other.stdout.contains("~ tunnel plain: id 42 -> 41"), "{other:?}");
    });
}

/// The same, with nothing but what the file must say, on both nodes.
#[test]
fn defaults_stay_what_they_were() {
    lab::run("noop: defaults", |lab| {
        for node in [&lab.a, &lab.b] {
            node.apply(&node.plain_file());
        }
        for node in [&lab.a, &lab.b] {
            node.mptm("apply --detailed-exitcode").nothing_to_do();
            let dump = node.mptm("dump").done().stdout;
            node.mptm_reading("apply -c - --dry-run --detailed-exitcode", &dump).nothing_to_do();
        }
    });
}
