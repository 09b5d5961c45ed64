//! The machine changes, and what others do to the data plane.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Watch, time_until, tunnel};
use crate::lab::{self, Lab, Node, batch, ip, shell_in, soon};
use crate::refused::load_foreign;
use crate::traffic::reaches;

fn start<'a>(lab: &'a Lab, arguments: &str) -> (&'a Node, Watch<'a>) {
    lab.b.apply(&lab.b.plain_file());
    lab.a.write(&lab.a.plain_file());
    let watch = Watch::start(lab, arguments);
    assert!(reaches(lab), "{}", watch.log());
    (&lab.a, watch)
}

/// A container's veth, as it is made by the lab.
fn make_container(node: &Node) {
    let (netns, container) = (&node.netns, &node.container);
    batch(
        None,
        &format!(
            "netns add {container}\n\
             link add w netns {netns} address 02:00:00:00:02:01 type veth peer name eth0 netns {container} address \
             02:00:00:00:03:01"
        ),
    );
    batch(Some(netns), "link set w up");
    // The far end's MAC address is known: a container that asks too early asks again after a second.
    let far = "neigh replace 10.250.1.2 lladdr 02:00:00:00:03:02 dev eth0 nud permanent";
    let up = "link set lo up\naddr add 10.250.1.1/24 dev eth0\nlink set eth0 up";
    batch(Some(container), &format!("{up}\n{far}"));
}

#[test]
fn a_container_that_is_made_again() {
    lab::run("watch: a container that is made again", |lab| {
        let (node, watch) = start(lab, "--interval 3600");
        let mut times = Vec::new();
        for _ in 0..3 {
            ip(&format!("netns del {}", node.container));
            assert!(soon(|| !node.mptm("dump").stdout.contains("[interface.w]")), "{}", watch.log());
            let start = Instant::now();
            make_container(node);
            assert!(reaches(lab), "{}", watch.log());
            times.push(start.elapsed());
            watch.settle();
        }
        println!("made and reached in {times:?}");
        // Any may take longer on a busy machine; but not because watch has slept.
        assert!(times.iter().any(|took| *took < Duration::from_secs(1)), "{times:?}\n{}", watch.log());
        // At once, so that nobody may have seen it gone.
        ip(&format!("netns del {}", node.container));
        let gone = || !node.shell("ip -o link").contains(" w@");
        assert!(soon(gone), "something keeps the namespace alive");
        make_container(node);
        assert!(reaches(lab), "{}", watch.log());
        watch.says("interface w: there is no such device; left out until that has changed");
    });
}

#[test]
fn what_is_missing_does_not_stop_the_others() {
    lab::run("watch: what is missing does not stop the others", |lab| {
        lab.b.apply(&lab.b.plain_file());
        let node = &lab.a;
        let more = "\n[interface.later]\nrole = \"workload\"\naddresses = \"peer\"\n\n\
                    [interface.never]\nrole = \"underlay\"\n";
        let far = "\nunderlay = \"u\"\n";
        let off = tunnel("off", 9) + "underlay = \"never\"\n";
        node.write(&(node.plain_file() + far + more + &off));
        let watch = Watch::start_unsettled(lab, "--interval 3600");
        assert!(soon(|| reaches(lab)), "{}", watch.log());
        watch.says("warning: machine: interface later: there is no such device; left out");
        watch.says("interface never: ");
        let dump = node.mptm("dump").stdout;
        assert!(dump.contains("[tunnel.far]") && !dump.contains("[tunnel.off]"), "{dump}");

        node.ip(&format!("link add later type veth peer name eth1 netns {}", node.container));
        batch(Some(&node.container), "addr add 10.250.1.77/24 dev eth1\nlink set eth1 up");
        assert!(soon(|| node.mptm("get 10.250.1.77 10.250.1.2").code == Some(0)), "{}", watch.log());
        shell_in(&node.container, "ip addr add 10.250.1.78/24 dev eth1");
        assert!(soon(|| node.mptm("get 10.250.1.78 10.250.1.2").code == Some(0)), "{}", watch.log());
        shell_in(&node.container, "ip addr del 10.250.1.77/24 dev eth1");
        assert!(soon(|| node.mptm("get 10.250.1.77 10.250.1.2").code != Some(0)), "{}", watch.log());
        assert!(
            watch.log().contains("machine: + route default 10.250.1.78: interface later"),
            "{}",
            watch.log()
        );
    });
}

#[test]
fn outer_changes() {
    lab::run("watch: outer changes", |lab| {
        let (node, watch) = start(lab, "--interval 3600");
        // Another next hop.
        node.ip("neigh replace 10.30.30.2 lladdr 02:00:00:00:01:99 dev u nud permanent");
        watch.says("machine: ~ tunnel far: remote_mac 02:00:00:00:01:02 -> 02:00:00:00:01:99");
        node.ip("neigh replace 10.30.30.2 lladdr 02:00:00:00:01:02 dev u nud permanent");
        watch.says("-> 02:00:00:00:01:02");
        // By a router.
        node.ip("neigh replace 10.30.30.3 lladdr 02:00:00:00:01:77 dev u nud permanent");
        node.ip("route add 10.30.30.2/32 via 10.30.30.3 dev u");
        watch.says("-> 02:00:00:00:01:77");
        node.ip("route del 10.30.30.2/32");
        // The device's own.
        node.ip("link set u mtu 1400");
        watch.says("mtu 1450 -> 1350");
        node.ip("link set u mtu 1500");
        watch.says("mtu 1350 -> 1450");
        node.ip("link set w address 02:00:00:00:02:55");
        watch.says("machine: ~ interface w: mac 02:00:00:00:02:01 -> 02:00:00:00:02:55");
        shell_in(&node.container, "ip link set eth0 address 02:00:00:00:03:55");
        watch.says("-> 02:00:00:00:03:55");
        // A route that is away for a moment takes nothing with it.
        node.ip("addr del 10.30.30.1/24 dev u");
        watch.says("there is no route to 10.30.30.2 by u now; its last known way stays");
        assert!(node.mptm("dump").stdout.contains("[tunnel.far]"));
        node.ip("addr add 10.30.30.1/24 dev u");
        node.ip("neigh replace 10.30.30.2 lladdr 02:00:00:00:01:02 dev u nud permanent");
        watch.settle();
        assert!(!watch.log().contains("- tunnel") && !watch.log().contains("error"), "{}", watch.log());
        assert!(reaches(lab));
    });
}

#[test]
fn a_neighbour_that_answers_later() {
    lab::run("watch: a neighbour that answers later", |lab| {
        lab.b.apply(&lab.b.plain_file());
        lab.b.ip("link set u down");
        let node = &lab.a;
        node.ip("neigh del 10.30.30.2 dev u");
        node.write(&node.plain_file());
        let watch = Watch::start_unsettled(lab, "--interval 3600");
        watch.says("next hop 10.30.30.2 on u has not answered yet");
        lab.b.ip("link set u up");
        watch.says("machine: ~ tunnel far: remote_mac unknown -> 02:00:00:00:01:02");
        lab.b.ip("neigh replace 10.30.30.1 lladdr 02:00:00:00:01:01 dev u nud permanent");
        assert!(reaches(lab), "{}", watch.log());
    });
}

#[test]
fn what_others_do() {
    lab::run("watch: what others do", |lab| {
        let (node, watch) = start(lab, "--interval 1");
        let bpftool = |arguments: &str| {
            let output = Command::new("bpftool").args(arguments.split_whitespace()).output().unwrap();
            assert!(output.status.success(), "bpftool {arguments}: {output:?}");
        };
        // The kernel tells of this one.
        shell_in(&node.container, "ethtool -K eth0 tx on >/dev/null");
        watch.says("drift: ~ setting ");
        // And of these it does not.
        let devices = node.pin.join("maps/devices");
        bpftool(&format!("map delete pinned {} key 0 0 0 0", devices.display()));
        watch.says("drift: ~ interface ");
        bpftool(&format!("link detach pinned {}", node.pin.join("links/w").display()));
        watch.says("drift: ~ program w");
        watch.settle();
        assert!(reaches(lab));
    });
}

#[test]
fn a_program_of_somebody_else() {
    lab::run("watch: a program of somebody else", |lab| {
        let (node, watch) = start(lab, "--interval 1");
        let pin = Path::new("/sys/fs/bpf").join(format!("{}-foreign", lab.tag));
        let id = load_foreign(&pin);
        let pin = pin.display();
        // In one breath, or the watch would have attached its own again.
        let links = node.pin.join("links/w");
        let swap = format!(
            "nsenter --net=/run/netns/{netns} bpftool link detach pinned {}\n\
             until nsenter --net=/run/netns/{netns} bpftool net attach xdpdrv pinned {pin} dev w; do \
             nsenter --net=/run/netns/{netns} bpftool link detach pinned {}; done",
            links.display(),
            links.display(),
            netns = node.netns
        );
        let output = Command::new("sh").args(["-c", &swap]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        watch.says(&format!(
            "interface w has an XDP program that is not mptm's: somebodys, id {id}, in native mode"
        ));
        watch.says("- program w");
        std::thread::sleep(Duration::from_millis(2500));
        assert!(node.shell("ip -d link show w").contains(&format!("prog/xdp id {id} ")));
        assert_eq!(watch.log().matches("somebodys").count(), 1, "{}", watch.log());
        // Tunnels and routes stay, and what comes in goes on.
        let dump = node.mptm("dump").stdout;
        assert!(dump.contains("[interface.w]") && dump.contains("[tunnel.far]"), "{dump}");
        node.shell("ip link set w xdpdrv off");
        watch.says("+ program w: runs mptm_encap, mode native");
        assert!(reaches(lab));
        std::fs::remove_file(pin.to_string()).unwrap();
    });
}

#[test]
fn idle() {
    lab::run("watch: idle", |lab| {
        let (_, watch) = start(lab, "--interval 3600");
        watch.settle();
        // New devices look for their IPv6 addresses' doubles for two seconds.
        std::thread::sleep(Duration::from_secs(3));
        // On a busy machine they may still be at it.
        let work: Vec<_> = std::iter::repeat_with(|| watch.work_in(5)).take(3).collect();
        assert!(work.contains(&(0, Duration::ZERO)), "{work:?}\n{}", watch.log());
        drop(watch);
        // With a full pass each second, next to nothing.
        let watch = Watch::start(lab, "--interval 1");
        let (wakes, time) = watch.work_in(5);
        assert!(wakes < 500 && time < Duration::from_secs(2), "{wakes} {time:?}");
        println!("5 full passes: {wakes} wakeups, {time:?} of CPU time");
    });
}

#[test]
fn patterns() {
    lab::run("watch: patterns", |lab| {
        lab.b.apply(&lab.b.plain_file());
        let node = &lab.a;
        let underlay = node.plain_file().split_once("[interface.w]").unwrap().0.to_owned();
        let tunnel = node.plain_file().split_once("[tunnel.far]").unwrap().1.to_owned();
        let pattern = "[interface.\"w*\"]\nrole = \"workload\"\naddresses = \"peer\"\n\n";
        node.write(&format!("{underlay}{pattern}[tunnel.far]{tunnel}"));
        // What is there, as `apply` takes it.
        let done = node.mptm("apply").done().stdout;
        assert!(
            done.contains("+ interface w: ") && done.contains("+ route default 10.250.1.1: interface w"),
            "{done}"
        );
        assert!(reaches(lab));
        node.mptm("apply").nothing_to_do();
        // And what comes, as `watch` does.
        let watch = Watch::start(lab, "--interval 3600");
        let mut times = Vec::new();
        for number in 2..5 {
            node.ip(&format!("link add w{number} type veth peer name eth{number} netns {}", node.container));
            node.ip(&format!("link set w{number} up"));
            let address = format!("10.250.1.{}", 100 + number);
            let up = format!("addr add {address}/24 dev eth{number}\nlink set eth{number} up");
            batch(Some(&node.container), &up);
            times.push(time_until(|| node.mptm(&format!("get {address} 10.250.1.2")).code == Some(0)));
        }
        assert!(times.iter().any(|took| *took < Duration::from_secs(1)), "{times:?}\n{}", watch.log());
        node.ip("link set w2 down");
        node.ip("link set w2 name other");
        watch.says("- interface w2");
        node.ip("link del w3");
        watch.says("- interface w3");
        watch.settle();
        let log = watch.stop();
        assert!(!log.contains("left out") && !log.contains("drift"), "{log}");
        assert!(reaches(lab));
    });
}
