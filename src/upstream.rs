//! The upstream: how the chosen port is handed to Envoy's ORIGINAL_DST clusters.
//!
//! Envoy takes the address from the filter state object `envoy.network.transport_socket.original_dst_address`, which the foreign
//! function `set_envoy_filter_state` sets. Its argument is the protobuf message `SetEnvoyFilterStateArguments`
//! (source/extensions/common/wasm/ext/set_envoy_filter_state.proto): path = 1, value = 2, span = 3.

/// Name of the foreign function.
pub const FUNCTION: &str = "set_envoy_filter_state";

const PATH: &[u8] = b"envoy.network.transport_socket.original_dst_address";
const HOST: &[u8] = b"127.0.0.1:";
/// The object lives as long as the request. (2 would be the connection, and would lead the next request astray.)
const SPAN_REQUEST: u8 = 1;

const PATH_TAG: u8 = 1 << 3 | 2;
const VALUE_TAG: u8 = 2 << 3 | 2;
const SPAN_TAG: u8 = 3 << 3;

/// Writes the foreign function's argument for a port; reused from request to request, so that nothing is allocated.
#[derive(Debug)]
pub struct Argument {
    bytes: Vec<u8>,
    fixed: usize,
}

impl Default for Argument {
    #[expect(clippy::cast_possible_truncation, reason = "both lengths are constants below 128, one byte of varint")]
    fn default() -> Self {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(&[PATH_TAG, PATH.len() as u8]);
        bytes.extend_from_slice(PATH);
        bytes.extend_from_slice(&[SPAN_TAG, SPAN_REQUEST, VALUE_TAG]);
        Self { fixed: bytes.len(), bytes }
    }
}

impl Argument {
    /// The argument that sends this request to `port` of 127.0.0.1.
    pub fn for_port(&mut self, port: u16) -> &[u8] {
        self.bytes.truncate(self.fixed);
        let mut digits = [0_u8; 5];
        let mut first = digits.len();
        let mut rest = port;
        for (at, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            first = at;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let digits = digits.get(first..).unwrap_or_default();
        self.bytes.push(u8::try_from(HOST.len() + digits.len()).unwrap_or_default());
        self.bytes.extend_from_slice(HOST);
        self.bytes.extend_from_slice(digits);
        &self.bytes
    }
}

/// The property that holds the address which the request was sent to before, `address:port`. (The filter state that [`FUNCTION`] sets
/// cannot be read back: it has no form that Envoy gives a filter.)
pub const ADDRESS_PROPERTY: &str = "upstream\0address";

/// The port of an address as [`Argument::for_port`] writes it; `None` for any other.
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
        let mut argument = Argument::default();
        for port in [1, 9, 10, 80, 999, 1024, 50054, 65535, 7] {
            let value = format!("127.0.0.1:{port}");
            let mut expected = vec![0x0a, 51];
            expected.extend_from_slice(b"envoy.network.transport_socket.original_dst_address");
            expected.extend_from_slice(&[0x18, 1, 0x12, u8::try_from(value.len()).expect("short")]);
            expected.extend_from_slice(value.as_bytes());
            assert_eq!(argument.for_port(port), expected);
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
