//! A network in CIDR notation, such as `10.0.1.0/24`, as settings list it.

use std::net::IpAddr;
use std::str::FromStr;

/// An IPv4 or IPv6 network. Its address has no bit set beyond the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix_len: u8,
}

/// The text is not a network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotACidr;

impl Cidr {
    /// The network's first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits all its addresses share.
    #[must_use]
    pub const fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Whether the address is one of the network's. (An IPv4-mapped IPv6 address is in no IPv4 network.)
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differing = leading_bits(self.address) ^ leading_bits(address);
        self.address.is_ipv4() == address.is_ipv4() && differing.leading_zeros() >= u32::from(self.prefix_len)
    }
}

/// The bits of an address, from the highest bit on.
fn leading_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    }
}

impl FromStr for Cidr {
    type Err = NotACidr;

    fn from_str(text: &str) -> Result<Self, NotACidr> {
        let (address, length) = text.split_once('/').ok_or(NotACidr)?;
        let address: IpAddr = address.parse().map_err(|_| NotACidr)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let digits = !length.is_empty() && length.bytes().all(|c| c.is_ascii_digit());
        let prefix_len: u8 = length.parse().ok().filter(|length| digits && *length <= width).ok_or(NotACidr)?;
        // A bit beyond the prefix is a mistake: it is not clear whether one address or the network was meant.
        if leading_bits(address).checked_shl(prefix_len.into()).unwrap_or(0) != 0 {
            return Err(NotACidr);
        }
        Ok(Self { address, prefix_len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_network_is_read_strictly() {
        for (text, address, prefix_len) in [
            ("10.0.1.0/24", "10.0.1.0", 24),
            ("10.0.1.7/32", "10.0.1.7", 32),
            ("0.0.0.0/0", "0.0.0.0", 0),
            ("fd00::/8", "fd00::", 8),
            ("::1/128", "::1", 128),
        ] {
            let cidr: Cidr = text.parse().expect("a network");
            assert_eq!((cidr.address(), cidr.prefix_len()), (address.parse().expect("an address"), prefix_len), "{text}");
        }
        for text in
            ["", "10.0.1.0", "10.0.1.0/", "10.0.1.0/33", "10.0.1.1/24", "10.0.1.0/+24", "10.0.1/24", "::1/64", "::/129", "a/8"]
        {
            assert_eq!(text.parse::<Cidr>(), Err(NotACidr), "{text}");
        }
    }

    #[test]
    fn an_address_is_in_a_network_of_its_own_family() {
        #[track_caller]
        fn check(network: &str, inside: &[&str], outside: &[&str]) {
            let network: Cidr = network.parse().expect("a network");
            for (addresses, expected) in [(inside, true), (outside, false)] {
                for address in addresses {
                    assert_eq!(network.contains(address.parse().expect("an address")), expected, "{address}");
                }
            }
        }
        check("10.0.1.0/24", &["10.0.1.0", "10.0.1.255"], &["10.0.0.255", "10.0.2.0", "::ffff:10.0.1.1", "a00:100::"]);
        check("10.0.1.7/32", &["10.0.1.7"], &["10.0.1.6"]);
        check("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::", "::ffff:10.0.1.1"]);
        check("fd00::/8", &["fd00::", "fdff::1"], &["fc00::", "fe00::", "253.0.0.0"]);
        check("::/0", &["::1", "::ffff:10.0.1.1"], &["10.0.1.1"]);
        check("fd00::1/128", &["fd00::1"], &["fd00::2"]);
    }
}
