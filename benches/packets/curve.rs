//! Encapsulation with more and more routes, for destinations at random: host routes, and prefixes. Next to each, in the same
//! round, one destination only.

use mptm::kernel::abi::{self, target};
use mptm::kernel::{self, DataPlane, Map, Program, Sizes};
use zerocopy::{FromBytes, IntoBytes};

use crate::bench::stats::median;
use crate::bench::table::Table;
use crate::bench::{is_short, is_wanted};
use crate::floor::Addresses;
use crate::site::Site;
use crate::tunnels::Tunnel;

/// Entries beyond the routes, as in src/sizing.rs; the workload's own address takes one.
const SPARE: u32 = 16;
const COUNTS: [u32; 4] = [1, 1_000, 100_000, 1_000_000];
/// Of what one destination costs in the same round: the whole time per frame.
const AIM: f64 = 1.5;
/// Of the inner destination in a frame.
const AT: u32 = 30;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Host,
    /// Each 24 bits long.
    Prefix,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Host => "host routes",
            Self::Prefix => "prefixes",
        }
    }

    fn addresses(self, count: u32) -> Addresses {
        match self {
            Self::Host => Addresses { at: AT, first: 0x0b00_0000, count, shift: 0 },
            Self::Prefix => Addresses { at: AT, first: 0x2000_0000, count, shift: 8 },
        }
    }

    /// Makes the route that has this number.
    fn add(self, site: &mut Site, table: u32, number: u32, route: &abi::Route) {
        let Addresses { first, shift, .. } = self.addresses(1);
        let address = abi::map_address(std::net::Ipv4Addr::from(first + (number << shift)).into());
        let done = match self {
            Self::Host => {
                site.plane.put(Map::Routes, abi::RouteKey { table, address }.as_bytes(), route.as_bytes())
            }
            Self::Prefix => {
                let key = abi::PrefixKey { prefix_len: 32 + 96 + 24, table, address };
                site.plane.put(Map::Prefixes, key.as_bytes(), route.as_bytes())
            }
        };
        done.unwrap_or_else(|error| panic!("route {number} of {}: {error}", self.name()));
    }
}

/// Maps of the sizes that `apply` would make for so many routes, and the programs that use them.
fn make_room(site: &mut Site, count: u32) {
    let routes = (count + SPARE).next_power_of_two().max(1024);
    let sizes = Sizes::each(|table| if table == kernel::Table::Routes { routes } else { 4096 });
    let meta = site.plane.meta().expect("the maps are pinned").expect("apply has made them");
    site.plane.resize(&meta, &sizes).expect("the kernel has memory for them");
    site.open_programs();
}

/// Measures and prints the curve.
pub fn measure(site: &mut Site, tunnel: &Tunnel) {
    if !is_wanted("curve") {
        return;
    }
    let (rounds, repeat) = if is_short() { (1, 2_000) } else { (7, 200_000) };
    let counts = if is_short() { &COUNTS[..2] } else { &COUNTS[..] };
    let ifindex = site.workload;
    let entry = site.plane.get(Map::Interfaces, ifindex.as_bytes()).expect("the maps are pinned");
    let entry = abi::Interface::read_from_bytes(&entry.expect("apply has written it")).expect("an interface");
    let route = abi::Route { id: site.tunnel_id(&tunnel.name), target: target::TUNNEL, ..Default::default() };
    let frame = tunnel.leaving(50);
    let mut table =
        Table::new(&["encap geneve4, random destinations", "routes", "ns", "above floor", "to one", "aim"]);
    // Prefixes first: host routes, which are asked for before them, would make the table that is asked in vain large.
    for kind in [Kind::Prefix, Kind::Host] {
        let mut made = 0;
        for count in counts {
            make_room(site, if matches!(kind, Kind::Host) { *count + 1 } else { 1 });
            (made..*count).for_each(|number| kind.add(site, entry.table, number, &route));
            made = *count;
            let addresses = kind.addresses(*count);
            let [mut times, mut above, mut ratios] = [(); 3].map(|()| Vec::new());
            for _ in 0..rounds {
                let of =
                    |program, addresses| site.floor.time(program, &frame, Some(addresses), ifindex, repeat);
                let floor = of(site.floor.of("grow_and_redirect"), addresses);
                let one = of(site.program(Program::Encap), kind.addresses(1));
                let before = site.counters();
                let time = of(site.program(Program::Encap), addresses);
                let sent = |counters: &crate::site::Counters| {
                    counters.get(&format!("{} encap", tunnel.name)).copied().unwrap_or(0)
                };
                let moved = sent(&site.counters()) - sent(&before);
                assert_eq!(moved, u64::from(repeat), "{count} {}: counters", kind.name());
                times.push(time);
                above.push(time - floor);
                ratios.push(time / one);
            }
            table.row(vec![
                kind.name().into(),
                count.to_string(),
                format!("{:.0}", median(&times)),
                format!("{:.0}", median(&above)),
                format!("{:.2}", median(&ratios)),
                if *count == 100_000 { format!("{AIM}") } else { String::new() },
            ]);
        }
    }
    table.print();
}
