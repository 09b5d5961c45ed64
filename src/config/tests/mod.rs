//! Properties: what is printed reads back, and nothing that a file can hold makes the reader panic.

mod keys;
mod tunnels;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use super::model::{Addresses, Config, Interface, Location, Manage, Mode, Name, NetnsRef, PeerSpec, Role};
use super::{Source, parse, print};
use crate::mac::MacAddr;
use tunnels::tunnel;

fn nowhere() -> Location {
    Location { file: Arc::from(""), line: 0, device: None }
}

/// A network of a number's own, so that no two overlap; of one of the families.
fn own_net(number: usize, len: u8, is_ipv6: bool) -> IpNet {
    let address = u32::try_from(0x0a00_0000 + number * 256).unwrap();
    if is_ipv6 {
        let address = u128::from(0xfd00_0000_u32) << 96 | u128::from(address);
        IpNet::V6(Ipv6Net::new(address.into(), len + 96).unwrap())
    } else {
        IpNet::V4(Ipv4Net::new(address.into(), len).unwrap())
    }
}

fn own_nets(number: usize, lens: &[(u8, bool)]) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = lens.iter().map(|(len, is_ipv6)| own_net(number, *len, *is_ipv6)).collect();
    nets.sort();
    nets.dedup();
    nets
}

fn mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 5]>().prop_map(|[b, c, d, e, f]| MacAddr([2, b, c, d, e, f]))
}

fn segment() -> impl Strategy<Value = Name> {
    prop::sample::select(vec!["default", "blue", "a\"b\\c", "ü.1"]).prop_map(Name::from)
}

fn lens() -> impl Strategy<Value = Vec<(u8, bool)>> {
    prop::collection::vec((24..=32_u8, any::<bool>()), 1..4)
}

fn peer(number: usize) -> impl Strategy<Value = PeerSpec> {
    let name = Name::from(format!("peer{number}"));
    let netns = prop_oneof![
        Just(None),
        (1..u32::MAX).prop_map(|pid| Some(NetnsRef::Pid(pid))),
        "[a-z\"\\\\ü]{1,20}".prop_map(|name| Some(NetnsRef::Name(name.into()))),
        "/[a-z/\"]{0,20}".prop_map(|path| Some(NetnsRef::Path(path.into()))),
    ];
    prop_oneof![
        Just(PeerSpec::Find),
        Just(PeerSpec::None),
        netns.prop_map(move |netns| PeerSpec::At { netns, name: name.clone() }),
    ]
}

fn interface(number: usize) -> impl Strategy<Value = (Name, Interface)> {
    let gateway = prop::sample::subsequence(vec!["192.0.2.1", "192.0.2.2", "2001:db8::1", "fe80::1"], 0..4)
        .prop_map(|texts| texts.into_iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>());
    let workload = (segment(), lens(), any::<bool>(), prop::option::of(mac()), gateway).prop_map(
        move |(segment, lens, peer, mac, gateway)| {
            let addresses = if peer { Addresses::Peer } else { Addresses::List(own_nets(number, &lens)) };
            Role::Workload { segment, addresses, mac, gateway }
        },
    );
    let role = prop_oneof![
        Just(Role::Underlay),
        workload,
        Just(Role::Redirect { to: "underlay".into() }),
        Just(Role::Pass)
    ];
    let mode = prop::sample::select(vec![Mode::Native, Mode::Generic, Mode::Offload]);
    let manage = any::<[bool; 4]>().prop_map(|[offloads, mtu, promisc, sysctls]| Manage {
        offloads,
        mtu,
        promisc,
        sysctls,
    });
    let name = prop::sample::select(vec!["", ".", "\"", "\\", "ü", "-", "_"]);
    let all = (role, mode, any::<bool>(), peer(number), manage, name);
    all.prop_map(move |(role, mode, dispatcher, peer, manage, name)| {
        let name = Name::from(format!("if{number}{name}x"));
        let dispatcher = dispatcher && mode != Mode::Offload;
        (name, Interface { at: nowhere(), role, mode, dispatcher, peer, manage })
    })
}

fn config() -> impl Strategy<Value = Config> {
    let interfaces: Vec<_> = (1..5).map(interface).collect();
    let tunnels: Vec<_> = (0..6).map(tunnel).collect();
    (interfaces, tunnels).prop_map(|(interfaces, tunnels)| {
        let mut interfaces: BTreeMap<Name, Interface> = interfaces.into_iter().collect();
        let mut add = |name: String, role| {
            let interface = Interface {
                at: nowhere(),
                role,
                mode: Mode::Native,
                peer: PeerSpec::Find,
                dispatcher: false,
                manage: Manage::default(),
            };
            interfaces.insert(name.into(), interface);
        };
        add("underlay".to_owned(), Role::Underlay);
        // A workload for each segment that a tunnel may name sources of.
        for (index, segment) in ["default", "blue", "a\"b\\c", "ü.1"].into_iter().enumerate() {
            let addresses = Addresses::List(vec![own_net(0, 24, false), own_net(0, 24, true)]);
            let gateway = Vec::new();
            add(
                format!("w{index}"),
                Role::Workload { segment: segment.into(), addresses, mac: None, gateway },
            );
        }
        let peers = Role::Workload {
            segment: "default".into(),
            addresses: Addresses::Peer,
            mac: None,
            gateway: Vec::new(),
        };
        let pattern = |name: &str, role| {
            let (peer, manage, mode) = (PeerSpec::Find, Manage::default(), Mode::Native);
            (Name::from(name), Interface { at: nowhere(), role, mode, dispatcher: true, peer, manage })
        };
        let patterns = [pattern("veth-*", peers), pattern("tap?", Role::Pass)].into();
        Config { interfaces, patterns, tunnels: tunnels.into_iter().collect() }
    })
}

fn without_places(mut config: Config) -> Config {
    config.interfaces.values_mut().for_each(|interface| interface.at = nowhere());
    config.patterns.values_mut().for_each(|interface| interface.at = nowhere());
    config.tunnels.values_mut().for_each(|tunnel| tunnel.at = nowhere());
    config
}

/// Whether it is taken. What is, is printed and read back; what is not has its errors rendered.
fn try_text(text: &str) -> bool {
    match parse(&[Source::new("fuzz.toml", text)]) {
        Ok(config) => {
            let read = parse(&[Source::new("printed.toml", print(&config))]);
            assert_eq!(
                without_places(read.unwrap_or_else(|errors| panic!("{errors}"))),
                without_places(config)
            );
            true
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            assert!(errors.render(false).starts_with("error: "));
            assert!(errors.render(true).contains("\x1b["));
            false
        }
    }
}

const EXAMPLE: &str = include_str!("../../../mptm.toml.example");
const EVERYTHING: &str = include_str!("../../../tests/config/ok-everything.toml");
const PROTOCOLS: &str = include_str!("../../../tests/config/ok-protocols.toml");

/// What a mutation puts in.
const PIECES: [&str; 32] = [
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "\"\"\"",
    "=",
    ",",
    "\n",
    "\r",
    "\r\n",
    "\t",
    "\0",
    "\x1b",
    "é",
    "東",
    "\u{feff}",
    "\u{202e}",
    "#",
    ".",
    "0x",
    "-1",
    "99999999999999999999999999999999999999999",
    "[tunnel.a]\n",
    "[[tunnel]]\n",
    "[[tunnel.a.options]]\n",
    "::",
    "id = 1\n",
    "inner = [",
    "peer = {",
    "1e400",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn printed_configurations_read_back(config in config()) {
        let text = print(&config);
        match parse(&[Source::new("printed.toml", text.as_str())]) {
            Ok(read) => {
                prop_assert_eq!(print(&read), text);
                prop_assert_eq!(without_places(read), config);
            }
            Err(errors) => prop_assert!(false, "{errors}\n{text}"),
        }
    }

    #[test]
    fn any_text_is_taken_or_refused(text in any::<String>()) {
        try_text(&text);
    }

    #[test]
    fn any_tokens_are_taken_or_refused(pieces in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..40)) {
        try_text(&pieces.concat());
    }

    #[test]
    fn any_change_to_a_right_file_is_taken_or_refused(
        right in prop::sample::select(vec![EXAMPLE, EVERYTHING, PROTOCOLS]),
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..12_usize, prop::option::of(prop::sample::select(PIECES.to_vec()))),
            1..6,
        ),
    ) {
        let mut text: Vec<char> = right.chars().collect();
        for (index, remove, insert) in changes {
            let start = index.index(text.len());
            let end = (start + remove).min(text.len());
            text.splice(start..end, insert.unwrap_or("").chars());
        }
        try_text(&text.into_iter().collect::<String>());
    }

    #[test]
    fn any_key_with_any_value_is_taken_or_refused(
        key in prop::sample::select([&super::interface_keys()[..], &super::tunnel_keys()[..]].concat()),
        kind in prop::sample::select(vec!["interface.a", "tunnel.a", "defaults"]),
        value in prop_oneof![
            Just(String::from("{}")), Just(String::from("[[]]")), Just(String::from("[{}, 1]")), Just(String::from("nan")),
            Just(String::from("00:00:00")), Just(String::from("[{ class = 1, type = 2, data = \"00\", x = 1 }, {}]")),
            (-1..300_i32).prop_map(|number| number.to_string()), any::<i128>().prop_map(|number| number.to_string()),
            any::<String>().prop_map(|text| format!("{text:?}")),
            "[0-9./:a-f-]{0,20}".prop_map(|text| format!("[\"{text}\"]")),
            "[0-9./:a-f-]{0,20}".prop_map(|text| format!("\"{text}\"")),
        ],
    ) {
        try_text(&format!("[{kind}]\n{key} = {value}\n"));
    }
}

/// A file of many tunnels, with the text of one put in behind them.
fn many(count: usize, last: &str) -> String {
    let mut text = String::from("[interface.u]\nrole = \"underlay\"\n");
    for number in 0..count {
        let nets: Vec<String> = (0..10)
            .map(|net| {
                let address = Ipv4Addr::from(u32::try_from(0x0a00_0000 + (number * 10 + net) * 16).unwrap());
                format!("\"{address}/28\"")
            })
            .collect();
        let (inner, remote) = (nets.join(", "), Ipv4Addr::from(u32::try_from(0xc000_0200 + number).unwrap()));
        text += &format!(
            "\n[tunnel.t{number}]\nprotocol = \"vxlan\"\nid = {number}\nremote = \"{remote}\"\ninner = [{inner}]\n"
        );
    }
    text + last
}

#[test]
fn places_in_a_large_file_are_exact() {
    let errors = parse(&[Source::new("large.toml", many(3000, "mtu = 1\n"))]).unwrap_err();
    let line = 2 + 3000 * 6 + 1;
    assert!(errors.to_string().contains(&format!("large.toml:{line}:7")), "{errors}");
}

#[test]
fn a_line_shows_no_more_errors_than_can_be_read() {
    let list = (0..60).map(|number| format!("\"10.0.0.{number}x\"")).collect::<Vec<_>>().join(", ");
    let errors =
        parse(&[Source::new("long.toml", format!("[defaults]\ninner = [{list}]\nmtu = 1\n"))]).unwrap_err();
    assert_eq!(errors.len(), 61);
    let text = errors.render(false);
    assert_eq!(text.matches("neither an address nor a prefix").count(), 50);
    assert!(
        text.contains("long.toml:3:7") && text.ends_with("\nerror: 10 more in line 2 of long.toml\n"),
        "{text}"
    );
}

#[test]
fn a_large_file_is_read_whole_and_all_its_errors_are_told() {
    let text = many(20_000, "");
    let config = parse(&[Source::new("large.toml", text.as_str())]).unwrap();
    assert_eq!(config.tunnels.len(), 20_000);
    let errors = parse(&[Source::new("large.toml", text.replace("\"vxlan\"", "\"vlxan\""))]).unwrap_err();
    assert_eq!(errors.len(), 20_000);
    assert!(errors.render(false).len() > 20_000 * 80);
}
