//! The real network against the kernel: needs root, `ip`, `ethtool` and `unshare`.

#[path = "network/devices.rs"]
mod devices;
#[path = "common/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use devices::{ethtool_features, hold_and_unname, link, named, network};
use mptm::config::model::{Mode, NetnsRef};
use mptm::kernel::{KernelError, Netns, Network, Route, Setting};
use world::{ip, soon, veth};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What an error says, its cause and its hint included.
fn words(error: &KernelError) -> String {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    format!("{error}: {cause} ({})", error.hint.as_deref().unwrap_or_default())
}

#[test]
fn links() {
    world::run("links", |world, home| {
        let far = world.netns("far");
        veth(home, "ua", &far, "ub");
        ip(&format!("-n {home} link set ua address 02:00:5e:10:00:01 mtu 1400"));
        ip(&format!("-n {home} link add br0 type bridge"));
        ip(&format!("-n {home} link property add dev ua altname another-name"));
        let network = network();

        let ua = link(&network, "ua");
        assert_eq!(&*ua.name, "ua");
        assert_eq!(ua.kind.as_deref(), Some("veth"));
        assert_eq!(ua.mac.unwrap().to_string(), "02:00:5e:10:00:01");
        assert_eq!((ua.mtu, ua.up, ua.xdp), (1400, true, None));
        assert_eq!(network.link_at(&None, ua.ifindex).unwrap(), Some(ua.clone()));
        let ub = network.link(&named(&far), "ub").unwrap().unwrap();
        assert_eq!((ua.peer_ifindex, ub.peer_ifindex), (Some(ub.ifindex), Some(ua.ifindex)));
        assert_eq!(network.link_at(&named(&far), ub.ifindex).unwrap(), Some(ub));

        let br0 = link(&network, "br0");
        assert_eq!((br0.kind.as_deref(), br0.up, br0.peer_ifindex), (Some("bridge"), false, None));
        for (add, kind) in [
            ("link add k0 type vxlan id 7 dstport 4789 remote 192.0.2.1 dev ua", "vxlan"),
            ("tuntap add k0 mode tap", "tun"),
            ("link add k0 type veth", "veth"),
        ] {
            ip(&format!("-n {home} {add}"));
            // With a bridge above it, there is more to tell.
            ip(&format!("-n {home} link set k0 master br0"));
            assert_eq!(link(&network, "k0").kind.as_deref(), Some(kind));
            ip(&format!("-n {home} link del k0"));
        }
        let lo = link(&network, "lo");
        assert_eq!((lo.kind, lo.mac, lo.up), (None, None, true));

        for name in ["ub", "nowhere", "", "a-name-of-sixteen", "another-name", "ua/../lo"] {
            assert_eq!(network.link(&None, name).unwrap(), None, "{name}");
        }
        assert_eq!(network.link_at(&None, 0).unwrap(), None);
        assert_eq!(network.link_at(&None, 99999).unwrap(), None);
    });
}

#[test]
fn attached_programs() {
    world::run("attached programs", |world, home| {
        let far = world.netns("far");
        veth(home, "ua", &far, "ub");
        let network = network();
        let directory = tempfile::tempdir().unwrap();
        let object = directory.path().join("pass.o");
        let mut clang = Command::new("clang")
            .args(["-O2", "-target", "bpf", "-x", "c", "-c", "-", "-o"])
            .arg(&object)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let program = br#"__attribute__((section("xdp"))) int pass(void *c) { return 2; }
            char _license[] __attribute__((section("license"))) = "GPL";"#;
        clang.stdin.take().unwrap().write_all(program).unwrap();
        assert!(clang.wait().unwrap().success());
        for (how, mode) in [("xdpgeneric", Mode::Generic), ("xdpdrv", Mode::Native)] {
            ip(&format!("-n {home} link set ua {how} obj {} sec xdp", object.display()));
            let attached = link(&network, "ua").xdp.unwrap();
            assert_eq!(attached.mode, mode);
            assert_ne!(attached.program_id, 0);
            ip(&format!("-n {home} link set ua {how} off"));
            assert_eq!(link(&network, "ua").xdp, None);
        }
    });
}

#[test]
fn addresses() {
    world::run("addresses", |world, home| {
        let far = world.netns("far");
        veth(home, "ua", &far, "ub");
        for address in ["10.0.0.2/24", "10.0.0.1/24", "2001:db8::1/64 nodad", "fd00::1/64 nodad"] {
            ip(&format!("-n {home} address add {address} dev ua"));
        }
        // Not known to be unique yet, which takes more than a second.
        ip(&format!("-n {home} address add 2001:db8::2/64 dev ua"));
        ip(&format!("-n {home} address add 10.9.0.1 peer 10.9.1.0/24 dev ua"));
        ip(&format!("-n {far} address add 10.0.0.3/24 dev ub"));
        let network = network();
        let texts = |netns: &Netns, ifindex| -> Vec<String> {
            network.addresses(netns, ifindex).unwrap().iter().map(ToString::to_string).collect()
        };
        let ua = link(&network, "ua").ifindex;
        assert_eq!(
            texts(&None, ua),
            ["10.0.0.1/24", "10.0.0.2/24", "10.9.0.1/32", "2001:db8::1/64", "fd00::1/64"]
        );
        assert!(soon(|| texts(&None, ua).contains(&"2001:db8::2/64".into())));
        let ub = network.link(&named(&far), "ub").unwrap().unwrap().ifindex;
        assert_eq!(texts(&named(&far), ub), ["10.0.0.3/24"]);
        assert!(texts(&None, 99999).is_empty());
    });
}

#[test]
fn peers() {
    world::run("peers", |world, home| {
        let network = network();
        ip(&format!("-n {home} link add br0 type bridge"));
        assert_eq!(network.find_peer(&link(&network, "br0")).unwrap(), None);

        ip(&format!("-n {home} link add sa type veth peer name sb"));
        let (netns, peer) = network.find_peer(&link(&network, "sa")).unwrap().unwrap();
        assert_eq!((netns, peer), (None, link(&network, "sb")));

        let far = world.netns("far");
        veth(home, "na", &far, "nb");
        let (netns, peer) = network.find_peer(&link(&network, "na")).unwrap().unwrap();
        assert_eq!((netns, &*peer.name), (named(&far), "nb"));
        // Once more, from what is remembered.
        assert_eq!(network.find_peer(&link(&network, "na")).unwrap().unwrap().1, peer);

        let pid = world.process_in_anonymous_netns();
        ip(&format!("-n {home} link add pa type veth peer name pb netns {pid}"));
        let (netns, peer) = network.find_peer(&link(&network, "pa")).unwrap().unwrap();
        assert_eq!((netns, &*peer.name), (Some(NetnsRef::Pid(pid)), "pb"));
        assert_eq!(network.link(&Some(NetnsRef::Pid(pid)), "pb").unwrap(), Some(peer));

        // It gets a name: then that is what it is called.
        let name = format!("{far}-late");
        ip(&format!("netns attach {name} {pid}"));
        let found = network.find_peer(&link(&network, "pa"));
        ip(&format!("netns del {name}"));
        assert_eq!(found.unwrap().unwrap().0, named(&name));
        assert_eq!(network.find_peer(&link(&network, "pa")).unwrap().unwrap().0, Some(NetnsRef::Pid(pid)));

        let hidden = world.netns("hidden");
        veth(home, "ha", &hidden, "hb");
        assert!(network.find_peer(&link(&network, "ha")).unwrap().is_some());
        let held = hold_and_unname(&hidden);
        assert_eq!(network.find_peer(&link(&network, "ha")).unwrap(), None);
        drop(held);

        // By cookie: this one, one that has a name, one that only a process has, and none.
        for netns in [None, named(&far), Some(NetnsRef::Pid(pid))] {
            let cookie = network.netns_cookie(&netns).unwrap();
            assert_eq!(network.find_netns(cookie).unwrap(), Some(netns));
        }
        assert_eq!(network.find_netns(u64::MAX).unwrap(), None);
        // Under another name, it is looked for again.
        let cookie = network.netns_cookie(&named(&far)).unwrap();
        ip(&format!("netns attach {name} {pid}"));
        let of_pid = network.netns_cookie(&named(&name)).unwrap();
        let found = devices::network().find_netns(of_pid);
        ip(&format!("netns del {name}"));
        assert_eq!(found.unwrap(), Some(named(&name)));
        hold_and_unname(&far);
        assert_eq!(network.find_netns(cookie).unwrap(), None);
        assert_eq!(network.find_netns(of_pid).unwrap(), Some(Some(NetnsRef::Pid(pid))));

        // Once let go of, nothing that was asked keeps the namespace of a process that is gone.
        world.end(pid);
        network.let_go();
        assert!(soon(|| network.link(&None, "pa").unwrap().is_none()));
    });
}

#[test]
fn routes() {
    world::run("routes", |world, home| {
        let far = world.netns("far");
        veth(home, "ua", &far, "ub");
        veth(home, "va", &far, "vb");
        for line in [
            "address add 192.0.2.1/24 dev ua",
            "address add 2001:db8::1/64 dev ua nodad",
            "address add 198.51.100.1/24 dev va",
            "address add 2001:db8:1::1/64 dev va nodad",
            "route add 203.0.113.0/24 via 192.0.2.9",
            "route add 203.0.114.0/24 via inet6 fe80::9 dev ua",
            "route add 2001:db8:f::/64 via 2001:db8::9",
            "-6 route add default via 2001:db8::9 metric 100",
            "-6 route add default via 2001:db8:1::9 metric 200",
            "route add blackhole 203.0.115.0/24",
            "route add unreachable 203.0.116.0/24",
            "route add prohibit 203.0.117.0/24",
            "-6 route add blackhole 2001:db8:e::/64",
            "-6 route add prohibit 2001:db8:d::/64",
        ] {
            ip(&format!("-n {home} {line}"));
        }
        let network = network();
        let (ua, va) = (link(&network, "ua").ifindex, link(&network, "va").ifindex);
        let route = |to: &str, from: Option<&str>, ifindex| {
            let answer = network.route(address(to), from.map(address), ifindex).unwrap();
            answer.map(|Route { source, next_hop, .. }| (source.to_string(), next_hop.to_string()))
        };
        let is = |source: &str, next_hop: &str| Some((source.to_string(), next_hop.to_string()));

        // What routes say of the path.
        for (to, line, mtu) in [
            ("203.0.118.7", "route add 203.0.118.0/24 via 192.0.2.9 mtu 1400", Some(1400)),
            ("2001:db8:c::7", "-6 route add 2001:db8:c::/64 via 2001:db8::9 mtu lock 1390", Some(1390)),
            ("203.0.113.7", "route show", None),
        ] {
            ip(&format!("-n {home} {line}"));
            assert_eq!(network.route(address(to), None, ua).unwrap().unwrap().mtu, mtu, "{to}");
        }
        // On the link, by a gateway, by a gateway of the other family.
        assert_eq!(route("192.0.2.7", None, ua), is("192.0.2.1", "192.0.2.7"));
        assert_eq!(route("203.0.113.7", None, ua), is("192.0.2.1", "192.0.2.9"));
        assert_eq!(route("203.0.114.7", None, ua), is("192.0.2.1", "fe80::9"));
        assert_eq!(route("2001:db8::7", None, ua), is("2001:db8::1", "2001:db8::7"));
        assert_eq!(route("2001:db8:f::7", None, ua), is("2001:db8::1", "2001:db8::9"));
        // From an address, even another device's.
        assert_eq!(route("203.0.113.7", Some("192.0.2.1"), ua), is("192.0.2.1", "192.0.2.9"));
        assert_eq!(route("203.0.113.7", Some("198.51.100.1"), ua), is("198.51.100.1", "192.0.2.9"));
        assert_eq!(route("2001:db8:f::7", Some("2001:db8:1::1"), ua), is("2001:db8:1::1", "2001:db8::9"));
        // By the device asked for, though another would be preferred.
        assert_eq!(route("2001:db8:9::7", None, va), is("2001:db8:1::1", "2001:db8:1::9"));
        assert_eq!(route("2001:db8:9::7", Some("2001:db8:1::1"), va), is("2001:db8:1::1", "2001:db8:1::9"));
        // By another device, by none, and by what is no device.
        for (to, ifindex) in
            [("192.0.2.7", va), ("203.0.113.7", va), ("203.0.120.7", ua), ("192.0.2.7", 99999)]
        {
            assert_eq!(route(to, None, ifindex), None, "{to}");
        }
        assert_eq!(route("203.0.120.7", Some("192.0.2.1"), ua), None);
        assert_eq!(route("2001:db8:9::7", None, 99999), None);
        // What is no unicast route.
        for to in ["192.0.2.1", "192.0.2.255", "203.0.115.7", "203.0.116.7", "203.0.117.7", "224.0.0.5"] {
            assert_eq!(route(to, None, ua), None, "{to}");
            assert_eq!(route(to, Some("192.0.2.1"), ua), None, "{to}");
        }
        for to in ["2001:db8::1", "ff02::5"] {
            assert_eq!(route(to, None, ua), None, "{to}");
        }
        for to in ["2001:db8::1", "2001:db8:e::7", "2001:db8:d::7", "ff02::5"] {
            assert_eq!(route(to, Some("2001:db8::1"), ua), None, "{to}");
        }
        // A source that is nobody's.
        for (to, from) in
            [("192.0.2.7", "192.0.2.77"), ("203.0.120.7", "192.0.2.77"), ("2001:db8::7", "2001:db8::77")]
        {
            let error = network.route(address(to), Some(address(from)), ua).unwrap_err();
            let words = words(&error);
            assert!(words.contains(to) && words.contains(&format!("{from} must be an address")), "{words}");
        }
        assert!(network.route(address("192.0.2.7"), Some(address("2001:db8::1")), ua).is_err());
        ip(&format!("-n {home} link set ua down"));
        assert_eq!(route("192.0.2.7", None, ua), None);
    });
}

#[test]
fn neighbours() {
    world::run("neighbours", |world, home| {
        let far = world.netns("far");
        veth(home, "ua", &far, "ub");
        ip(&format!("-n {far} link set ub address 02:00:5e:10:00:02"));
        for (netns, device, host) in [(home, "ua", 1), (&far, "ub", 2)] {
            ip(&format!("-n {netns} address add 192.0.2.{host}/24 dev {device}"));
            ip(&format!("-n {netns} address add 2001:db8::{host}/64 dev {device} nodad"));
        }
        let network = network();
        let ua = link(&network, "ua").ifindex;
        let mac = |to: &str| network.neighbour(ua, address(to)).unwrap().map(|mac| mac.to_string());
        assert_eq!(mac("192.0.2.7"), None);
        assert_eq!(mac("2001:db8::7"), None);
        assert_eq!(network.neighbour(99999, address("192.0.2.7")).unwrap(), None);

        ip(&format!("-n {home} neighbour add 192.0.2.7 lladdr 02:00:5e:10:00:07 dev ua nud permanent"));
        ip(&format!("-n {home} neighbour add 2001:db8::7 lladdr 02:00:5e:10:00:07 dev ua nud permanent"));
        ip(&format!("-n {home} neighbour add 192.0.2.8 lladdr 02:00:5e:10:00:08 dev ua nud stale"));
        assert_eq!(mac("192.0.2.8").unwrap(), "02:00:5e:10:00:08");

        let all = ["192.0.2.2", "2001:db8::2", "192.0.2.7", "2001:db8::7", "192.0.2.77"];
        network.solicit(&all.map(|to| (ua, address(to)))).unwrap();
        for to in ["192.0.2.2", "2001:db8::2"] {
            assert!(soon(|| mac(to).as_deref() == Some("02:00:5e:10:00:02")), "{to}");
        }
        // What was permanent still is, and who is not there is not found.
        for to in ["192.0.2.7", "2001:db8::7"] {
            assert_eq!(mac(to).unwrap(), "02:00:5e:10:00:07");
        }
        let permanent =
            Command::new("ip").args(["-n", home, "neighbour", "show", "nud", "permanent"]).output();
        assert_eq!(String::from_utf8(permanent.unwrap().stdout).unwrap().lines().count(), 2);
        assert_eq!(mac("192.0.2.77"), None);

        let error = network.solicit(&[(99999, address("192.0.2.2"))]).unwrap_err();
        assert!(words(&error).contains("192.0.2.2 of device 99999"), "{error}");
    });
}

#[test]
fn features() {
    world::run("features", |world, home| {
        let far = world.netns("far");
        veth(home, "ua", &far, "ub");
        let mut network = network();
        let features = network.features(&None, "ua").unwrap();
        let mut compared = 0;
        for (name, on, changeable) in ethtool_features("ua") {
            // The others are ethtool's own names for several at once.
            if let Some(feature) = features.get(&name) {
                assert_eq!((feature.active, feature.changeable), (on, changeable), "{name}");
                compared += 1;
            }
        }
        assert!(compared > 30, "{compared} of {}", features.len());

        let inside = named(&far);
        for (name, before) in [("tx-checksum-ip-generic", 1), ("rx-gro", 0)] {
            let setting = Setting::Feature(name.into());
            assert_eq!(network.setting(&inside, "ub", &setting).unwrap(), before, "{name}");
            for value in [1 - before, before] {
                network.set(&inside, "ub", &setting, value).unwrap();
                assert_eq!(network.setting(&inside, "ub", &setting).unwrap(), value, "{name}");
                assert_eq!(network.features(&inside, "ub").unwrap()[name].active, value == 1, "{name}");
            }
        }

        let (fixed, _) = features.iter().find(|(_, f)| !f.changeable && !f.active).unwrap();
        let setting = Setting::Feature(fixed.as_str().into());
        let error = words(&network.set(&inside, "ub", &setting, 1).unwrap_err());
        for word in [fixed.as_str(), "ub", &far, "to on", "keeps it off"] {
            assert!(error.contains(word), "{word}: {error}");
        }
        let unknown = Setting::Feature("tx-everything".into());
        let error = words(&network.setting(&None, "ua", &unknown).unwrap_err());
        assert!(error.contains("tx-everything") && error.contains("ua"), "{error}");
        let error = words(&network.features(&None, "gone").unwrap_err());
        assert!(error.contains("gone") && error.contains("No such device"), "{error}");
    });
}

#[test]
fn settings() {
    world::run("settings", |world, home| {
        let far = world.netns("far");
        veth(home, "ua", &far, "u.5");
        let mut network = network();
        for (netns, device) in [(None, "ua"), (named(&far), "u.5")] {
            for (setting, before, after) in [
                (Setting::Mtu, 1500, 1450),
                (Setting::Promisc, 0, 1),
                (Setting::Sysctl("accept_local".into()), 0, 1),
                (Setting::Sysctl6("accept_redirects".into()), 1, 0),
            ] {
                assert_eq!(network.setting(&netns, device, &setting).unwrap(), before, "{setting:?}");
                for value in [after, after, before] {
                    network.set(&netns, device, &setting, value).unwrap();
                    assert_eq!(network.setting(&netns, device, &setting).unwrap(), value, "{setting:?}");
                }
            }
        }
        // A sysctl of the far namespace is not that of this one.
        let accept_local = Setting::Sysctl("accept_local".into());
        network.set(&named(&far), "lo", &accept_local, 1).unwrap();
        assert_eq!(network.setting(&None, "lo", &accept_local).unwrap(), 0);

        for (setting, value, wanted) in [
            (Setting::Mtu, 70000, "the MTU of ua to 70000: Invalid argument (os error 22): mtu greater"),
            (Setting::Mtu, 1 << 40, "the MTU of ua to 1099511627776: it does not fit"),
            (Setting::Sysctl("accept_local".into()), 1 << 40, "sysctl accept_local of ua to 1099511627776: "),
            (Setting::Sysctl("no_such".into()), 1, "sysctl no_such of ua to 1: No such file"),
            (Setting::Sysctl("../x".into()), 1, "is no name"),
        ] {
            let error = words(&network.set(&None, "ua", &setting, value).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
        for setting in [Setting::Mtu, Setting::Promisc, accept_local] {
            assert!(network.setting(&None, "gone", &setting).is_err(), "{setting:?}");
            assert!(network.set(&None, "gone", &setting, 1).is_err(), "{setting:?}");
        }
    });
}

#[test]
fn namespaces() {
    world::run("namespaces", |world, home| {
        let far = world.netns("far");
        let network = network();
        let cookie = |netns| network.netns_cookie(&netns).unwrap();
        let (own, other) = (cookie(None), cookie(named(&far)));
        assert_ne!(own, other);
        assert_eq!(own, cookie(named(home)));
        assert_eq!(other, cookie(Some(NetnsRef::Path(format!("/run/netns/{far}").into()))));

        // Under the same name, another namespace.
        veth(home, "ua", &far, "ub");
        assert!(network.link(&named(&far), "ub").unwrap().is_some());
        assert!(network.find_peer(&link(&network, "ua")).unwrap().is_some());
        ip(&format!("netns del {far}"));
        ip(&format!("netns add {far}"));
        // The old one lives on for as long as its socket is kept; it is not taken for the new one.
        assert!(network.link(&None, "ua").unwrap().is_some());
        assert_eq!(network.link(&named(&far), "ub").unwrap(), None);
        assert_eq!(network.find_peer(&link(&network, "ua")).unwrap(), None);
        assert_ne!(cookie(named(&far)), other);
        network.let_go();
        assert!(soon(|| network.link(&None, "ua").unwrap().is_none()), "the old one lives on");
        veth(home, "ua", &far, "uc");
        let (netns, peer) = network.find_peer(&link(&network, "ua")).unwrap().unwrap();
        assert_eq!((netns, &*peer.name), (named(&far), "uc"));

        for (netns, wanted) in [
            (NetnsRef::Name("mptmt-nowhere".into()), "mptmt-nowhere: No such file or directory"),
            (NetnsRef::Name("mptmt-nowhere".into()), "`ip netns list`"),
            (NetnsRef::Pid(i32::MAX as u32), "process 2147483647 is gone"),
            (NetnsRef::Path("/dev/null".into()), "/dev/null is not the file of a network namespace"),
        ] {
            let error = words(&network.link(&Some(netns), "lo").unwrap_err());
            assert!(error.starts_with("cannot enter network namespace") && error.contains(wanted), "{error}");
        }
    });
}

#[test]
fn more_namespaces_than_sockets_are_kept() {
    world::run("more namespaces than sockets are kept", |world, _| {
        let network = network();
        let all: Vec<Netns> = (0..530).map(|number| named(&world.netns(&format!("m{number}")))).collect();
        let ask = || all.iter().map(|netns| network.netns_cookie(netns).unwrap()).collect::<Vec<_>>();
        // Other tests of this process have a few, too.
        let sockets = || {
            let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
            all.filter_map(|fd| fs::read_link(fd.path()).ok())
                .filter(|to| to.to_string_lossy().starts_with("socket:"))
                .count()
        };
        let before = sockets();
        let first = ask();
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert_eq!(ask(), first);
        let kept = sockets() - before;
        assert!((480..525).contains(&kept), "{kept}");
        network.let_go();
        assert!(sockets() < before + 100);
    });
}

#[test]
fn without_privilege() {
    world::run("without privilege", |world, _| {
        let far = world.netns("far");
        let mut network = network();
        // Of this thread alone: the library's function would do it to all.
        // SAFETY: it takes three numbers.
        let dropped = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, -1) };
        assert_eq!(dropped, 0);
        let set = words(&network.set(&None, "lo", &Setting::Mtu, 1400).unwrap_err());
        let enter = words(&network.link(&named(&far), "lo").unwrap_err());
        // SAFETY: as above; it gives back what the saved id still allows.
        let back = unsafe { libc::syscall(libc::SYS_setresuid, 0, 0, -1) };
        assert_eq!(back, 0);
        assert!(set.contains("cannot set the MTU of lo to 1400") && set.contains("CAP_NET_ADMIN"), "{set}");
        assert!(enter.contains("cannot enter") && enter.contains("CAP_SYS_ADMIN"), "{enter}");
    });
}
