//! What a file asks for and the machine can't give: one clear message, and nothing changes.

use std::ffi::CString;
use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use libbpf_rs::ProgramHandle;
use libbpf_sys::{BPF_PROG_TYPE_XDP, bpf_insn};

use crate::lab::{self, Lab, shell_in};
use crate::snapshot::{Machine, Pinned};

/// The plain file with other text in a place.
fn plain_but(lab: &Lab, old: &str, new: &str) -> String {
    let plain = lab.a.plain_file();
    assert!(plain.contains(old), "{plain}");
    plain.replacen(old, new, 1)
}

/// Nothing there, and with the plain file applied: a file is refused, with one message that has all `parts`, and all
/// stays as it was. The same goes for a dry run.
fn refuse(lab: &Lab, file: &str, parts: &[&str]) {
    let node = &lab.a;
    let file_name = node.file.display().to_string();
    let parts: Vec<&str> = parts.iter().copied().chain([file_name.as_str()]).collect();
    let before = Machine::look(lab);
    node.write(file);
    for command in ["apply", "apply --dry-run", "apply --json --detailed-exitcode"] {
        node.mptm(command).refused(&parts);
    }
    Machine::look(lab).must_be(&before);
    let exists = node.pin.exists();
    if !exists {
        node.write(&node.plain_file());
        assert_eq!(node.mptm("apply").code, Some(0));
    }
    let (machine, pinned) = (Machine::look(lab), Pinned::look(&node.pin));
    node.write(file);
    node.mptm("apply").refused(&parts);
    Pinned::look(&node.pin).must_be(&pinned);
    Machine::look(lab).must_be(&machine);
    if !exists {
        assert_eq!(node.mptm("down").code, Some(0));
    }
    Machine::look(lab).must_be(&before);
}

const PEER: &str = "role = \"workload\"";

#[test]
fn missing_objects() {
    lab::run("refused: missing objects", |lab| {
        let container = &lab.a.container;
        let peer = |netns: &str, name: &str| {
            plain_but(lab, PEER, &format!("{PEER}\npeer = {{ netns = \"{netns}\", name = \"{name}\" }}"))
        };
        refuse(
            lab,
            &plain_but(lab, "interface.w", "interface.w9"),
            &["interface w9: there is no such device", "hint: see `ip link`", "-n NETNS"],
        );
        refuse(
            lab,
            &peer("nowhere", "eth0"),
            &[
                "interface w: cannot look at its peer eth0: cannot enter network namespace nowhere: No such file",
                "hint: `ip netns list`",
            ],
        );
        refuse(
            lab,
            &peer(container, "eth9"),
            &[&format!("interface w: its peer eth9 is not in netns {container}"), "hint: leave `peer` out"],
        );
        refuse(
            lab,
            &peer(container, "lo"),
            &[
                &format!("interface w: lo in netns {container} is not its other end"),
                "hint: leave `peer` out",
            ],
        );
        refuse(
            lab,
            &plain_but(lab, "remote = \"10.30.30.2\"", "remote = \"10.99.0.1\""),
            &["tunnel far: there is no route to 10.99.0.1 by u", "hint: see `ip route get 10.99.0.1 oif u`"],
        );
        refuse(
            lab,
            &plain_but(lab, PEER, "role = \"workload\"\npeer = false")
                .replace("[\"10.250.1.1\"]", "\"peer\""),
            &["interface w: addresses = \"peer\", but its other end is not known", "hint: "],
        );
    });
}

#[test]
fn addresses_and_ids() {
    lab::run("refused: addresses and ids", |lab| {
        refuse(
            lab,
            &plain_but(lab, "id = 42", "id = 16777216"),
            &["VNI does not fit in 24 bits", "a.toml:10:6", "^^^^^^^^ allowed: 0 to 16777215"],
        );
        refuse(lab, &plain_but(lab, "10.250.1.1", "10.250.1.300"), &["10.250.1.300", "a.toml:6:", "^^^"]);
        // The file says nothing of the peer's address that the tunnel has, too: only the machine knows.
        shell_in(&lab.a.container, "ip addr add 10.250.1.2/24 dev eth0");
        refuse(
            lab,
            &plain_but(lab, "[\"10.250.1.1\"]", "\"peer\""),
            &["tunnel far: 10.250.1.2 of segment default is already that of interface w", "hint: "],
        );
        shell_in(&lab.a.container, "ip addr del 10.250.1.2/24 dev eth0");
        let twice = lab.a.plain_file()
            + "\n[tunnel.again]\nprotocol = \"geneve\"\nid = 42\nremote = \"10.30.30.2\"\n\
                    local = \"10.30.30.1\"\ninner = [\"10.250.1.3\"]\n";
        refuse(lab, &twice, &["tunnels again and far cannot be told apart", "a.toml:8:9"]);
    });
}

#[test]
fn no_room_in_the_mtu() {
    lab::run("refused: MTU", |lab| {
        refuse(
            lab,
            &(lab.a.plain_file() + "mtu = 1451\n"),
            &[
                "tunnel far: no room for mtu = 1451: u has an MTU of 1500, and geneve takes 50 of it",
                "hint: at most mtu = 1450",
            ],
        );
        lab.a.ip("link set u mtu 100");
        lab.a.write(&lab.a.plain_file());
        let machine = Machine::look(lab);
        lab.a.mptm("apply").refused(&[
            "tunnel far: no room for packets of 68 bytes: u has an MTU of 100",
            "hint: set a larger MTU: ip link set u mtu 1550",
        ]);
        Machine::look(lab).must_be(&machine);
    });
}

/// All that is wrong is said at once.
#[test]
fn all_errors_at_once() {
    lab::run("refused: all at once", |lab| {
        let file =
            plain_but(lab, "interface.w", "interface.w9") + "mtu = 1451\n[interface.w8]\nrole = \"pass\"\n";
        lab.a.write(&file);
        let outcome = lab.a.mptm("apply");
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
        for part in [
            "interface w9: there is no such device",
            "interface w8: there is no such device",
            "no room for mtu = 1451",
        ] {
            assert!(outcome.stderr.contains(part), "{outcome:?}");
        }
        assert_eq!(outcome.stderr.matches("error: ").count(), 3, "{outcome:?}");
        lab.a.write(&plain_but(lab, "id = 42", "id = -1").replace("10.250.1.1\"", "10.250.1\""));
        let outcome = lab.a.mptm("apply");
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
        assert_eq!(outcome.stderr.matches("error: ").count(), 2, "{outcome:?}");
        assert_eq!(outcome.stderr.matches("--> ").count(), 2, "{outcome:?}");
        assert!(!lab.a.pin.exists());
    });
}

/// Loads and pins a program of somebody else: XDP_PASS; its id.
pub fn load_foreign(pin: &Path) -> u32 {
    let mut move_2_to_r0 = bpf_insn { code: 0xb7, imm: 2, ..Default::default() };
    move_2_to_r0.set_dst_reg(0);
    let exit = bpf_insn { code: 0x95, ..Default::default() };
    let program = [move_2_to_r0, exit];
    // SAFETY: the strings and the instructions outlive the call; null options are allowed.
    let descriptor = unsafe {
        libbpf_sys::bpf_prog_load(
            BPF_PROG_TYPE_XDP,
            c"somebodys".as_ptr(),
            c"GPL".as_ptr(),
            program.as_ptr(),
            program.len() as u64,
            std::ptr::null_mut(),
        )
    };
    assert!(descriptor >= 0, "{}", std::io::Error::from_raw_os_error(-descriptor));
    // SAFETY: the kernel has just made it.
    let _held = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let path = CString::new(pin.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the descriptor is open, and the path outlives the call.
    assert_eq!(unsafe { libbpf_sys::bpf_obj_pin(descriptor, path.as_ptr()) }, 0);
    ProgramHandle::from_pinned_path(pin).unwrap().id()
}

#[test]
fn programs_of_others() {
    lab::run("refused: foreign programs", |lab| {
        let pin = Path::new("/sys/fs/bpf").join(format!("{}-foreign", lab.tag));
        let id = load_foreign(&pin);
        for (device, attach, mode) in [("w", "xdpdrv", "native"), ("u", "xdpgeneric", "generic")] {
            let net = |arguments: &str| {
                let output = Command::new("nsenter")
                    .args([&format!("--net=/run/netns/{}", lab.a.netns), "bpftool", "net"])
                    .args(arguments.split_whitespace())
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{arguments}: {output:?}");
            };
            net(&format!("attach {attach} pinned {} dev {device}", pin.display()));
            let before = Machine::look(lab);
            lab.a.write(&lab.a.plain_file());
            for command in ["apply", "apply --dry-run"] {
                lab.a.mptm(command).refused(&[
                    &format!("interface {device} has an XDP program that is not mptm's: somebodys, id {id}, in {mode} mode"),
                    &format!("hint: whose it is: `bpftool prog show id {id}`; to take it off: `ip link set {device} xdp off`"),
                ]);
            }
            Machine::look(lab).must_be(&before);
            net(&format!("detach {attach} dev {device}"));
        }
        fs::remove_file(&pin).unwrap();
        lab.a.apply(&lab.a.plain_file());
    });
}

/// Never silently generic.
#[test]
fn drivers_without_native_xdp() {
    lab::run("refused: no native XDP", |lab| {
        let node = &lab.a;
        node.ip("link add br0 type bridge");
        node.ip("link add x0 type vxlan id 5 dstport 4790 local 10.30.30.1");
        for device in ["br0", "x0"] {
            node.ip(&format!("link set {device} up"));
            let before = Machine::look(lab);
            let file = format!("{}\n[interface.{device}]\nrole = \"pass\"\n", node.plain_file());
            node.write(&file);
            node.mptm("apply").refused(&[
                &format!("cannot attach mptm_pass to {device} in native mode: "),
                "so nothing is changed",
                "hint: the driver may have no native XDP",
                "mode = \"generic\" works with every driver",
            ]);
            Machine::look(lab).must_be(&before);
            node.write(&(file + "mode = \"generic\"\n"));
            assert_eq!(node.mptm("apply").code, Some(0));
            assert!(node.shell(&format!("ip link show {device}")).contains("xdpgeneric"));
            node.mptm("down").done();
            Machine::look(lab).must_be(&before);
        }
    });
}
