//! Shared data and a change signal in this process's memory: for hosts that have none of their own, and for tests.

use super::{CasMismatch, ChangeSignal, SharedData};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// [`SharedData`] with Envoy's numbering: the first set makes 1, each later one adds 1.
#[derive(Debug, Default)]
pub struct MemoryData(Mutex<HashMap<String, (Vec<u8>, u32)>>);

impl MemoryData {
    /// How many keys there are.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.entries().len()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, (Vec<u8>, u32)>> {
        // Every change is one step, so a panic elsewhere leaves nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedData for MemoryData {
    fn get(&self, key: &str) -> (Vec<u8>, u32) {
        self.entries().get(key).cloned().unwrap_or_default()
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), CasMismatch> {
        let mut entries = self.entries();
        match entries.get_mut(key) {
            Some((_, number)) if cas != 0 && cas != *number => Err(CasMismatch),
            Some((present, number)) => {
                value.clone_into(present);
                *number = number.wrapping_add(1).max(1);
                Ok(())
            }
            None => {
                entries.insert(key.to_owned(), (value.to_owned(), 1));
                Ok(())
            }
        }
    }
}

/// [`ChangeSignal`] as a counter.
#[derive(Debug, Default)]
pub struct MemorySignal(AtomicU64);

impl ChangeSignal for MemorySignal {
    fn read(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn raise(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn numbers_as_envoy_does() {
        let data = MemoryData::default();
        assert_eq!(data.get("a"), (vec![], 0));
        assert_eq!(data.set("a", b"1", 7), Ok(()), "a key that was never set takes any number");
        assert_eq!(data.get("a"), (b"1".to_vec(), 1));
        assert_eq!(data.set("a", b"2", 2), Err(CasMismatch));
        assert_eq!(data.set("a", b"2", 1), Ok(()));
        assert_eq!(data.set("a", b"3", 0), Ok(()));
        assert_eq!((data.get("a"), data.keys()), ((b"3".to_vec(), 3), 1));
    }
}
