//! A stand-in for Envoy: the shared data, metrics and clock that the modules use, in memory.

use std::collections::BTreeMap;

/// The state that all modules with the same `vm_id` share.
#[derive(Debug, Default)]
pub(crate) struct Host {
    shared: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    last_cas: u32,
    metrics: Vec<(Vec<u8>, u64)>,
    now: u64,
}

/// Statuses of the proxy-wasm ABI.
pub(crate) const OK: i32 = 0;
pub(crate) const NOT_FOUND: i32 = 1;
pub(crate) const CAS_MISMATCH: i32 = 8;

impl Host {
    /// The value of a key of shared data, and its compare-and-swap number.
    pub(crate) fn get(&self, key: &[u8]) -> Option<(Vec<u8>, u32)> {
        self.shared.get(key).cloned()
    }

    /// Sets a key of shared data if its compare-and-swap number is still `cas`, or if `cas` is 0.
    pub(crate) fn set(&mut self, key: Vec<u8>, value: Vec<u8>, cas: u32) -> i32 {
        if cas != 0 && self.shared.get(&key).is_some_and(|(_, current)| *current != cas) {
            return CAS_MISMATCH;
        }
        self.last_cas += 1;
        self.shared.insert(key, (value, self.last_cas));
        OK
    }

    /// The number of the metric `name`, which is defined if it is new.
    pub(crate) fn define(&mut self, name: &[u8]) -> u32 {
        let known = self.metrics.iter().position(|(known, _)| known == name);
        let number = known.unwrap_or_else(|| {
            self.metrics.push((name.to_vec(), 0));
            self.metrics.len() - 1
        });
        u32::try_from(number).unwrap()
    }

    pub(crate) fn metric(&mut self, number: u32) -> &mut u64 {
        &mut self.metrics[number as usize].1
    }

    /// Nanoseconds since the Unix epoch. Each call returns a millisecond more.
    pub(crate) fn now(&mut self) -> u64 {
        self.now += 1_000_000;
        1_700_000_000_000_000_000 + self.now
    }
}

#[test]
fn the_stand_in_keeps_to_envoys_rules() {
    let mut host = Host::default();
    assert_eq!(host.get(b"k"), None);
    assert_eq!(host.set(b"k".to_vec(), vec![1], 0), OK);
    let (_, cas) = host.get(b"k").unwrap();
    assert_eq!(host.set(b"k".to_vec(), vec![2], cas + 1), CAS_MISMATCH);
    assert_eq!(host.set(b"k".to_vec(), vec![3], cas), OK);
    assert_eq!(host.get(b"k").unwrap().0, [3]);
    assert_eq!((host.define(b"a"), host.define(b"b"), host.define(b"a")), (0, 1, 0));
}
