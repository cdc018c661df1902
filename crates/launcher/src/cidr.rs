//! A network in CIDR notation, such as `10.0.1.0/24`, as the settings list it.

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
}

impl FromStr for Cidr {
    type Err = NotACidr;

    fn from_str(text: &str) -> Result<Self, NotACidr> {
        let (address, length) = text.split_once('/').ok_or(NotACidr)?;
        let address: IpAddr = address.parse().map_err(|_| NotACidr)?;
        let (bits, width) = match address {
            IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 32),
            IpAddr::V6(address) => (u128::from(address), 128),
        };
        let digits = !length.is_empty() && length.bytes().all(|c| c.is_ascii_digit());
        let prefix_len: u8 = length.parse().ok().filter(|length| digits && *length <= width).ok_or(NotACidr)?;
        // A bit beyond the prefix is a mistake: it is not clear whether one address or the network was meant.
        if bits.checked_shl(prefix_len.into()).unwrap_or(0) != 0 {
            return Err(NotACidr);
        }
        Ok(Self { address, prefix_len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_strictly() {
        for (text, address, prefix_len) in [
            ("10.0.1.0/24", "10.0.1.0", 24),
            ("10.0.1.7/32", "10.0.1.7", 32),
            ("0.0.0.0/0", "0.0.0.0", 0),
            ("fd00::/8", "fd00::", 8),
            ("::1/128", "::1", 128),
        ] {
            let cidr: Cidr = text.parse().unwrap();
            assert_eq!((cidr.address(), cidr.prefix_len()), (address.parse().unwrap(), prefix_len), "{text}");
        }
        for text in
            ["", "10.0.1.0", "10.0.1.0/", "10.0.1.0/33", "10.0.1.1/24", "10.0.1.0/+24", "10.0.1/24", "::1/64", "::/129", "a/8"]
        {
            assert_eq!(text.parse::<Cidr>(), Err(NotACidr), "{text}");
        }
    }
}
