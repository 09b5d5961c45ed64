//! The product's outer headers against the tests' own encoder, field by field: what a file asks for, as it comes to lie in
//! the maps, over every protocol, family and option. Needs no root.

use std::fmt::Write as _;
use std::net::IpAddr;

use mptm::apply::apply;
use mptm::config::{Source, parse};
use mptm::kernel::Map;
use mptm::kernel::abi;
use mptm::kernel::fake::{Device, Fake, RouteEntry, World};
use mptm::mac::MacAddr;
use mptm::plan::plan;
use mptm::resolve::{Neighbours, resolve};
use mptm::store::read;
use zerocopy::FromBytes;

use crate::common::frame::Mac;
use crate::random::Random;
use crate::wide;
use crate::world::{Df, Kind, Label, Tunnel};

const UNDERLAY: u32 = 2;
/// How many times the tunnels get other options.
const ROUNDS: usize = 8;

/// One underlay with both families.
fn machine() -> Fake {
    let mut world = World::default();
    let mut device = Device::new("u0", None, MacAddr([2, 0x10, 0, 0, 0, 1]));
    device.mtu = 9500;
    device.addresses = vec!["192.0.2.1/24".parse().unwrap(), "2001:db8::1/64".parse().unwrap()];
    world.add_device(0, UNDERLAY, device);
    for to in ["192.0.2.0/24", "2001:db8::/64"] {
        world.routes.push(RouteEntry { to: to.parse().unwrap(), via: None, ifindex: UNDERLAY, mtu: None });
    }
    Fake::new(world)
}

fn mac(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn protocol(kind: &Kind) -> &'static str {
    ["vlan", "vxlan", "geneve", "qinq", "gre", "gretap", "ipip", "gue", "fou", "gtpu"]
        [usize::from(kind.protocol()) - 1]
}

/// A key of the file, or the word for what is inherited.
fn or_inherit<T: ToString>(value: Option<T>) -> String {
    value.map_or("\"inherit\"".into(), |value| value.to_string())
}

/// A tunnel as a file has it.
fn text(tunnel: &Tunnel) -> String {
    let mut out = "[interface.u0]\nrole = 'underlay'\n[tunnel.t]\ninner = ['10.9.0.1']\n".to_owned();
    let mut key = |name: &str, value: String| writeln!(out, "{name} = {value}").unwrap();
    key("protocol", format!("'{}'", protocol(&tunnel.kind)));
    if let Some(network) = tunnel.network {
        key("id", network.to_string());
    }
    if let Some(received) = tunnel.received {
        key("local_id", received.to_string());
    }
    if !tunnel.keep_source {
        key("local_mac", format!("'{}'", mac(tunnel.local.0)));
    }
    if !tunnel.keep_destination {
        key("remote_mac", format!("'{}'", mac(tunnel.remote.0)));
    }
    key("mtu", tunnel.mtu.to_string());
    key("mss_clamp", tunnel.mss_clamp.to_string());
    if let Some(inner_mac) = tunnel.inner_mac {
        key("inner_mac", format!("'{}'", mac(inner_mac)));
    }
    if tunnel.flood {
        key("flood", "true".to_owned());
    }
    if tunnel.kind.is_tags() {
        key("pcp", or_inherit(tunnel.pcp));
    } else {
        key("local", format!("'{}'", tunnel.local.1));
        key("remote", format!("'{}'", tunnel.remote.1));
        key("ttl", or_inherit(tunnel.ttl));
        key("tos", or_inherit(tunnel.tos));
        match tunnel.local.1 {
            IpAddr::V4(_) => key("df", format!("'{:?}'", tunnel.df).to_lowercase()),
            IpAddr::V6(_) => key(
                "flow_label",
                match tunnel.label {
                    Label::Fixed(label) => label.to_string(),
                    other => format!("'{other:?}'").to_lowercase(),
                },
            ),
        }
    }
    if tunnel.kind.has_udp() {
        let (first, count) = tunnel.ports;
        key("src_port", format!("'{first}-{}'", u32::from(first) + count - 1));
        key("dst_port", tunnel.port.to_string());
        key("udp_checksum", tunnel.udp_checksum.to_string());
    }
    match &tunnel.kind {
        Kind::Qinq { service } => key("service_id", service.to_string()),
        Kind::Vxlan { group: Some(group) } => key("gbp", group.to_string()),
        Kind::Geneve { options, ip } => {
            let option = |(class, kind, data): &(u16, u8, Vec<u8>)| {
                let data: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{{ class = {class}, type = {kind}, data = '{data}' }}")
            };
            key("options", format!("[{}]", options.iter().map(option).collect::<Vec<_>>().join(", ")));
            key("payload", format!("'{}'", if *ip { "ip" } else { "ethernet" }));
        }
        Kind::Gre { checksum, sequence, .. } => {
            key("checksum", checksum.to_string());
            key("sequence", sequence.to_string());
        }
        Kind::Gue { variant } => key("variant", variant.to_string()),
        Kind::Gtpu { flow: Some((uplink, flow)) } => {
            key("qfi", flow.to_string());
            key("uplink", uplink.to_string());
        }
        _ => {}
    }
    out
}

/// What comes to lie in the maps: the tunnel, and its endpoints.
fn applied(fake: &Fake, text: &str) -> (abi::Tunnel, Vec<abi::Endpoint>) {
    let config = parse(&[Source::new("t.toml", text)]).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
    let mut live = read(fake, fake).unwrap();
    let resolved = resolve(&config, fake, fake, &live, Neighbours::Look);
    let state = resolved.unwrap_or_else(|errors| panic!("{errors:?}\n{text}")).state;
    apply(&plan(&state, &live.state), &mut fake.clone(), &mut fake.clone(), &mut live.ids).unwrap();
    let world = fake.world();
    let maps = world.maps.as_ref().expect("they were made");
    let number = |bytes: &[u8]| u32::from_ne_bytes(*bytes.first_chunk().expect("four bytes"));
    let active = maps.entries(Map::Active);
    let (id, place) = active.iter().find(|(_, place)| number(place) != 0).expect("one is in use");
    let index = 2 * number(id) + number(place) - 1;
    let tunnels = maps.entries(Map::Tunnels);
    let (_, bytes) = tunnels.iter().find(|(key, _)| number(key) == index).expect("the one in use");
    let tunnel = abi::Tunnel::read_from_bytes(bytes).unwrap();
    let endpoints = maps.entries(Map::Endpoints);
    let endpoints = endpoints.iter().map(|(key, _)| abi::Endpoint::read_from_bytes(key).unwrap());
    (tunnel, endpoints.collect())
}

#[test]
fn every_protocol_family_and_option() {
    let mut random = Random(1);
    for round in 0..ROUNDS {
        let fake = machine();
        for mut tunnel in wide::tunnels() {
            if round > 0 {
                wide::randomize(&mut random, &mut tunnel);
            }
            tunnel.underlay = UNDERLAY;
            let text = text(&tunnel);
            let (made, endpoints) = applied(&fake, &text);
            let mut right = tunnel.template();
            // Numbers that the product gives, and fields that nothing reads where there is no such header.
            (right.device, right.table) = (made.device, made.table);
            if !tunnel.kind.has_udp() {
                (right.port_min, right.port_count) = (made.port_min, made.port_count);
            }
            if tunnel.kind.is_tags() {
                (right.ttl, right.tos) = (made.ttl, made.tos);
            }
            assert!(made == right, "{text}\nmade  {made:02x?}\nright {right:02x?}");
            for endpoint in tunnel.endpoints() {
                assert!(endpoints.contains(&endpoint), "{text}\n{endpoint:02x?} is not in\n{endpoints:02x?}");
            }
            assert_eq!(endpoints.len(), tunnel.endpoints().len(), "{text}");
        }
    }
}

/// What the words of the file are derived from.
#[test]
fn words() {
    assert_eq!(format!("{:?}", [Df::Set, Df::Unset, Df::Inherit]).to_lowercase(), "[set, unset, inherit]");
    assert_eq!(format!("{:?}", [Label::Flow, Label::Inherit]).to_lowercase(), "[flow, inherit]");
}
