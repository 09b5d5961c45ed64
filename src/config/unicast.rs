//! Texts of addresses and prefixes, and which of them hosts can have.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::prefix::text;

/// Why a link-local address cannot be behind a tunnel or a workload.
pub(super) const LINK_LOCAL: &str = "it is link-local, which never leaves its link";

/// What a text can be instead of a prefix.
pub(super) enum BadPrefix {
    /// With a way to write what was probably meant.
    Meant(String, String),
    /// The length is out of range, with the largest.
    Length(u8),
    /// None of its addresses can be that of a host.
    NotUnicast(String),
    /// Anything else.
    Garbage,
}

/// An address alone is a prefix of full length.
pub(super) fn read_prefix(text: &str) -> Result<IpNet, BadPrefix> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let Ok(net) = address.or_else(|_| text.parse()) else { return Err(mistyped_prefix(text)) };
    if let Some(why) = not_unicast(net) {
        return Err(BadPrefix::NotUnicast(why));
    }
    if is_link_local(net) {
        return Err(BadPrefix::NotUnicast(LINK_LOCAL.to_owned()));
    }
    if net.trunc() != net {
        return Err(BadPrefix::Meant(format!("{net} has host bits set"), net.trunc().to_string()));
    }
    Ok(net)
}

/// A netmask, or a length that is too large.
fn mistyped_prefix(text: &str) -> BadPrefix {
    let Some((address, length)) = text.split_once('/') else { return BadPrefix::Garbage };
    let Ok(address) = address.parse::<IpAddr>() else { return BadPrefix::Garbage };
    let mask = length.parse::<IpAddr>().ok().and_then(|mask| ipnet::ip_mask_to_prefix(mask).ok());
    if let Some(net) = mask.and_then(|length| IpNet::new(address, length).ok()) {
        return BadPrefix::Meant("a prefix has a length, not a mask".to_owned(), net.trunc().to_string());
    }
    match length.parse::<u32>() {
        // A length that is in range would have been read.
        Ok(_) if length.bytes().all(|byte| byte.is_ascii_digit()) && !length.starts_with('0') => {
            BadPrefix::Length(IpNet::from(address).max_prefix_len())
        }
        _ => BadPrefix::Garbage,
    }
}

/// The address in a text that has more: brackets, a port, a zone.
pub(super) fn address_within(text: &str) -> Option<IpAddr> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some(socket.ip());
    }
    let bare = text.trim().trim_start_matches('[').trim_end_matches(']');
    bare.split('%').next()?.parse().ok()
}

/// Why no host can have an address of this prefix, wherever it is.
pub(super) fn not_unicast(net: IpNet) -> Option<String> {
    match net {
        IpNet::V4(net) => not_unicast_v4(net).map(str::to_owned),
        IpNet::V6(net) => not_unicast_v6(net),
    }
}

fn not_unicast_v4(net: Ipv4Net) -> Option<&'static str> {
    let (address, host) = (net.addr(), net.prefix_len() == 32);
    if host && address.is_unspecified() {
        Some("it stands for no address")
    } else if host && address.is_broadcast() {
        Some("it is the broadcast address")
    } else if net.prefix_len() >= 4 && address.is_multicast() {
        Some("it is multicast")
    } else if net.prefix_len() >= 4 && address.octets()[0] >= 240 {
        Some("it is reserved (RFC 1112, 4), and never forwarded")
    } else if net.prefix_len() >= 8 && address.is_loopback() {
        Some("it is loopback, which never leaves the host")
    } else {
        None
    }
}

fn not_unicast_v6(net: Ipv6Net) -> Option<String> {
    let (address, host) = (net.addr(), net.prefix_len() == 128);
    if host && address == Ipv6Addr::UNSPECIFIED {
        Some("it stands for no address".to_owned())
    } else if host && address == Ipv6Addr::LOCALHOST {
        Some("it is loopback, which never leaves the host".to_owned())
    } else if net.prefix_len() >= 8 && address.is_multicast() {
        Some("it is multicast".to_owned())
    } else if let Some(address) = address.to_ipv4_mapped().filter(|_| net.prefix_len() >= 96) {
        let net = Ipv4Net::new(address, net.prefix_len() - 96).ok()?;
        Some(format!("it stands for an IPv4 address: did you mean \"{}\"?", text(net.into())))
    } else {
        None
    }
}

/// Whether it is within fe80::/10 (RFC 4291, 2.5.6). An IPv4 link-local address can be a host's only one.
pub(super) fn is_link_local(net: IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.prefix_len() >= 10 && net.addr().is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn refused(text: &str) -> bool {
        read_prefix(text).is_err()
    }

    #[test]
    fn what_contains_more_than_a_special_range_is_taken() {
        for text in [
            "0.0.0.0/0",
            "128.0.0.0/1",
            "224.0.0.0/3",
            "126.0.0.0/7",
            "::/0",
            "::/95",
            "fe00::/7",
            "fe80::/9",
        ] {
            assert!(!refused(text), "{text}");
        }
        for text in [
            "224.0.0.0/4",
            "240.0.0.0/4",
            "127.0.0.0/8",
            "ff00::/8",
            "fe80::/10",
            "::ffff:0:0/96",
            "::1",
            "::",
        ] {
            assert!(refused(text), "{text}");
        }
    }

    #[test]
    fn an_address_is_found_within_what_programs_print() {
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        for text in ["[2001:db8::1]", "[2001:db8::1]:4789", "2001:db8::1%eth0", " 2001:db8::1 "] {
            assert_eq!(address_within(text), Some(v6), "{text}");
        }
        assert_eq!(address_within("192.0.2.1:4789"), Some(Ipv4Addr::new(192, 0, 2, 1).into()));
        assert_eq!(address_within("node2"), None);
    }
}
