//! Tunnels of every protocol over both families, with every option, each with its far end.

use std::net::{IpAddr, Ipv6Addr};

use crate::random::Random;
use crate::world::{Df, Kind, Label, Tunnel};

/// The first of them.
pub const FIRST: u8 = 20;

/// An IPv6 address behind tunnel `id` and no other.
pub const fn behind6(id: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, id as u16)
}

/// Every tunnel header: with and without what may be left out.
fn kinds() -> Vec<(Kind, Option<u32>)> {
    let options = || vec![(0x0102, 3, vec![1, 2, 3, 4]), (0x0103, 0x84, vec![5; 8]), (0xffff, 5, Vec::new())];
    let gre = |ethernet, checksum, sequence| Kind::Gre { ethernet, checksum, sequence };
    vec![
        (Kind::Vxlan { group: None }, Some(0)),
        (Kind::Vxlan { group: Some(0xfedc) }, Some(0xff_ffff)),
        (Kind::Geneve { options: Vec::new(), ip: false }, Some(0x12_3456)),
        (Kind::Geneve { options: options(), ip: false }, Some(1)),
        (Kind::Geneve { options: Vec::new(), ip: true }, Some(2)),
        (Kind::Geneve { options: options(), ip: true }, Some(0xff_ffff)),
        (gre(false, false, false), None),
        (gre(false, true, false), Some(0)),
        (gre(false, false, true), None),
        (gre(false, true, true), Some(u32::MAX)),
        (gre(true, false, false), None),
        (gre(true, true, false), None),
        (gre(true, false, true), Some(7)),
        (gre(true, true, true), Some(0x0102_0304)),
        (Kind::Ipip, None),
        (Kind::Gue { variant: 0 }, None),
        (Kind::Gue { variant: 1 }, None),
        (Kind::Fou, None),
        (Kind::Gtpu { flow: None }, Some(1)),
        (Kind::Gtpu { flow: Some((false, 9)) }, Some(u32::MAX)),
        (Kind::Gtpu { flow: Some((true, 63)) }, Some(0x0102_0304)),
    ]
}

/// All of them, with their defaults. The tags' ids are their own among all tunnels of the lab.
pub fn tunnels() -> Vec<Tunnel> {
    let mut all = vec![
        Tunnel::new(0, Kind::Vlan, Some(1)),
        Tunnel { keep_destination: true, keep_source: true, ..Tunnel::new(0, Kind::Vlan, Some(0xffd)) },
        Tunnel::new(0, Kind::Qinq { service: 0xffe }, Some(1)),
        Tunnel { keep_destination: true, ..Tunnel::new(0, Kind::Qinq { service: 1 }, Some(0xffe)) },
    ];
    for (kind, network) in kinds() {
        all.push(Tunnel::new(0, kind.clone(), network));
        all.push(over_ipv6(Tunnel { udp_checksum: true, ..Tunnel::new(0, kind, network) }));
    }
    for (tunnel, id) in all.iter_mut().zip(FIRST..) {
        tunnel.id = id.into();
        tunnel.remote = ([2, 0x20, 0, 0, 0, id], nth(tunnel.remote.1, id));
    }
    all
}

fn nth(family: IpAddr, id: u8) -> IpAddr {
    match family {
        IpAddr::V4(_) => IpAddr::from([192, 0, 2, 100 + id]),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 100 + u16::from(id)).into(),
    }
}

fn over_ipv6(tunnel: Tunnel) -> Tunnel {
    let local = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    Tunnel { local: (tunnel.local.0, local.into()), remote: (tunnel.remote.0, local.into()), ..tunnel }
}

/// Other options for a tunnel: any that a file may ask for.
pub fn randomize(random: &mut Random, tunnel: &mut Tunnel) {
    let mut flip = || random.below(2) == 0;
    tunnel.udp_checksum = flip();
    tunnel.mss_clamp = flip();
    tunnel.inner_mac = (flip() && !tunnel.kind.carries_ip()).then_some([2, 0x77, 0, 0, 0, 7]);
    tunnel.flood = flip() && !tunnel.kind.carries_ip();
    tunnel.received = None;
    if matches!(tunnel.kind, Kind::Gre { .. } | Kind::Gtpu { .. }) && tunnel.network.is_some() && flip() {
        tunnel.received = Some(random.next() as u32);
    }
    let choice = random.below(4);
    tunnel.ttl = [Some(1 + random.below(255) as u8), Some(255), None, None][choice];
    tunnel.tos = [Some(random.next() as u8 & 0xfc), None][random.below(2)];
    tunnel.pcp = [Some(random.below(8) as u8), None][random.below(2)];
    tunnel.df = *random.choose(&[Df::Set, Df::Unset, Df::Inherit]);
    tunnel.label = *random.choose(&[Label::Flow, Label::Inherit, Label::Fixed(random.0 as u32 & 0xf_ffff)]);
    tunnel.ports = *random.choose(&[(49152, 16384), (1, 65535), (5000, 1), (65535, 1), (1000, 3)]);
    tunnel.mtu = *random.choose(&[9000, 9000, 1500, 1280, 600]);
}
