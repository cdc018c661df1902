//! Bodies that are still arriving. What all of them hold together is bounded, so that no number of clients can use up the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What all unfinished bodies hold together, in bytes.
#[derive(Clone, Debug)]
pub struct Unfinished {
    held: Arc<AtomicUsize>,
    most: usize,
}

impl Unfinished {
    /// None yet; room for `bodies` of `largest` bytes.
    #[must_use]
    pub fn new(largest: usize, bodies: usize) -> Self {
        Self { held: Arc::default(), most: largest.saturating_mul(bodies) }
    }

    /// A body that holds nothing yet.
    #[must_use]
    pub fn body(&self) -> Body {
        Body { all: self.clone(), bytes: 0 }
    }
}

/// One body; what it holds is given back when it is dropped.
#[derive(Debug)]
pub struct Body {
    all: Unfinished,
    bytes: usize,
}

impl Body {
    /// How many bytes have arrived.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// So many bytes have arrived by now; false if that is more than there is room for.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        self.all.held.fetch_add(more, Ordering::Relaxed).saturating_add(more) <= self.all.most
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.all.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn bodies_share_what_room_there_is_and_give_it_back() {
        let all = Unfinished::new(10, 4);
        let (mut one, mut two) = (all.body(), all.body());
        assert!(one.grow(10) && one.grow(10) && one.grow(5) && two.grow(30));
        assert_eq!((one.bytes(), two.bytes()), (10, 30));
        let mut three = all.body();
        assert!(!three.grow(1));
        drop(two);
        assert!(three.grow(2));
        drop((one, three));
        assert_eq!(all.held.load(Ordering::Relaxed), 0);
    }
}
