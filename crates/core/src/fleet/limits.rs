//! What a fleet map may hold.

use super::change::Most;
use crate::cidr::Cidr;
use std::net::{IpAddr, Ipv4Addr};

/// The most peers of a map.
pub const MOST_PEERS: usize = 1_000;

/// The most routes of a map.
pub const MOST_ROUTES: usize = 100_000;

/// The limits of a fleet map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetLimits {
    /// The networks that peers are in; at least one.
    pub peer_cidrs: Vec<Cidr>,
    /// Most peers; 1 to [`MOST_PEERS`], which is the default.
    pub max_peers: usize,
    /// Most routes; 1 to [`MOST_ROUTES`], which is the default.
    pub max_routes: usize,
    /// Longest id in bytes, as in the route map.
    pub max_id_bytes: usize,
}

impl FleetLimits {
    /// A body that holds `max_routes` routes with the longest ids, each with one of the longest names or with a few shorter ones, and as
    /// many peers as there may be.
    #[must_use]
    pub const fn body_bytes(&self) -> usize {
        4096 + self.max_routes * (self.max_id_bytes + 160) + self.max_peers * 256
    }

    /// The numbers that a change is judged by.
    #[must_use]
    pub const fn most(&self) -> Most {
        Most { peers: self.max_peers, routes: self.max_routes }
    }

    /// Reads the address of a peer.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_host(&self, text: &str) -> Result<IpAddr, InvalidHost> {
        let host: IpAddr = text.parse().map_err(|_| InvalidHost::NoAddress)?;
        if let Some(kind) = kind_of(host) {
            return Err(InvalidHost::NoPeers(kind));
        }
        if let IpAddr::V6(address) = host
            && let Some(embedded) = address.to_ipv4()
        {
            return Err(InvalidHost::Embedded(embedded));
        }
        if self.peer_cidrs.iter().any(|cidr| cidr.contains(host)) { Ok(host) } else { Err(InvalidHost::Outside) }
    }
}

/// Why a text cannot be the address of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidHost {
    /// It is no literal address.
    NoAddress,
    /// It is an address of this kind, which cannot be a peer's.
    NoPeers(&'static str),
    /// It is an IPv4 address in the form of an IPv6 one.
    Embedded(Ipv4Addr),
    /// It is in none of the configured networks.
    Outside,
}

impl std::fmt::Display for InvalidHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAddress => f.write_str("must be a literal IPv4 or IPv6 address, such as 10.0.1.7"),
            Self::NoPeers(kind) => write!(f, "is a {kind} address, which cannot be a peer's"),
            Self::Embedded(address) => write!(f, "is an IPv4 address in the form of an IPv6 one; write {address}"),
            Self::Outside => f.write_str("is in none of the configured peer_cidrs"),
        }
    }
}

impl std::error::Error for InvalidHost {}

/// The kind of an address that is never a peer's; an IPv4 address inside an IPv6 one counts, too.
fn kind_of(address: IpAddr) -> Option<&'static str> {
    let embedded = if let IpAddr::V6(address) = address { address.to_ipv4() } else { None };
    own_kind(address).or_else(|| own_kind(embedded?.into()))
}

fn own_kind(address: IpAddr) -> Option<&'static str> {
    let (unspecified, link_local, broadcast) = match address {
        // All of 0.0.0.0/8 stands for the host itself (RFC 6890).
        IpAddr::V4(address) => (address.octets()[0] == 0, address.is_link_local(), address.is_broadcast()),
        IpAddr::V6(address) => (address.is_unspecified(), address.is_unicast_link_local(), false),
    };
    let kinds = [
        ("unspecified", unspecified),
        ("loopback", address.is_loopback()),
        ("link-local", link_local),
        ("multicast", address.is_multicast()),
        ("broadcast", broadcast),
    ];
    kinds.into_iter().find(|(_, is)| *is).map(|(kind, _)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn limits(cidrs: &[&str]) -> FleetLimits {
        let peer_cidrs = cidrs.iter().map(|cidr| cidr.parse().expect("a network")).collect();
        FleetLimits { peer_cidrs, max_peers: 3, max_routes: 3, max_id_bytes: 128 }
    }

    #[test]
    fn a_host_is_an_address_in_one_of_the_networks() {
        let some = limits(&["10.0.1.0/24", "fd00::/8"]);
        for host in ["10.0.1.7", "fd00::7", "FD00:0::7"] {
            assert_eq!(some.parse_host(host), Ok(host.parse().expect("an address")));
        }
        for host in ["10.0.2.7", "fe00::7"] {
            assert_eq!(some.parse_host(host), Err(InvalidHost::Outside), "{host}");
        }
        for host in
            ["", "task-b", "10.0.1", "10.0.1.7:50050", "[fd00::7]", "10.0.1.07", "10.0.1.7 ", "fe80::1%eth0", "0x0a000107"]
        {
            assert_eq!(some.parse_host(host), Err(InvalidHost::NoAddress), "{host}");
        }
    }

    #[test]
    fn no_network_makes_these_a_peer() {
        let all = limits(&["0.0.0.0/0", "::/0"]);
        for (kind, hosts) in [
            ("unspecified", &["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0"][..]),
            ("loopback", &["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1"]),
            ("link-local", &["169.254.170.2", "fe80::1", "febf::1", "::ffff:169.254.169.254"]),
            ("multicast", &["224.0.0.1", "239.255.255.255", "ff02::1", "::ffff:224.0.0.1"]),
            ("broadcast", &["255.255.255.255", "::ffff:255.255.255.255"]),
        ] {
            for host in hosts {
                assert_eq!(all.parse_host(host), Err(InvalidHost::NoPeers(kind)), "{host}");
            }
        }
        for host in ["::ffff:10.0.1.7", "::ffff:a00:107", "::10.0.1.7"] {
            assert_eq!(all.parse_host(host), Err(InvalidHost::Embedded([10, 0, 1, 7].into())), "{host}");
        }
        assert!(all.parse_host("10.0.1.7").is_ok() && all.parse_host("2001:db8::7").is_ok());
    }
}
