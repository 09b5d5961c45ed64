//! What others do to the data plane: `status` shows it first, `apply` mends it, and then there is nothing to do.

use std::path::Path;
use std::process::Command;

use crate::lab::{self, Lab, Node, shell_in, soon};
use crate::snapshot::{Machine, Pinned};
use crate::traffic::reaches;

fn bpftool(arguments: &str) {
    let output = Command::new("bpftool").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "bpftool {arguments}: {output:?}");
}

fn set_up(lab: &Lab) -> (&Node, Pinned) {
    for node in [&lab.a, &lab.b] {
        node.apply(&node.plain_file());
    }
    let status = lab.a.mptm("status").done().stdout;
    assert!(
        status.contains(&format!("drift: none, the kernel matches {}\n", lab.a.file.display())),
        "{status}"
    );
    (&lab.a, Pinned::look(&lab.a.pin))
}

/// `status` and the dry run show all of `steps`; they and nothing else change it; then all is as before.
fn mend(lab: &Lab, steps: &[&str]) {
    let node = &lab.a;
    let status = node.mptm("status").done().stdout;
    let (_, drift) = status.split_once("\ndrift from ").unwrap_or_else(|| panic!("no drift in:\n{status}"));
    let dry = node.mptm("apply --dry-run").done().stdout;
    assert_eq!(node.mptm("apply --dry-run --detailed-exitcode").code, Some(2));
    for step in steps {
        assert!(drift.contains(&format!("\n  {step}")), "status has no {step:?}:\n{drift}");
        assert!(dry.contains(step), "the dry run has no {step:?}:\n{dry}");
    }
    assert_eq!(dry.lines().count(), steps.len(), "more than {steps:?}:\n{dry}");
    let done = node.mptm("apply").done().stdout;
    assert_eq!(done, dry);
    node.mptm("apply").nothing_to_do();
    assert!(node.mptm("status").done().stdout.contains("drift: none"));
    assert!(reaches(lab));
}

/// Deletes all entries of a map, one by one.
fn empty(node: &Node, map: &str, before: &Pinned) {
    let path = node.pin.join("maps").join(map);
    assert!(!before.contents[map].is_empty());
    for key in before.contents[map].keys() {
        let key: Vec<String> = key.iter().map(u8::to_string).collect();
        bpftool(&format!("map delete pinned {} key {}", path.display(), key.join(" ")));
    }
}

#[test]
fn deleted_entries() {
    lab::run("drift: deleted entries", |lab| {
        let (node, before) = set_up(lab);
        let maps: [(&str, &[&str]); 3] = [
            (
                "routes",
                &["+ route default 10.250.1.1: interface w", "+ route default 10.250.1.2: tunnel far"],
            ),
            ("endpoints", &["+ endpoint geneve 42 10.30.30.2 -> 10.30.30.1:6081"]),
            ("interfaces", &["+ interface u", "+ interface w"]),
        ];
        for (map, steps) in maps {
            empty(node, map, &before);
            mend(lab, steps);
            Pinned::look(&node.pin).must_be(&before);
        }
        let devices = node.pin.join("maps/devices");
        bpftool(&format!("map delete pinned {} key 0 0 0 0", devices.display()));
        mend(lab, &["~ interface u: takes-frames no -> yes"]);
        Pinned::look(&node.pin).must_be(&before);
    });
}

#[test]
fn a_damaged_header() {
    lab::run("drift: a damaged header", |lab| {
        let (node, before) = set_up(lab);
        let (slot, value) =
            before.contents["tunnels"].iter().find(|(_, value)| value.iter().any(|byte| *byte != 0)).unwrap();
        let mut bytes: Vec<String> = value.iter().map(|byte| format!("{byte:02x}")).collect();
        // The outer identification: no key of the file says it.
        assert_eq!(bytes[18..20], ["00", "00"]);
        bytes[18] = "01".into();
        let slot: Vec<String> = slot.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = node.pin.join("maps/tunnels");
        bpftool(&format!(
            "map update pinned {} key hex {} value hex {}",
            path.display(),
            slot.join(" "),
            bytes.join(" ")
        ));
        mend(lab, &["~ tunnel far: header damaged -> intact"]);
        Pinned::look(&node.pin).must_have_the_objects_of(&before);
    });
}

#[test]
fn a_detached_link() {
    lab::run("drift: a detached link", |lab| {
        let (node, before) = set_up(lab);
        bpftool(&format!("link detach pinned {}", node.pin.join("links/w").display()));
        let status = node.mptm("status").done().stdout;
        assert!(status.contains("none: the device is gone") || status.contains("none: detached"), "{status}");
        mend(lab, &["~ program w: "]);
        let now = Pinned::look(&node.pin);
        assert_ne!(now.links["w"].0, before.links["w"].0);
        assert_eq!((now.links["u"], &now.programs), (before.links["u"], &before.programs));

        std::fs::remove_file(node.pin.join("links/u")).unwrap();
        assert!(soon(|| !node.shell("ip -o link show u").contains("xdp")));
        mend(lab, &["+ program u: runs mptm_decap"]);
    });
}

#[test]
fn a_replaced_program() {
    lab::run("drift: a replaced program", |lab| {
        let (node, before) = set_up(lab);
        let link = before.links["w"].0;
        // bpftool 7 can't update a link; libbpf-rs can.
        let pass = libbpf_rs::ProgramHandle::from_pinned_path(node.pin.join("programs/mptm_pass")).unwrap();
        update_link(&node.pin.join("links/w"), &pass);
        mend(lab, &["~ program w: runs mptm_pass -> mptm_encap"]);
        assert_eq!(Pinned::look(&node.pin).links["w"].0, link, "the link stays");
        Pinned::look(&node.pin).must_be(&before);
    });
}

fn update_link(link: &Path, program: &libbpf_rs::ProgramHandle) {
    use std::os::fd::{AsFd, AsRawFd};
    let link = libbpf_rs::Link::open(link).unwrap();
    let (link, program) = (link.as_fd().as_raw_fd(), program.as_fd().as_raw_fd());
    // SAFETY: both descriptors are open; null options are allowed.
    let result = unsafe { libbpf_sys::bpf_link_update(link, program, std::ptr::null()) };
    assert_eq!(result, 0);
}

#[test]
fn settings_of_devices() {
    lab::run("drift: settings", |lab| {
        let (node, before) = set_up(lab);
        assert!(reaches(lab));
        let machine = Machine::look(lab);
        node.ip("link set w mtu 1500");
        shell_in(&node.container, "ethtool -K eth0 tx on gro off >/dev/null");
        let steps = [
            "~ setting w mtu: ".to_owned(),
            format!("~ setting {}/eth0 rx-gro: ", node.container),
            format!("~ setting {}/eth0 tx-checksum-ip-generic: ", node.container),
            format!("~ setting {}/eth0 tx-checksum-sctp: ", node.container),
        ];
        mend(lab, &steps.each_ref().map(String::as_str));
        Pinned::look(&node.pin).must_be(&before);
        Machine::look(lab).must_be(&machine);
    });
}

/// A device that was made anew: another index, no program, an empty slot in the devmap.
#[test]
fn a_new_device() {
    lab::run("drift: a new device", |lab| {
        let (node, _) = set_up(lab);
        node.ip("link del w");
        let status = node.mptm("status").done().stdout;
        assert!(status.contains("none: the device is gone"), "{status}");
        assert!(status.contains("drift: unknown: interface w: there is no such device"), "{status}");
        node.mptm("apply").refused(&["interface w: there is no such device"]);
        lab::batch(
            None,
            &format!(
                "link add w netns {} type veth peer name eth0 netns {} address 02:00:00:00:03:01",
                node.netns, node.container
            ),
        );
        node.ip("link set w up");
        shell_in(&node.container, "ip addr add 10.250.1.1/24 dev eth0; ip link set eth0 up");
        let done = node.mptm("apply").done().stdout;
        assert!(done.contains("~ interface w: index ") && done.contains("~ program w: "), "{done}");
        node.mptm("apply").nothing_to_do();
        assert!(reaches(lab));
    });
}

/// Somebody's half of a data plane: `apply` says what it needs, or makes it anew.
#[test]
fn a_program_pin_that_is_gone() {
    lab::run("drift: a program pin is gone", |lab| {
        let (node, _) = set_up(lab);
        std::fs::remove_file(node.pin.join("programs/mptm_encap")).unwrap();
        node.mptm("down").done();
        node.apply(&node.plain_file());
        assert!(reaches(lab));
    });
}

/// An interface that is down is what the file says, and of no use: whoever asks is told.
#[test]
fn an_interface_is_down() {
    lab::run("drift: an interface is down", |lab| {
        let node = &lab.a;
        node.apply(&node.plain_file());
        node.ip("link set w down");
        let status = node.mptm("status");
        assert_eq!(status.code, Some(0), "{status:?}");
        assert!(status.stderr.contains("warning: interface w is down"), "{status:?}");
        let json = node.mptm("status --json");
        assert!(json.stdout.contains("\"interface w is down"), "{json:?}");
    });
}
