//! A preference: the peers of a route, the first choice first.

use super::peer::PeerNumber;

/// The numbers of 1 to [`Preference::MOST`] peers, as a route holds them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Preference {
    numbers: [[u8; 2]; Preference::MOST],
    len: usize,
}

impl Preference {
    /// Most peers of a route.
    pub const MOST: usize = 16;

    /// Those of `numbers`, of which there are 1 to [`Self::MOST`]; `None` if there are not.
    pub(super) fn of(numbers: impl Iterator<Item = PeerNumber>) -> Option<Self> {
        let mut preference = Self { numbers: [[0; 2]; Self::MOST], len: 0 };
        for PeerNumber(number) in numbers {
            *preference.numbers.get_mut(preference.len)? = number.to_le_bytes();
            preference.len += 1;
        }
        (preference.len > 0).then_some(preference)
    }

    /// Reads what [`Self::as_bytes`] gave; `None` for anything else.
    pub(super) fn parse(stored: &[u8]) -> Option<Self> {
        if stored.len().is_multiple_of(2) { Self::of(numbers(stored)) } else { None }
    }

    /// The stored form: each number as two bytes, little-endian.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.numbers.get(..self.len).unwrap_or_default().as_flattened()
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = PeerNumber> {
        numbers(self.as_bytes())
    }
}

impl std::fmt::Debug for Preference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.numbers().map(|PeerNumber(number)| number)).finish()
    }
}

/// The numbers of a stored preference.
pub(super) fn numbers(stored: &[u8]) -> impl Iterator<Item = PeerNumber> {
    stored.as_chunks().0.iter().map(|bytes| PeerNumber(u16::from_le_bytes(*bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn is_read_as_it_was_written() {
        for len in 1..=16 {
            let numbers = || (0..len).map(|n| PeerNumber(n * 4000 + 7));
            let preference = Preference::of(numbers()).expect("not empty");
            assert_eq!(Preference::parse(preference.as_bytes()), Some(preference));
            assert!(preference.numbers().eq(numbers()));
        }
    }

    #[test]
    fn has_1_to_16_peers() {
        assert_eq!(Preference::of(std::iter::empty()), None);
        assert_eq!(Preference::of((0..17).map(PeerNumber)), None);
        assert_eq!((Preference::parse(&[]), Preference::parse(&[1]), Preference::parse(&[1; 34])), (None, None, None));
    }
}
