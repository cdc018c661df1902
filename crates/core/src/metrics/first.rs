//! The first events of each kind, which are logged whatever the rate of the log.

use std::sync::atomic::{AtomicU8, Ordering};

/// How many events of each kind are logged whatever the rate.
pub const FIRST_LOGGED: u8 = 10;

/// How many of each kind are left. With Wasm each worker has numbers of its own; in the native module all workers share them.
#[derive(Debug)]
pub struct First<const N: usize> {
    kinds: [&'static str; N],
    left: [AtomicU8; N],
}

impl<const N: usize> First<N> {
    /// [`FIRST_LOGGED`] of each of these kinds.
    #[must_use]
    pub const fn of(kinds: [&'static str; N]) -> Self {
        Self { kinds, left: [const { AtomicU8::new(FIRST_LOGGED) }; N] }
    }

    /// Takes one of a kind; `false` if there is none left, or no such kind.
    pub fn take(&self, kind: &str) -> bool {
        let of_kind = self.kinds.iter().zip(&self.left).find(|(known, _)| **known == kind);
        let less = |left: u8| left.checked_sub(1);
        of_kind.is_some_and(|(_, left)| left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn each_kind_has_its_own() {
        let first = First::of(["a", "b"]);
        let taken = |kind| (0..300).filter(|_| first.take(kind)).count();
        assert_eq!((taken("a"), taken("b"), taken("c")), (10, 10, 0));
    }
}
