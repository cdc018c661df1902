//! A peer: another task of the fleet.

use crate::route::RouteState;
use crate::timestamp::Timestamp;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether a peer takes new requests: `active` or `draining`, as with routes.
pub type PeerState = RouteState;

/// Where a peer is, and whether it takes new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address. The port is the same for all peers, and comes from the configuration.
    pub host: IpAddr,
    /// Whether new requests are sent to it.
    pub state: PeerState,
}

/// The number that stands for a peer in routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PeerNumber(pub(super) u16);

impl PeerNumber {
    /// The key of the peer in the table of peers, made of the characters of an id. Keys have the order of their numbers.
    pub(super) fn key(self) -> [u8; 4] {
        let letter = |shift: u32| b'a' + (self.0 >> shift & 15).to_le_bytes()[0];
        [letter(12), letter(8), letter(4), letter(0)]
    }

    /// The number with this key.
    pub(super) fn from_key(key: &[u8]) -> Option<Self> {
        let digits: &[u8; 4] = key.try_into().ok()?;
        let digit = |letter: u8| letter.checked_sub(b'a').filter(|digit| *digit < 16).map(u16::from);
        digits.iter().try_fold(0, |number, letter| Some(number << 4 | digit(*letter)?)).map(Self)
    }
}

/// A peer as it is stored, read in place:
///
/// ```text
/// state u8 | bytes of the address u8: 4 or 16 | since u64 | address | name      (little-endian)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredPeer<'a> {
    pub(super) name: &'a [u8],
    pub(super) peer: Peer,
    /// When this Envoy learned of the peer's present host and state.
    pub(super) since: Timestamp,
}

impl<'a> StoredPeer<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&[state, len, since @ ..], rest) = bytes.split_first_chunk::<10>()?;
        let state = match state {
            0 => PeerState::Active,
            1 => PeerState::Draining,
            _ => return None,
        };
        let (host, name) = match len {
            4 => rest.split_first_chunk().map(|(octets, name)| (Ipv4Addr::from(*octets).into(), name))?,
            16 => rest.split_first_chunk().map(|(octets, name)| (Ipv6Addr::from(*octets).into(), name))?,
            _ => return None,
        };
        Some(Self { name, peer: Peer { host, state }, since: Timestamp::from_unix(u64::from_le_bytes(since)) })
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let state = u8::from(self.peer.state == PeerState::Draining);
        let since = self.since.as_unix().to_le_bytes();
        match self.peer.host {
            IpAddr::V4(host) => [&[state, 4], &since[..], &host.octets(), self.name].concat(),
            IpAddr::V6(host) => [&[state, 16], &since[..], &host.octets(), self.name].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn is_read_as_it_was_written() {
        for (host, state) in [("10.0.1.7", PeerState::Active), ("fd00::7", PeerState::Draining)] {
            let peer = Peer { host: host.parse().expect("an address"), state };
            let name = [b'x'; 128];
            let stored = StoredPeer { name: &name, peer, since: Timestamp::from_unix(1_800_000_000) };
            let bytes = stored.to_bytes();
            assert!(bytes.len() <= 255, "a table's value has at most 255 bytes");
            assert_eq!(StoredPeer::parse(&bytes), Some(stored));
        }
    }

    #[test]
    fn damaged_bytes_are_no_peer() {
        assert!(StoredPeer::parse(&[0; 9]).is_none());
        let with = |state: u8, len: u8, address: &[u8]| [&[state, len, 1, 2, 3, 4, 5, 0, 0, 0], address].concat();
        assert!(StoredPeer::parse(&with(1, 4, &[1, 2, 3, 4])).is_some());
        for bytes in
            [with(0, 4, &[1, 2, 3]), with(2, 4, &[1, 2, 3, 4]), with(0, 5, &[1, 2, 3, 4, 5]), with(0, 16, &[1, 2, 3, 4])]
        {
            assert_eq!(StoredPeer::parse(&bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn every_number_has_a_key_in_its_order() {
        assert!((0..u16::MAX).all(|number| PeerNumber(number).key() < PeerNumber(number + 1).key()));
        assert!((0..=u16::MAX).all(|number| PeerNumber::from_key(&PeerNumber(number).key()) == Some(PeerNumber(number))));
        for key in [&b""[..], b"aaa", b"aaaaa", b"aaaq", b"aa`a", b"AAAA"] {
            assert_eq!(PeerNumber::from_key(key), None);
        }
    }
}
