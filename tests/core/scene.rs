//! A world with two underlays, workloads in namespaces and two ports, and how a file is applied to it.

use mptm::apply::{ApplyError, apply};
use mptm::config::model::Config;
use mptm::config::{Source, parse};
use mptm::kernel::fake::{Device, Fake, RouteEntry, World};
use mptm::kernel::{Map, Program};
use mptm::mac::MacAddr;
use mptm::plan::{Plan, plan};
use mptm::resolve::{Neighbours, ResolveError, Resolved, resolve};
use mptm::state::State;
use mptm::store::{Live, read};

/// How many workloads there are: w0 with its peer c0 in ns0, and so on.
pub const WORKLOADS: usize = 5;

/// u0 and u1 with a gateway each, w0 to w4, p0 and p1.
pub fn scene() -> Fake {
    let mut world = World::default();
    for place in 0..WORKLOADS {
        world.add_namespace(&format!("ns{place}"));
    }
    for underlay in 0..2_u8 {
        let ifindex = 2 + u32::from(underlay);
        let mac = MacAddr([2, 0, 0, 0, 1, underlay]);
        let mut device = Device::new(&format!("u{underlay}"), None, mac);
        let addresses = [format!("10.30.{underlay}.1/24"), format!("fd00:30:{underlay}::1/64")];
        device.addresses = addresses.map(|address| address.parse().unwrap()).into();
        world.add_device(0, ifindex, device);
        let to = format!("10.30.{underlay}.0/24").parse().unwrap();
        world.routes.push(RouteEntry { to, via: None, ifindex, mtu: None });
        let gateway = format!("10.30.{underlay}.254").parse().unwrap();
        let default = "0.0.0.0/0".parse().unwrap();
        world.routes.push(RouteEntry { to: default, via: Some(gateway), ifindex, mtu: None });
        world.neighbours.insert((ifindex, gateway), MacAddr([2, 0, 0, 0, 2, underlay]));
        let to = format!("fd00:30:{underlay}::/64").parse().unwrap();
        world.routes.push(RouteEntry { to, via: None, ifindex, mtu: None });
        let gateway = "fe80::254".parse().unwrap();
        let default = "::/0".parse().unwrap();
        world.routes.push(RouteEntry { to: default, via: Some(gateway), ifindex, mtu: None });
        world.neighbours.insert((ifindex, gateway), MacAddr([2, 0, 0, 0, 2, underlay]));
        for host in 10..20_u8 {
            for address in [format!("10.30.{underlay}.{host}"), format!("fd00:30:{underlay}::{host}")] {
                let mac = MacAddr([2, 0, 0, 3, underlay, host]);
                world.neighbours.insert((ifindex, address.parse().unwrap()), mac);
            }
        }
    }
    for workload in 0..WORKLOADS {
        let (ifindex, place) = (10 + workload as u32, workload + 1);
        let (name, peer) = (format!("w{workload}"), format!("c{workload}"));
        world.add_veth([(0, ifindex, &name), (place, 2, &peer)]);
        let address = format!("10.250.{workload}.100/24").parse().unwrap();
        world.device_in(place, &peer).addresses = vec![address];
    }
    for port in 0..2_u8 {
        let device = Device::new(&format!("p{port}"), None, MacAddr([2, 0, 0, 0, 4, port]));
        world.add_device(0, 20 + u32::from(port), device);
    }
    world.namespaces[0].sysctls = [("rp_filter".into(), 0), ("ipv6:forwarding".into(), 1)].into();
    Fake::new(world)
}

/// A text as a configuration.
#[track_caller]
pub fn config(text: &str) -> Config {
    parse(&[Source::new("test.toml", text)]).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"))
}

/// What is there.
#[track_caller]
pub fn live(fake: &Fake) -> Live {
    read(fake, fake).unwrap_or_else(|error| panic!("{error}: {:?}", error.hint))
}

/// What a text means in a world.
pub fn resolved(fake: &Fake, text: &str, neighbours: Neighbours) -> Result<Resolved, Vec<ResolveError>> {
    resolve(&config(text), fake, fake, &live(fake), neighbours)
}

/// The same, where nothing is wrong.
#[track_caller]
pub fn desired(fake: &Fake, text: &str) -> State {
    match resolved(fake, text, Neighbours::Look) {
        Ok(resolved) => resolved.state,
        Err(errors) => panic!("{errors:?}\n{text}"),
    }
}

/// Carries out what leads to a state.
pub fn carry_out(fake: &Fake, state: &State) -> Result<Plan, ApplyError> {
    let mut live = live(fake);
    let plan = plan(state, &live.state);
    apply(&plan, &mut fake.clone(), &mut fake.clone(), &mut live.ids)?;
    Ok(plan)
}

/// Applies a text.
#[track_caller]
pub fn apply_text(fake: &Fake, text: &str) -> Plan {
    carry_out(fake, &desired(fake, text)).unwrap_or_else(|error| panic!("{error}: {}", error.source))
}

/// Takes everything down.
#[track_caller]
pub fn down(fake: &Fake) -> Plan {
    carry_out(fake, &State::default()).unwrap_or_else(|error| panic!("{error}: {}", error.source))
}

/// A world without what leaves no trace: counts of changes, counters of packets, the tunnels' headers that are not in
/// force and which of two places the other one is in, and the ids of programs.
pub fn essence(fake: &Fake) -> World {
    let mut world = fake.world().clone();
    world.changes = 0;
    world.fail_at = None;
    world.replaced.clear();
    world.former = None;
    world.solicited.clear();
    number_dispatchers(&mut world);
    let Some(maps) = &mut world.maps else { return world };
    let tunnels = maps.entries(Map::Tunnels);
    let active = maps.entries(Map::Active);
    for map in [Map::TunnelStats, Map::Tunnels] {
        for (key, _) in maps.entries(map) {
            maps.remove(map, &key);
        }
        // So that an empty map is as good as none.
        maps.poke(map, b"-", b"-");
    }
    for (key, value) in active {
        let place = 2 * number(&key) + number(&value) - 1;
        let (_, header) = tunnels.iter().find(|(key, _)| number(key) == place).expect("it has a header");
        maps.poke(Map::Active, &key, &1_u32.to_ne_bytes());
        maps.poke(Map::Tunnels, &key, header);
    }
    for map in Map::ALL {
        maps.poke(map, b"-", b"-");
    }
    world
}

/// Each change of a dispatcher makes a new one: gives them, and mptm's parts, numbers that tell where they are.
fn number_dispatchers(world: &mut World) {
    let mut parts = std::collections::BTreeMap::new();
    for (number, part) in (2_000_000..).zip(world.dispatched.values_mut()) {
        parts.insert(part.program_id, number);
        world.programs.remove(&part.program_id);
        part.program_id = number;
    }
    for (ifindex, device) in &mut world.namespaces[0].devices {
        let Some(xdp) = &mut device.xdp else { continue };
        let Some(mut dispatcher) = world.dispatchers.remove(&xdp.program_id) else { continue };
        for member in &mut dispatcher.members {
            member.id = parts.get(&member.id).copied().unwrap_or(member.id);
        }
        world.programs.remove(&xdp.program_id);
        xdp.program_id = 1_000_000 + ifindex;
        world.dispatchers.insert(xdp.program_id, dispatcher);
    }
}

/// Says where two worlds differ, if they do.
pub fn difference(one: &World, other: &World) -> Option<String> {
    if one == other {
        return None;
    }
    let lines = |world: &World| format!("{world:#?}").lines().map(str::to_owned).collect::<Vec<_>>();
    let (one, other) = (lines(one), lines(other));
    let at = one.iter().zip(&other).position(|(one, other)| one != other).unwrap_or(0);
    let around = |lines: &[String]| lines[at.saturating_sub(40)..(at + 5).min(lines.len())].join("\n");
    Some(format!("{}\n--- and not\n{}", around(&one), around(&other)))
}

/// The number in a key or value.
pub fn number(bytes: &[u8]) -> u32 {
    u32::from_ne_bytes(*bytes.first_chunk().expect("it has four bytes"))
}

/// The program that a device runs.
pub fn runs(fake: &Fake, device: &str) -> Option<Program> {
    let mut world = fake.world();
    let id = world.device(device).xdp?.program_id;
    world.pinned.iter().find(|(_, pinned)| **pinned == id).map(|(program, _)| *program)
}

/// Two tunnels, and a workload that has one address in the file.
pub const SMALL: &str = r#"
    [interface.u0]
    role = "underlay"

    [interface.w0]
    role = "workload"
    addresses = ["10.250.0.100", "10.250.0.128/25"]

    [tunnel.t0]
    protocol = "geneve"
    id = 42
    remote = "10.30.0.10"
    inner = ["10.100.0.0/16", "10.101.0.1"]

    [tunnel.t1]
    protocol = "vxlan"
    id = 43
    remote = "10.30.0.11"
    inner = ["10.100.5.0/24"]
    from = ["10.250.0.200"]
"#;
