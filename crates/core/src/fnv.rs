//! FNV-1a, a short and quick hash. It does not resist collisions that somebody chooses.

/// What a hash begins with.
pub(crate) const BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// What it is multiplied by after each step.
pub(crate) const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The hash of these bytes, of 64 bits.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The values of <http://www.isthe.com/chongo/tech/comp/fnv/>.
    #[test]
    fn hashes_as_published() {
        for (text, hash) in [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)] {
            assert_eq!(super::hash(text.as_bytes()), hash, "{text}");
        }
    }
}
