//! The data plane of an mptm whose maps look otherwise: its structs have fields at their beginning that this one's have
//! not. It is made from the same sources, changed, and forwards until this mptm takes it over.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::thread;

use libbpf_cargo::SkeletonBuilder;
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, MapType, Object, ObjectBuilder};

use nix::sched::{CloneFlags, setns};

use crate::lab::{self, Node};
use crate::snapshot::{Machine, Pinned};
use crate::traffic::{loss_both_ways_while, reaches};

/// What an older value begins with.
const MORE: usize = 16;
/// The maps whose values do.
const OTHERWISE: [&str; 3] = ["interfaces", "tunnels", "slots"];

/// Builds the programs with other structs, and with maps of the sizes of those that are pinned.
fn build(dir: &Path, pin: &Path) -> Object {
    let sources = dir.join("bpf");
    fs::create_dir(&sources).unwrap();
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf")).unwrap() {
        let path = entry.unwrap().path();
        let mut text = fs::read_to_string(&path).unwrap();
        if path.ends_with("abi.h") {
            for name in ["interface", "tunnel", "slot"] {
                let (begin, assertion) =
                    (format!("struct mptm_{name} {{"), format!("sizeof(struct mptm_{name}) =="));
                assert!(text.contains(&begin) && text.contains(&assertion), "{name}");
                text = text.replace(&begin, &format!("{begin}\n__u32 more[{}];", MORE / 4));
                text = text.replace(&assertion, &format!("{assertion} {MORE} +"));
            }
        }
        fs::write(sources.join(path.file_name().unwrap()), text).unwrap();
    }
    let object = dir.join("older.bpf.o");
    let mut arguments = vec!["-O2".to_owned(), "-mcpu=v3".into(), "-Wno-unused-parameter".into()];
    let include = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    if Path::new(&include).exists() {
        arguments.extend(["-idirafter".into(), include]);
    }
    SkeletonBuilder::new()
        .source(sources.join("mptm.bpf.c"))
        .obj(&object)
        .clang_args(arguments)
        .build()
        .unwrap();
    let mut open = ObjectBuilder::default().open_file(&object).unwrap();
    for mut map in open.maps_mut() {
        let pinned = MapHandle::from_pinned_path(pin.join("maps").join(map.name())).unwrap();
        map.set_max_entries(pinned.max_entries()).unwrap();
    }
    open.load().unwrap()
}

fn copy(old: &MapHandle, new: &impl MapCore, otherwise: bool) {
    for key in old.keys() {
        match old.map_type() {
            MapType::PercpuArray => {
                let values = old.lookup_percpu(&key, MapFlags::ANY).unwrap().unwrap();
                new.update_percpu(&key, &values, MapFlags::ANY).unwrap();
            }
            _ => {
                let Some(value) = old.lookup(&key, MapFlags::ANY).unwrap() else { continue };
                if matches!(old.map_type(), MapType::Devmap | MapType::DevmapHash)
                    && value.iter().all(|byte| *byte == 0)
                {
                    continue;
                }
                let mut written = vec![0xa5; if otherwise { MORE } else { 0 }];
                written.extend(value);
                new.update(&key, &written, MapFlags::ANY).unwrap();
            }
        }
    }
}

/// Puts the older data plane in the place of what is applied.
fn make_older(node: &Node, object: &mut Object) {
    for map in object.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        let pin = node.pin.join("maps").join(&name);
        let old = MapHandle::from_pinned_path(&pin).unwrap();
        if old.map_type() == MapType::RingBuf {
            continue;
        }
        copy(&old, &map, OTHERWISE.contains(&name.as_str()));
        if name == "meta" {
            let key = 0_u32.to_ne_bytes();
            let mut row = map.lookup(&key, MapFlags::ANY).unwrap().unwrap();
            row[..4].copy_from_slice(&1_u32.to_ne_bytes());
            row[16..48].fill(0x11);
            map.update(&key, &row, MapFlags::ANY).unwrap();
        }
    }
    let programs = Pinned::look(&node.pin).programs;
    for program in object.progs_mut() {
        let name = program.name().to_string_lossy().into_owned();
        for directory in ["links", "flood-links"] {
            let Ok(links) = fs::read_dir(node.pin.join(directory)) else { continue };
            for link in links {
                let link = Link::open(link.unwrap().path()).unwrap();
                if link.info().unwrap().prog_id == programs[&name] {
                    // SAFETY: both descriptors are open; null options are allowed.
                    let code = unsafe {
                        libbpf_sys::bpf_link_update(
                            link.as_fd().as_raw_fd(),
                            program.as_fd().as_raw_fd(),
                            std::ptr::null(),
                        )
                    };
                    assert_eq!(code, 0, "{name}");
                }
            }
        }
        pin(&program, &node.pin.join("programs").join(&name));
    }
    for map in object.maps() {
        pin(&map, &node.pin.join("maps").join(map.name()));
    }
}

/// In the place of another pin.
fn pin(object: &impl AsFd, path: &Path) {
    fs::remove_file(path).unwrap();
    let path = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the descriptor is open, and the path outlives the call.
    assert_eq!(unsafe { libbpf_sys::bpf_obj_pin(object.as_fd().as_raw_fd(), path.as_ptr()) }, 0);
}

/// What the tunnel `far` has sent and received, in packets.
fn counted(node: &Node) -> (u64, u64) {
    let status: serde_json::Value = serde_json::from_str(&node.mptm("status --json").done().stdout).unwrap();
    let tunnels = status["tunnels"].as_array().unwrap();
    let tunnel = tunnels.iter().find(|tunnel| tunnel["name"] == "far").unwrap();
    let count = |direction: &str| tunnel[direction]["packets"].as_u64().unwrap_or_else(|| panic!("{tunnel}"));
    (count("encap"), count("decap"))
}

#[test]
fn another_layout_is_taken_over() {
    lab::run("older: another layout", |lab| {
        let node = &lab.a;
        let clean = Machine::look(lab);
        lab.b.apply(&lab.b.plain_file());
        let more = "[tunnel.more]\nprotocol = \"gre\"\nid = 5\nsequence = true\nremote = \"10.30.30.2\"\ninner = [\"10.252.0.0/16\"]\n";
        node.apply(&(node.plain_file() + more));
        let dump = node.mptm("dump").done().stdout;
        assert!(reaches(lab));
        let before = counted(node);
        assert!(before.0 > 0 && before.1 > 0);
        // The kernel looks for the devices of a devmap where its writer is. The object itself keeps nothing.
        let netns = File::open(format!("/run/netns/{}", node.netns)).unwrap();
        let work = || {
            setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
            make_older(node, &mut build(lab.dir.path(), &node.pin));
        };
        thread::scope(|scope| scope.spawn(work).join().unwrap());
        let older = Pinned::look(&node.pin);
        assert!(reaches(lab), "the older programs do not work");
        for command in ["status", "dump", "get 10.250.1.1 10.250.1.2", "apply --confirm 5"] {
            node.mptm(command).refused(&["are those of an older mptm", "hint: `mptm apply` takes them over"]);
        }
        let dry = node.mptm("apply --dry-run").done();
        assert!(dry.stdout.starts_with("~ data-plane: build 111111111111 of layout 1 -> "), "{dry:?}");
        Pinned::look(&node.pin).must_be(&older);

        let lost = loss_both_ways_while(lab, || {
            let outcome = node.mptm("apply").done();
            assert!(!outcome.stdout.contains("setting"), "{outcome:?}");
            assert_eq!(outcome.stdout, dry.stdout);
        });
        println!("taken over: of {lost:?} (sent, lost)");
        assert!(lost.iter().all(|(sent, lost)| *sent > 100 && *lost == 0), "{lost:?}");
        node.mptm("apply").nothing_to_do();
        assert_eq!(node.mptm("dump").done().stdout, dump);
        let now = Pinned::look(&node.pin);
        for (name, (link, program)) in &now.links {
            assert_eq!(*link, older.links[name].0, "{name} was attached again");
            assert_ne!(*program, older.links[name].1, "{name} runs the old program");
        }
        let after = counted(node);
        assert!(after.0 > before.0 && after.1 > before.1, "{before:?} {after:?}");
        older.must_be_replaced_by(&now);
        node.mptm("down").done();
        lab.b.mptm("down").done();
        Machine::look(lab).in_the_long_run().must_be(&clean.in_the_long_run());
    });
}
