//! Files of any size: so many routes over so many tunnels, the same for the same seed.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// How many far ends the tunnels lead to.
pub const FAR_ENDS: usize = 250;
/// What the tunnels of a file share, as a rule.
const TUNNELS: usize = 10_000;

/// A file: of eight routes, six are IPv4 hosts, one is an IPv6 host, and one an IPv4 prefix.
#[derive(Debug, Clone)]
pub struct Shape {
    pub routes: usize,
    pub tunnels: usize,
    pub seed: u64,
    /// Each route leads into the tunnel that is so many further.
    pub turned: usize,
    /// One route leads into the tunnel that is one further.
    pub edited: bool,
}

impl Shape {
    /// With 10,000 tunnels, or one for every other route if there are fewer.
    pub fn new(routes: usize) -> Self {
        Self { routes, tunnels: TUNNELS.min(routes.div_ceil(2)), seed: 1, turned: 0, edited: false }
    }

    /// The same with every route changed.
    pub fn all_changed(&self) -> Self {
        Self { turned: self.turned + 1, ..self.clone() }
    }

    /// The same with one route changed.
    pub fn one_changed(&self) -> Self {
        Self { edited: !self.edited, ..self.clone() }
    }

    /// Which tunnel a route leads into. Every tunnel has one of the first routes: none is without.
    fn tunnel_of(&self, route: usize) -> usize {
        let tunnel = if route < self.tunnels {
            route
        } else {
            (mixed(self.seed, route) % self.tunnels as u64) as usize
        };
        let edit = usize::from(self.edited && route == self.tunnels);
        (tunnel + self.turned + edit) % self.tunnels
    }

    /// Writes the file, with `head` before its tunnels.
    pub fn write(&self, path: &Path, head: &str) -> io::Result<()> {
        assert!(
            self.tunnels > 0 && self.routes >= self.tunnels,
            "a tunnel without a route is none: {self:?}"
        );
        let mut inner = vec![Vec::new(); self.tunnels];
        for route in 0..self.routes {
            inner[self.tunnel_of(route)].push(route as u32);
        }
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(head.as_bytes())?;
        for (number, routes) in inner.iter().enumerate() {
            let remote = far_end(number % FAR_ENDS);
            write!(
                file,
                "\n[tunnel.t{number}]\nprotocol = \"geneve\"\nid = {}\nremote = \"{remote}\"\ninner = [",
                number + 1
            )?;
            for (place, route) in routes.iter().enumerate() {
                let comma = if place == 0 { "" } else { ", " };
                write!(file, "{comma}\"{}\"", prefix(*route))?;
            }
            writeln!(file, "]")?;
        }
        file.flush()
    }
}

/// The outer address of a far end.
pub fn far_end(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 30, 1, number as u8 + 1)
}

/// The address or the prefix of a route, each another.
fn prefix(route: u32) -> String {
    match route % 8 {
        3 => {
            let address = Ipv6Addr::from_bits(0xfd00_0010 << 96 | u128::from(route));
            IpAddr::from(address).to_string()
        }
        // 100.64.0.0/10 has 2^18 of them.
        5 => format!("{}/28", Ipv4Addr::from_bits(u32::from_be_bytes([100, 64, 0, 0]) + ((route / 8) << 4))),
        _ => Ipv4Addr::from_bits(u32::from_be_bytes([20, 0, 0, 0]) + route).to_string(),
    }
}

/// splitmix64 of a seed and a number.
fn mixed(seed: u64, number: usize) -> u64 {
    let mut x = seed.wrapping_add((number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
