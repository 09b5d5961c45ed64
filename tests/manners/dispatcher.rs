//! Sharing an interface with programs of others, through libxdp's dispatcher: xdp-filter is on the same interface, loaded
//! by the xdp-tools of this machine, or by newer ones (tests/prepare.sh gets both), whose dispatchers are of another
//! version. tests/vm.sh runs these where the kernel takes no parts of dispatchers.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use libbpf_rs::ProgramHandle;

use crate::lab::{self, Lab, Node, Outcome, ip, shell_in, soon};
use crate::snapshot::{Machine, poke_meta};
use crate::traffic::{loss_both_ways_while, reaches};
use crate::watch::Watch;

/// xdp-filter has one directory of pins, whatever network namespace it is in.
static FILTER: Mutex<()> = Mutex::new(());

/// And that is here.
const FILTER_PINS: &str = "/sys/fs/bpf/xdp-filter";

/// What xdp-filter leaves behind where its programs were taken off by others.
struct FilterPins;

impl Drop for FilterPins {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(FILTER_PINS);
    }
}

/// xdp-tools.
#[derive(Debug, Clone)]
enum Tools {
    /// Of this machine: version 2 of the protocol, on Debian 12 and 13.
    Installed,
    /// In a directory, with all that they need: version 3.
    Newer(PathBuf),
}

impl Tools {
    /// A command of xdp-tools in a node's namespace.
    fn run(&self, node: &Node, line: &str) -> Outcome {
        let mut words = line.split_whitespace();
        let tool = words.next().unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", node.netns));
        match self {
            Self::Installed => _ = command.arg(tool),
            Self::Newer(root) => {
                let libraries = root.join(format!("usr/lib/{}-linux-gnu", env::consts::ARCH));
                let loader = fs::read_dir(&libraries).unwrap().map(|entry| entry.unwrap().path());
                let is_loader =
                    |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("ld-linux");
                command.arg(loader.into_iter().find(is_loader).expect("a dynamic loader"));
                command.arg("--library-path").arg(&libraries).arg(root.join("usr/sbin").join(tool));
                command.env("LIBXDP_OBJECT_PATH", libraries.join("bpf"));
                command.env("BPF_OBJECT_PATH", libraries.join("bpf"));
            }
        }
        Outcome::of(command.args(words))
    }

    #[track_caller]
    fn must(&self, node: &Node, line: &str) -> Outcome {
        let outcome = self.run(node, line);
        assert_eq!(outcome.code, Some(0), "{line} ({self:?}): {outcome:?}");
        outcome
    }

    /// What `xdp-loader status` says of a device: the programs and their priorities, in order.
    fn programs(&self, node: &Node, device: &str) -> Vec<(String, u32)> {
        let status = self.must(node, "xdp-loader status").stdout;
        let lines = status.lines().skip_while(|line| line.split_whitespace().next() != Some(device)).skip(1);
        let members = lines.map_while(|line| line.trim_start().strip_prefix("=>"));
        let members = members.map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[1].to_owned(), words[0].parse().unwrap())
        });
        members.collect()
    }

    /// The id of the program of a name on a device, as `xdp-loader status` has it.
    fn id(&self, node: &Node, device: &str, program: &str) -> String {
        let status = self.must(node, "xdp-loader status").stdout;
        let mut lines =
            status.lines().skip_while(|line| line.split_whitespace().next() != Some(device)).skip(1);
        let line = lines.find(|line| line.contains(program)).unwrap_or_else(|| panic!("{status}"));
        line.split_whitespace().nth(3).unwrap().to_owned()
    }

    fn object(&self, name: &str) -> String {
        let root = match self {
            Self::Installed => Path::new("/"),
            Self::Newer(root) => root,
        };
        root.join(format!("usr/lib/{}-linux-gnu/bpf/{name}", env::consts::ARCH)).display().to_string()
    }
}

const MPTM: &str = "mptm_encap";
const FILTER_PROGRAM: &str = "xdpfilt_alw_all";

/// Runs `test` with each of the tools that there are.
fn run(title: &str, test: impl Fn(&Lab, &Tools)) {
    let newer = env::var_os("MPTM_XDP_TOOLS").map_or("/var/cache/mptm-tests/xdp-tools".into(), PathBuf::from);
    let all = [Tools::Installed, Tools::Newer(newer)];
    for tools in all {
        run_with(title, &tools, |lab| test(lab, &tools));
    }
}

fn run_with(title: &str, tools: &Tools, test: impl Fn(&Lab)) {
    let skip = |why: &str| _ = writeln!(io::stderr(), "SKIPPED ({why}): {title}");
    lab::run(title, |lab| {
        let is_there = match tools {
            Tools::Installed => Path::new("/usr/sbin/xdp-filter").exists(),
            Tools::Newer(root) => root.join("usr/sbin/xdp-filter").exists(),
        };
        if !is_there {
            return skip(&format!("there is no xdp-filter: {tools:?}"));
        }
        if !has_extensions() {
            return skip("this kernel takes no BPF_PROG_TYPE_EXT; tests/vm.sh has one that does");
        }
        let _alone = FILTER.lock().unwrap_or_else(PoisonError::into_inner);
        if Path::new(FILTER_PINS).exists() {
            return skip("xdp-filter is in use on this machine");
        }
        let _pins = FilterPins;
        let before = dispatchers();
        test(lab);
        for node in [&lab.a, &lab.b] {
            if node.pin.exists() {
                node.mptm("down").done();
            }
            // What xdp-filter has loaded, if a test leaves it there.
            for device in ["u", "w"] {
                let _ = tools.run(node, &format!("xdp-filter unload {device}"));
                assert_eq!(tools.programs(node, device), [], "{device}");
            }
        }
        assert_eq!(dispatchers(), before, "pins of dispatchers are left behind");
    });
}

/// Whether the kernel takes parts of dispatchers.
fn has_extensions() -> bool {
    // SAFETY: a plain call; null options are required.
    let answer =
        unsafe { libbpf_sys::libbpf_probe_bpf_prog_type(libbpf_sys::BPF_PROG_TYPE_EXT, std::ptr::null()) };
    answer == 1
}

/// The pins of all dispatchers.
fn dispatchers() -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir("/sys/fs/bpf/xdp") else { return BTreeSet::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The plain file, with its interfaces shared.
fn shared_file(node: &Node) -> String {
    node.plain_file().replace("role = ", "dispatcher = true\nrole = ")
}

fn has(name: &str, priority: u32) -> (String, u32) {
    (name.to_owned(), priority)
}

fn pings(lab: &Lab) -> bool {
    let ping = ["netns", "exec", &lab.a.container, "ping", "-c", "1", "-W", "1", "10.250.1.2"];
    Command::new("ip").args(ping).output().unwrap().status.success()
}

/// The filter drops what it should, and only that.
fn filters(lab: &Lab, tools: &Tools) {
    assert!(soon(|| pings(lab)), "nothing gets through to begin with");
    tools.must(&lab.a, "xdp-filter ip 10.250.1.2 -m dst");
    assert!(!pings(lab), "the filter lets through what it should not");
    tools.must(&lab.a, "xdp-filter ip 10.250.1.2 -r");
    assert!(pings(lab));
}

#[test]
fn where_there_are_none() {
    lab::run("dispatcher: a kernel that takes none", |lab| {
        if has_extensions() {
            return;
        }
        let (before, a) = (Machine::look(lab), &lab.a);
        a.write(&shared_file(a));
        a.mptm("apply").refused(&[
            "cannot attach mptm_decap to u in native mode: cannot load the BPF programs",
            "hint: this kernel takes no programs of type BPF_PROG_TYPE_EXT, which all parts of dispatchers are",
            "step: + program u: runs mptm_decap, mode native, dispatcher shared",
            "nothing is changed",
        ]);
        Machine::look(lab).must_be(&before);
        assert!(!a.pin.exists());
    });
}

#[test]
fn joins_what_is_there() {
    run("dispatcher: joins what is there", |lab, tools| {
        let (a, b) = (&lab.a, &lab.b);
        b.apply(&shared_file(b)).done();
        tools.must(a, "xdp-filter load w -m native");
        let id = tools.id(a, "w", FILTER_PROGRAM);
        a.write(&a.plain_file());
        a.mptm("apply").refused(&[
            "interface w has a dispatcher of libxdp, id ",
            ", in native mode, with xdpfilt_alw_all (priority 10)\n",
            "a.toml:4",
            "hint: `dispatcher = true` in [interface.w] lets mptm join them; or unload them: `xdp-loader unload w --all`",
        ]);
        assert_eq!(tools.programs(a, "w"), [has(FILTER_PROGRAM, 10)]);
        // One that runs after mptm.
        let object = tools.object("xdp-dispatcher.o");
        tools.must(a, &format!("xdp-loader load -m native -P 60 -n xdp_pass w {object}"));
        a.write(&shared_file(a));
        let done = a.mptm("apply").done();
        assert!(done.stdout.contains("+ program w: runs mptm_encap, mode native, dispatcher shared, index "));
        assert_eq!(tools.programs(a, "w"), [has(FILTER_PROGRAM, 10), has(MPTM, 50), has("xdp_pass", 60)]);
        assert_eq!(tools.programs(a, "u"), [has("mptm_decap", 50)]);
        assert_eq!(tools.id(a, "w", FILTER_PROGRAM), id, "it is the same program");
        a.mptm("apply").nothing_to_do();
        filters(lab, tools);

        let status = a.mptm("status").done().stdout;
        for part in [
            "mptm_encap native, shared",
            "xdpfilt_alw_all (priority 10), mptm_encap (priority 50), xdp_pass (priority 60)  no\n",
            "mptm_decap (priority 50)  ",
            "drift: none",
        ] {
            assert!(status.contains(part), "no {part:?} in {status}");
        }
        let json: serde_json::Value = serde_json::from_str(&a.mptm("status --json").done().stdout).unwrap();
        let shared = &json["interfaces"][1]["dispatcher"];
        assert_eq!(shared["programs"][1]["program"], MPTM, "{shared}");
        assert_eq!((&shared["programs"][1]["own"], &shared["frags"]), (&true.into(), &false.into()));
        let dump = a.mptm("dump").done().stdout;
        a.write(&dump);
        a.mptm("apply").nothing_to_do();

        // Without the key any more: the others stay where they are.
        a.write(&a.plain_file());
        a.mptm("apply").refused(&["with xdpfilt_alw_all (priority 10), xdp_pass (priority 60)\n"]);
        a.write(&shared_file(a));
        a.mptm("down").done();
        assert_eq!(tools.programs(a, "w"), [has(FILTER_PROGRAM, 10), has("xdp_pass", 60)]);
        assert_eq!(tools.id(a, "w", FILTER_PROGRAM), id);
        tools.must(a, "xdp-loader unload w --all");
    });
}

#[test]
fn others_come_and_go() {
    run("dispatcher: others come and go", |lab, tools| {
        let (a, b) = (&lab.a, &lab.b);
        b.apply(&b.plain_file()).done();
        // So that it is of the version that the newer tools speak, somebody of theirs is there first.
        tools.must(a, "xdp-filter load w -m native");
        a.apply(&shared_file(a)).done();
        assert!(reaches(lab));
        let unloaded = tools.run(a, "xdp-filter unload w");
        if let Tools::Installed = tools
            && unloaded.code != Some(0)
        {
            // Since Linux 6.13 its own dispatcher takes no programs that move a packet's bounds. Nothing is lost.
            assert_eq!(tools.programs(a, "w"), [has(FILTER_PROGRAM, 10), has(MPTM, 50)]);
            filters(lab, tools);
            a.mptm("apply").nothing_to_do();
            return;
        }
        assert_eq!(unloaded.code, Some(0), "{unloaded:?}");
        assert_eq!(tools.programs(a, "w"), [has(MPTM, 50)]);
        assert!(reaches(lab));
        a.mptm("apply").nothing_to_do();
        tools.must(a, "xdp-filter load w -m native");
        assert_eq!(tools.programs(a, "w"), [has(FILTER_PROGRAM, 10), has(MPTM, 50)]);
        filters(lab, tools);
        a.mptm("apply").nothing_to_do();
        assert!(a.mptm("status").done().stdout.contains("drift: none"));
    });
}

#[test]
fn somebody_takes_it_out() {
    run("dispatcher: somebody takes mptm out", |lab, tools| {
        let (a, b) = (&lab.a, &lab.b);
        b.apply(&b.plain_file()).done();
        tools.must(a, "xdp-filter load w -m native");
        a.apply(&shared_file(a)).done();
        let id = tools.id(a, "w", MPTM);
        tools.must(a, &format!("xdp-loader unload w --id {id}"));
        assert_eq!(tools.programs(a, "w"), [has(FILTER_PROGRAM, 10)]);
        let drift = "~ program w: mode detached -> native, index none -> ";
        assert!(a.mptm("status").done().stdout.contains(drift));
        assert!(a.mptm("apply").done().stdout.starts_with(drift));
        assert_eq!(tools.programs(a, "w"), [has(FILTER_PROGRAM, 10), has(MPTM, 50)]);
        filters(lab, tools);

        tools.must(a, "xdp-loader unload w --all");
        assert!(a.mptm("status").done().stdout.contains("none: no dispatcher has it"));
        a.mptm("apply").done();
        assert_eq!(tools.programs(a, "w"), [has(MPTM, 50)]);
        assert!(reaches(lab));

        // `ip link` does not know of the pins.
        a.ip("link set w xdp off");
        a.mptm("apply").done();
        assert!(reaches(lab));
        a.ip("link set w xdp off");
        a.mptm("down").done();
    });
}

#[test]
fn replaced_while_packets_pass() {
    run("dispatcher: upgrades and changes", |lab, tools| {
        let (a, b) = (&lab.a, &lab.b);
        b.apply(&b.plain_file()).done();
        tools.must(a, "xdp-filter load w -m native");
        a.apply(&shared_file(a)).done();
        let (filter, mptm) = (tools.id(a, "w", FILTER_PROGRAM), tools.id(a, "w", MPTM));
        let build = std::mem::offset_of!(mptm::kernel::abi::Meta, build);
        let losses = loss_both_ways_while(lab, || {
            poke_meta(&a.pin, build, 0xee);
            a.mptm("apply").done();
            // And from maps of an older layout.
            poke_meta(&a.pin, 0, 1);
            a.mptm("apply").done();
        });
        for (sent, lost) in losses {
            assert!(sent > 0 && lost == 0, "{lost} of {sent} packets were lost");
        }
        assert_eq!(tools.programs(a, "w"), [has(FILTER_PROGRAM, 10), has(MPTM, 50)]);
        assert_eq!(tools.id(a, "w", FILTER_PROGRAM), filter);
        assert_ne!(tools.id(a, "w", MPTM), mptm);
        a.mptm("apply").nothing_to_do();
        filters(lab, tools);
        // From a link of its own, and back.
        tools.must(a, "xdp-loader unload w --all");
        a.apply(&shared_file(a));
        a.write(&a.plain_file());
        assert!(a.mptm("apply").done().stdout.contains("~ program w: dispatcher shared -> none\n"));
        assert!(reaches(lab));
        a.write(&shared_file(a));
        assert!(a.mptm("apply").done().stdout.contains("~ program w: dispatcher none -> shared\n"));
        assert!(reaches(lab));
        a.mptm("apply").nothing_to_do();
    });
}

#[test]
fn goes_back() {
    run("dispatcher: an apply that nobody confirms", |lab, tools| {
        let (a, b) = (&lab.a, &lab.b);
        b.apply(&b.plain_file()).done();
        tools.must(a, "xdp-filter load w -m native");
        a.write(&shared_file(a));
        assert_eq!(a.mptm("apply --confirm 1").code, Some(1));
        assert_eq!(tools.programs(a, "w"), [has(FILTER_PROGRAM, 10)]);
        assert!(!a.pin.exists());
        a.mptm("apply").done();
        let mptm = tools.id(a, "w", MPTM);
        poke_meta(&a.pin, std::mem::offset_of!(mptm::kernel::abi::Meta, build), 0xee);
        assert_eq!(a.mptm("apply --confirm 1").code, Some(1));
        assert_eq!(tools.id(a, "w", MPTM), mptm, "the program that was there is back");
        filters(lab, tools);
    });
}

#[test]
fn watch_puts_it_back() {
    run("dispatcher: watch puts mptm back", |lab, tools| {
        let (a, b) = (&lab.a, &lab.b);
        b.apply(&b.plain_file()).done();
        tools.must(a, "xdp-filter load w -m native");
        a.write(&shared_file(a));
        let watch = Watch::start(lab, "");
        assert_eq!(tools.programs(a, "w"), [has(FILTER_PROGRAM, 10), has(MPTM, 50)]);
        let id = tools.id(a, "w", MPTM);
        tools.must(a, &format!("xdp-loader unload w --id {id}"));
        assert!(soon(|| tools.programs(a, "w").len() == 2), "{}", watch.log());
        filters(lab, tools);
    });
}

/// How often what is at work is killed. That nothing is left in the end, `run` sees.
const KILLS: u32 = 12;

#[test]
fn killed_at_any_moment() {
    run("dispatcher: killed at any moment", |lab, tools| {
        let (a, b) = (&lab.a, &lab.b);
        b.apply(&b.plain_file()).done();
        tools.must(a, "xdp-filter load w -m native");
        a.write(&shared_file(a));
        let begin = Instant::now();
        a.mptm("apply").done();
        let takes = begin.elapsed();
        let build = std::mem::offset_of!(mptm::kernel::abi::Meta, build);
        for round in 0..KILLS {
            // From one build to another, to nothing, and from nothing, by turns; a little later each time.
            let work = match round % 3 {
                0 => {
                    poke_meta(&a.pin, build, 0xee);
                    "apply"
                }
                1 => "down",
                _ => {
                    a.mptm("down").done();
                    "apply"
                }
            };
            let mut child = a.command(work).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // The interesting part, where programs are attached, is the second half.
            std::thread::sleep(takes / 2 + takes / 2 * round / KILLS);
            let _ = child.kill();
            let ended = child.wait().unwrap();
            let at = format!("{tools:?}, round {round}, {work}: {ended}");
            assert!(tools.programs(a, "w").contains(&has(FILTER_PROGRAM, 10)), "{at}");
            let outcome = a.mptm("apply");
            assert_eq!(outcome.code, Some(0), "{at}: {outcome:?}");
            assert_eq!(tools.programs(a, "w"), [has(FILTER_PROGRAM, 10), has(MPTM, 50)], "{at}");
            assert_eq!(tools.programs(a, "u"), [has("mptm_decap", 50)], "{at}");
            a.mptm("apply").nothing_to_do();
            assert!(reaches(lab), "{at}");
        }
    });
}

#[test]
fn what_cannot_be_joined() {
    run("dispatcher: what cannot be joined", |lab, tools| {
        let a = &lab.a;
        a.write(&shared_file(a));
        tools.must(a, "xdp-filter load w -m skb");
        a.mptm("apply").refused(&[
            "interface w has a dispatcher of libxdp, id ",
            ", in generic mode, with xdpfilt_alw_all (priority 10), and the file wants native mode\n",
            "hint: write mode = \"generic\", or load the others in native mode: `xdp-loader load -m MODE`",
        ]);
        // In generic mode they go together.
        let generic =
            shared_file(a).replace("role = \"workload\"", "role = \"workload\"\nmode = \"generic\"");
        a.apply(&generic).done();
        assert_eq!(tools.programs(a, "w"), [has(FILTER_PROGRAM, 10), has(MPTM, 50)]);
        a.mptm("down").done();
        tools.must(a, "xdp-filter unload w");

        // As bpfman does it: by a link.
        tools.must(a, "xdp-filter load w -m native");
        let id = tools.id(a, "w", FILTER_PROGRAM);
        let dispatcher = shell_in(&a.netns, "ip -j link show w");
        let dispatcher: serde_json::Value = serde_json::from_str(&dispatcher).unwrap();
        let dispatcher = dispatcher[0]["xdp"]["prog"]["id"].as_u64().unwrap();
        let program = ProgramHandle::from_prog_id(u32::try_from(dispatcher).unwrap()).unwrap();
        ip(&format!("-n {} link set w xdp off", a.netns));
        let pins = Path::new("/sys/fs/bpf/xdp").join(dispatchers().pop_last().unwrap());
        let link = link_on_w(a, &program);
        a.write(&shared_file(a));
        a.mptm("apply").refused(&[
            &format!("interface w has a dispatcher, id {dispatcher}, in native mode, with xdpfilt_alw_all (priority 10)"),
            ", attached by a link: none but the owner of the link can add to it\n",
            "hint: `bpftool link show` and `bpftool prog show` tell whose it is; take it off with the tool that attached it",
        ]);
        drop(link);
        fs::remove_dir_all(FILTER_PINS).unwrap();
        fs::remove_dir_all(pins).unwrap();
        drop(program);
        assert!(
            soon(|| ProgramHandle::from_prog_id(id.parse().unwrap()).is_err()),
            "the filter is there still"
        );

        // Not in the dispatcher that others can see.
        tools.must(a, "xdp-filter load w -m native");
        let mut elsewhere = a.command("apply");
        elsewhere.env("LIBXDP_BPFFS", "/sys/fs/bpf/nowhere");
        Outcome::of(&mut elsewhere).refused(&[
            "interface w has a dispatcher of libxdp, id ",
            ", in native mode, whose pins are missing: its programs can't be taken over\n",
            "LIBXDP_BPFFS names the bpffs that they are pinned in",
        ]);
        // Another mptm's.
        a.apply(&shared_file(a)).done();
        let other = PathBuf::from(format!("{}-other", a.pin.display()));
        let mut command = Command::new(lab::MPTM);
        command.arg("-c").arg(&a.file).arg("--pin").arg(&other).args(["-n", &a.netns, "apply"]);
        let outcome = Outcome::of(&mut command);
        assert!(
            outcome.stderr.contains("interface w has a dispatcher with mptm_encap, id ")
                && outcome.stderr.contains("of an mptm with another pin directory"),
            "{outcome:?}"
        );
    });
}

/// A link of XDP for a program, on `w` of a node.
fn link_on_w(node: &Node, program: &ProgramHandle) -> std::os::fd::OwnedFd {
    use std::os::fd::{AsFd, AsRawFd, FromRawFd};
    let netns = fs::File::open(format!("/run/netns/{}", node.netns)).unwrap();
    std::thread::scope(|scope| {
        let work = || {
            nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let ifindex = nix::net::if_::if_nametoindex("w").unwrap();
            let opts = libbpf_sys::bpf_link_create_opts {
                sz: size_of::<libbpf_sys::bpf_link_create_opts>() as _,
                ..Default::default()
            };
            let program = program.as_fd().as_raw_fd();
            // SAFETY: `opts` is initialised, says its size, and outlives the call; the descriptor is open.
            let fd = unsafe {
                libbpf_sys::bpf_link_create(program, ifindex as i32, libbpf_sys::BPF_XDP, &raw const opts)
            };
            assert!(fd >= 0, "{fd}");
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
            unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) }
        };
        scope.spawn(work).join().unwrap()
    })
}
