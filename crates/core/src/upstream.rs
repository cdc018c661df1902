//! The upstream: how the chosen port, and the deployment it was chosen for, are handed to Envoy's ORIGINAL_DST clusters.
//!
//! Envoy takes the address from the filter state object `envoy.network.transport_socket.original_dst_address`, which the foreign
//! function `set_envoy_filter_state` sets. Its argument is the protobuf message `SetEnvoyFilterStateArguments`
//! (source/extensions/common/wasm/ext/set_envoy_filter_state.proto): path = 1, value = 2, span = 3.

use std::borrow::Cow;
use std::net::SocketAddr;

/// Name of the foreign function.
pub const FUNCTION: &str = "set_envoy_filter_state";

/// The filter state object that an ORIGINAL_DST cluster takes the address from.
pub const ADDRESS: &str = "envoy.network.transport_socket.original_dst_address";
/// What is set under this name becomes part of the key of Envoy's connection pools. So a connection that was opened for one deployment
/// is never used for another one, which may have got the port since. (Connections to agents use no TLS, so the name says nothing to
/// them. Envoy's filter `set_filter_state` can set an object made for this purpose, but costs each request more.)
pub const POOL: &str = "envoy.network.upstream_server_name";
const HOST: &[u8] = b"127.0.0.1:";
/// The object lives as long as the request. (2 would be the connection, and would lead the next request astray.)
const SPAN_REQUEST: u8 = 1;

const PATH_TAG: u8 = 1 << 3 | 2;
const VALUE_TAG: u8 = 2 << 3 | 2;
const SPAN_TAG: u8 = 3 << 3;

/// The address of a port, `127.0.0.1:<port>`, written without an allocation.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    digits: [u8; HOST.len() + 5],
    first: usize,
}

impl Address {
    /// The address of `port`.
    #[must_use]
    pub fn of(port: u16) -> Self {
        let mut address = Self { digits: [0; HOST.len() + 5], first: HOST.len() + 5 };
        let mut rest = port;
        for (at, digit) in address.digits.iter_mut().enumerate().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            address.first = at;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let host = address.first.saturating_sub(HOST.len());
        for (place, byte) in address.digits.iter_mut().skip(host).zip(HOST) {
            *place = *byte;
        }
        address.first = host;
        address
    }

    /// Its text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.digits.get(self.first..).unwrap_or_default()
    }
}

/// What stands for a deployment in the key of connection pools.
#[must_use]
pub fn pool(id: &[u8]) -> Cow<'_, [u8]> {
    if !may_have_uppercase(id) {
        return id.into();
    }
    // Envoy folds the case of this name. Nothing in an id is a `^`, so different ids stay different.
    id.iter().flat_map(|byte| byte.is_ascii_uppercase().then_some(b'^').into_iter().chain([*byte])).collect()
}

/// Whether a byte of an id is an uppercase letter, or `_`, which is as rare: eight bytes at a time, 80 instructions of a request less than
/// one by one (the cost test counts them).
fn may_have_uppercase(id: &[u8]) -> bool {
    let (words, rest) = id.as_chunks();
    let any = words.iter().any(|word| {
        let word = u64::from_ne_bytes(*word);
        // Of the bytes in an id, these alone have the bit 0x40 without the bit 0x20.
        word & !(word << 1) & 0x4040_4040_4040_4040 != 0
    });
    any || rest.iter().any(u8::is_ascii_uppercase)
}

/// The arguments of the foreign function's two calls for a request; reused from request to request, so that nothing is allocated.
#[derive(Debug)]
pub struct Arguments {
    address: Message,
    pool: Message,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { address: Message::of(ADDRESS), pool: Message::of(POOL) }
    }
}

impl Arguments {
    /// The argument that sends the request to `port` of 127.0.0.1.
    pub fn address(&mut self, port: u16) -> &[u8] {
        self.address.with(Address::of(port).as_bytes())
    }

    /// The argument that sends the request to a peer.
    pub fn peer(&mut self, address: SocketAddr) -> &[u8] {
        self.address.with(address.to_string().as_bytes())
    }

    /// The argument that keeps the request to connections that were opened for this deployment.
    pub fn pool(&mut self, id: &[u8]) -> &[u8] {
        self.pool.with(&pool(id))
    }
}

/// A message whose value is replaced for each request.
#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
    fixed: usize,
}

impl Message {
    #[expect(clippy::cast_possible_truncation, reason = "both paths are constants shorter than 128, one byte of varint")]
    fn of(path: &str) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[PATH_TAG, path.len() as u8]);
        bytes.extend_from_slice(path.as_bytes());
        bytes.extend_from_slice(&[SPAN_TAG, SPAN_REQUEST, VALUE_TAG]);
        Self { fixed: bytes.len(), bytes }
    }

    fn with(&mut self, value: &[u8]) -> &[u8] {
        self.bytes.truncate(self.fixed);
        let mut len = value.len();
        // Protobuf's varint: seven bits in each byte, the lowest first; the top bit says that more follow.
        while let Ok(more) = u8::try_from(len & 0x7f | 0x80)
            && len > 0x7f
        {
            self.bytes.push(more);
            len >>= 7;
        }
        self.bytes.push(u8::try_from(len).unwrap_or_default());
        self.bytes.extend_from_slice(value);
        &self.bytes
    }
}

/// The property that holds the address which the request was sent to before, `address:port`. (The filter state that [`FUNCTION`] sets
/// cannot be read back: it has no form that Envoy gives a filter.)
pub const ADDRESS_PROPERTY: &str = "upstream\0address";

/// The port of an address as [`Address`] writes it; `None` for any other.
#[must_use]
pub fn port_of(address: &[u8]) -> Option<u16> {
    std::str::from_utf8(address.strip_prefix(HOST)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn writes_the_message_for_any_port() {
        let mut arguments = Arguments::default();
        for port in [1, 9, 10, 80, 999, 1024, 50054, 65535, 7] {
            let value = format!("127.0.0.1:{port}");
            let mut expected = vec![0x0a, 51];
            expected.extend_from_slice(b"envoy.network.transport_socket.original_dst_address");
            expected.extend_from_slice(&[0x18, 1, 0x12, u8::try_from(value.len()).expect("short")]);
            expected.extend_from_slice(value.as_bytes());
            assert_eq!(arguments.address(port), expected);
        }
    }

    #[test]
    fn writes_the_message_for_any_peer() {
        let mut arguments = Arguments::default();
        for address in ["10.0.1.7:50050", "[fd00::7]:1"] {
            let written = arguments.peer(address.parse().expect("an address")).to_vec();
            assert!(written.ends_with(address.as_bytes()) && written.contains(&u8::try_from(address.len()).expect("short")));
        }
        assert!(arguments.address(7).ends_with(b"127.0.0.1:7"));
    }

    #[test]
    fn writes_the_message_for_any_deployment() {
        let mut arguments = Arguments::default();
        for (len, varint) in [(1, &[1][..]), (127, &[127]), (128, &[0x80, 1]), (300, &[0xac, 2])] {
            let id = "x".repeat(len);
            let mut expected = vec![0x0a, 34];
            expected.extend_from_slice(b"envoy.network.upstream_server_name");
            expected.extend_from_slice(&[0x18, 1, 0x12]);
            expected.extend_from_slice(varint);
            expected.extend_from_slice(id.as_bytes());
            assert_eq!(arguments.pool(id.as_bytes()), expected, "{len}");
        }
    }

    #[test]
    fn tells_deployments_apart_if_case_is_folded() {
        let mut arguments = Arguments::default();
        let mut folded = |id: &str| arguments.pool(id.as_bytes()).to_ascii_lowercase();
        let ids =
            ["ab", "Ab", "aB", "AB", "abcdefgh_ijklm", "Abcdefgh_ijklm", "0123456A", "0123456a", "01234567A", "01234567a"];
        let all = ids.map(&mut folded);
        for (number, one) in all.iter().enumerate() {
            assert!(all.iter().skip(number + 1).all(|other| other != one), "{all:?}");
        }
    }

    #[test]
    fn reads_the_port_back() {
        for port in [1, 80, 50054, 65535] {
            assert_eq!(port_of(format!("127.0.0.1:{port}").as_bytes()), Some(port));
        }
        for other in ["", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:+", "127.0.0.2:80", "[::1]:80"] {
            assert_eq!(port_of(other.as_bytes()), None, "{other}");
        }
    }
}
