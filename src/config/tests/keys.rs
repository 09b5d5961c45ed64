//! Keys of a tunnel in any combination, of its own and as defaults.

use proptest::prelude::*;

use super::super::{Source, parse, print, tunnel_keys};
use super::{config, try_text, without_places};
use crate::protocol::Protocol;

/// Each key with a right value but for `protocol`, `remote` and `local`.
const LINES: [&str; 31] = [
    "id = 1",
    "local_id = 2",
    "service_id = 3",
    "payload = \"ip\"",
    "segment = \"blue\"",
    "underlay = \"u\"",
    "local_mac = \"02:00:5e:10:00:01\"",
    "remote_mac = \"02:00:5e:10:00:02\"",
    "inner = [\"10.0.0.0/8\", \"fd00::/8\"]",
    "from = [\"192.0.2.1\"]",
    "src_port = \"1000-2000\"",
    "dst_port = 5555",
    "ttl = \"inherit\"",
    "tos = 4",
    "df = \"unset\"",
    "flow_label = 5",
    "udp_checksum = true",
    "pcp = 6",
    "gbp = 7",
    "options = [{ class = 8, type = 9, data = \"0a0b0c0d\" }]",
    "checksum = true",
    "sequence = true",
    "variant = 1",
    "qfi = 10",
    "uplink = true",
    "inner_mac = \"02:00:5e:10:00:03\"",
    "mtu = 1400",
    "mss_clamp = true",
    "flood = true",
    "redirect = false",
    "debug = true",
];

const ENDS: [(&str, &str); 3] = [
    ("remote = \"192.0.2.2\"", "local = \"192.0.2.3\""),
    ("remote = \"2001:db8::2\"", "local = \"2001:db8::3\""),
    ("remote = \"2001:db8::2\"", "local = \"192.0.2.3\""),
];

fn file(defaults: &[&str], own: &[&str]) -> String {
    let (defaults, own) = (defaults.join("\n"), own.join("\n"));
    format!("[interface.u]\nrole = \"underlay\"\n\n[defaults]\n{defaults}\n\n[tunnel.a]\n{own}\n")
}

#[test]
fn there_is_a_line_for_each_key() {
    for key in tunnel_keys() {
        let has = |line: &str| line.split(' ').next() == Some(key);
        let ends = ENDS.iter().any(|(remote, local)| has(remote) || has(local));
        assert!(key == "protocol" || ends || LINES.iter().any(|line| has(line)), "{key}");
    }
}

#[test]
fn a_protocol_takes_of_all_defaults_what_it_has() {
    for protocol in Protocol::ALL {
        for (remote, local) in ENDS {
            let text =
                file(&[&LINES[..], &[remote, local]].concat(), &[&format!("protocol = \"{protocol}\"")]);
            assert!(try_text(&text), "{text}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn keys_that_are_taken_together_print_and_read_back(
        protocol in prop::sample::select(Protocol::ALL.to_vec()),
        lines in prop::sample::subsequence(LINES.to_vec(), 0..=LINES.len()),
        ends in prop::option::of(prop::sample::select(ENDS.to_vec())),
        as_defaults in prop::collection::vec(any::<bool>(), LINES.len()),
    ) {
        let protocol = format!("protocol = \"{protocol}\"");
        let (mut defaults, mut own) = (vec![], vec![protocol.as_str(), LINES[8]]);
        if let Some((remote, local)) = ends {
            own.push(remote);
            defaults.push(local);
        }
        for (line, as_default) in lines.into_iter().zip(as_defaults).filter(|(line, _)| *line != LINES[8]) {
            if as_default { &mut defaults } else { &mut own }.push(line);
        }
        try_text(&file(&defaults, &own));
    }

    #[test]
    fn a_default_means_what_the_tunnels_own_key_means(config in config()) {
        let mut config = config;
        let Some((name, tunnel)) = config.tunnels.pop_first() else { return Ok(()) };
        config.tunnels = [(name, tunnel)].into();
        let text = print(&config);
        let (before, own) = text.split_once("[tunnel.").unwrap();
        let (name, keys) = own.split_once('\n').unwrap();
        let moved = format!("{before}[tunnel.{name}\n[defaults]\n{keys}");
        match parse(&[Source::new("moved.toml", moved.as_str())]) {
            Ok(read) => prop_assert_eq!(without_places(read), config),
            Err(errors) => prop_assert!(false, "{errors}\n{moved}"),
        }
    }
}
