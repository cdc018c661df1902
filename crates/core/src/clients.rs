//! What each client address holds: its connections, and its requests to each agent. Counted for all workers together, in shared data.
//!
//! A guest cannot delete a key of shared data, and there is no limit to addresses. So they share a fixed set of keys, *buckets*, each of which lists
//! the addresses that hold something. Every worker also remembers what it holds itself, because a worker whose VM crashes
//! cannot give back what it held. Its next VM begins a new *era*: buckets of an earlier one count as empty, and each worker that
//! notices the new era adds what it holds.

use crate::fnv::hash;
use crate::store::SharedData;
use crate::store::layout::{CLIENT_BUCKETS, CLIENT_ERA};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// How many keys the addresses share. Each holds some hundred bytes if the most connections there can be have an address each.
const BUCKETS: usize = 128;
/// How often a change is tried while other workers change the same bucket.
const ATTEMPTS: usize = 1_000;
/// An address in sixteen bytes, and a hash of the agent's id; 0 for connections.
const KEY_LEN: usize = 24;
const ENTRY_LEN: usize = KEY_LEN + size_of::<u32>();
const ERA_LEN: usize = size_of::<u64>();

/// Who holds something of what: a client address, and requests to an agent or connections to Envoy.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Holder([u8; KEY_LEN]);

impl Holder {
    /// The client at `address`, an address with a port as Envoy writes it; `None` if it is no such address. A network of 64 bits counts
    /// as one client in IPv6: it is the least that one is given.
    #[must_use]
    pub fn of(address: &[u8], deployment: Option<&[u8]>) -> Option<Self> {
        let address: SocketAddr = str::from_utf8(address).ok()?.parse().ok()?;
        let bytes = match address.ip().to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => (u128::from(address) >> 64 << 64).to_be_bytes(),
        };
        let mut key = [0; KEY_LEN];
        let parts = bytes.into_iter().chain(deployment.map_or(0, hash).to_be_bytes());
        key.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        Some(Self(key))
    }

    fn bucket(&self) -> String {
        bucket(usize::try_from(hash(&self.0) >> 32).unwrap_or_default() % BUCKETS)
    }
}

fn bucket(number: usize) -> String {
    format!("{CLIENT_BUCKETS}{number}")
}

/// What one worker knows of what clients hold.
#[derive(Debug, Default)]
pub struct Clients {
    era: u64,
    /// What clients hold on this worker.
    held: HashMap<Holder, u32>,
}

impl Clients {
    /// To be called once for each VM, before anything else.
    pub fn begin(data: &impl SharedData) {
        for number in 0..BUCKETS {
            let key = bucket(number);
            if data.get(&key).1 == 0 {
                // A number of 0 means that nobody has written yet: Envoy configures the first VM before there is a worker.
                let _ = data.set(&key, &[], 0);
            }
        }
        for _ in 0..ATTEMPTS {
            let (value, cas) = data.get(CLIENT_ERA);
            if data.set(CLIENT_ERA, &number(&value).wrapping_add(1).to_le_bytes(), cas).is_ok() {
                break;
            }
        }
    }

    /// Lets `holder` hold one more, unless it holds `limit` already.
    pub fn take(&mut self, data: &impl SharedData, holder: Holder, limit: u32) -> bool {
        let taken = self.change(data, holder, |count| (count < limit).then(|| count + 1));
        if taken {
            let held = self.held.entry(holder).or_default();
            *held = held.saturating_add(1);
        }
        taken
    }

    /// Gives back one that `holder` took on this worker.
    pub fn give_back(&mut self, data: &impl SharedData, holder: Holder) {
        let Some(held) = self.held.get(&holder).copied() else { return };
        self.change(data, holder, |count| Some(count.saturating_sub(1)));
        if held > 1 {
            self.held.insert(holder, held - 1);
        } else {
            self.held.remove(&holder);
        }
    }

    /// Adds what is held here to a new era.
    pub fn notice(&mut self, data: &impl SharedData) {
        loop {
            let now = number(&data.get(CLIENT_ERA).0);
            if now == self.era {
                return;
            }
            self.era = now;
            let add =
                |(holder, mine): (&Holder, &u32)| self.change_once(data, *holder, |count| Some(count.saturating_add(*mine)));
            // If the era ends meanwhile, what was added to it counts for nothing.
            if self.held.iter().map(add).all(|added| added.is_ok()) {
                return;
            }
        }
    }

    /// Replaces the count of `holder` by what `change` makes of it. If that is `None`, the count stays, and the result is false.
    fn change(&mut self, data: &impl SharedData, holder: Holder, change: impl Fn(u32) -> Option<u32>) -> bool {
        loop {
            self.notice(data);
            if let Ok(changed) = self.change_once(data, holder, &change) {
                return changed;
            }
        }
    }

    /// The same in this worker's era.
    fn change_once(
        &self,
        data: &impl SharedData,
        holder: Holder,
        change: impl Fn(u32) -> Option<u32>,
    ) -> Result<bool, EraEnded> {
        let key = holder.bucket();
        for _ in 0..ATTEMPTS {
            let (value, cas) = data.get(&key);
            let mut bucket = Bucket::read(&value);
            if bucket.era > self.era {
                return Err(EraEnded);
            }
            if bucket.era < self.era {
                bucket = Bucket { era: self.era, counts: Vec::new() };
            }
            let Some(count) = change(bucket.count(holder)) else { return Ok(false) };
            bucket.set(holder, count);
            if data.set(&key, &bucket.write(), cas).is_ok() {
                return Ok(true);
            }
        }
        // Other workers were faster every time. A count that is too low rejects nobody.
        Ok(true)
    }
}

/// Another worker has already noticed a new era.
struct EraEnded;

/// The holders that share a key, and how much each holds.
#[derive(Debug, PartialEq)]
struct Bucket {
    era: u64,
    counts: Vec<(Holder, u32)>,
}

impl Bucket {
    fn read(value: &[u8]) -> Self {
        let (era, rest) = value.split_at_checked(ERA_LEN).unwrap_or_default();
        let entry = |bytes: &[u8]| {
            let (key, count) = bytes.split_at_checked(KEY_LEN)?;
            Some((Holder(key.try_into().ok()?), u32::from_le_bytes(count.try_into().ok()?)))
        };
        Self { era: number(era), counts: rest.chunks_exact(ENTRY_LEN).filter_map(entry).collect() }
    }

    fn write(&self) -> Vec<u8> {
        let mut value = self.era.to_le_bytes().to_vec();
        for (holder, count) in &self.counts {
            value.extend_from_slice(&holder.0);
            value.extend_from_slice(&count.to_le_bytes());
        }
        value
    }

    fn count(&self, holder: Holder) -> u32 {
        self.counts.iter().find(|(other, _)| *other == holder).map_or(0, |(_, count)| *count)
    }

    fn set(&mut self, holder: Holder, count: u32) {
        self.counts.retain(|(other, _)| *other != holder);
        if count > 0 {
            self.counts.push((holder, count));
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// Connections that have not sent a byte yet.
#[derive(Debug, Default)]
pub struct Silent {
    /// Ticks that each connection has left, by Envoy's number of it.
    left: HashMap<u32, u32>,
}

impl Silent {
    /// How long a connection may say nothing, in ticks of a second.
    pub const LIMIT: u32 = 15;

    /// A connection was opened.
    pub fn add(&mut self, connection: u32) {
        self.left.insert(connection, Self::LIMIT);
    }

    /// It has sent something, or has ended.
    pub fn remove(&mut self, connection: u32) {
        self.left.remove(&connection);
    }

    /// Begins the next second, and gives the connections whose time is up.
    pub fn tick(&mut self) -> Vec<u32> {
        for left in self.left.values_mut() {
            *left = left.saturating_sub(1);
        }
        self.left.iter().filter(|(_, left)| **left == 0).map(|(connection, _)| *connection).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryData;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn holder(address: &str) -> Holder {
        Holder::of(address.as_bytes(), None).unwrap()
    }

    /// The counts of all holders in shared data.
    fn total(data: &MemoryData) -> u32 {
        let era = number(&data.get(CLIENT_ERA).0);
        let buckets = (0..BUCKETS).map(|number| Bucket::read(&data.get(&bucket(number)).0));
        buckets.filter(|bucket| bucket.era == era).flat_map(|bucket| bucket.counts).map(|(_, count)| count).sum()
    }

    #[test]
    fn a_client_is_an_address_or_a_network_of_64_bits() {
        assert_eq!(holder("10.0.0.1:1"), holder("10.0.0.1:65535"));
        assert_eq!(holder("10.0.0.1:1"), holder("[::ffff:10.0.0.1]:1"), "mapped to IPv6");
        assert_ne!(holder("10.0.0.1:1"), holder("10.0.0.2:1"));
        assert_eq!(holder("[2001:db8::1]:1"), holder("[2001:db8::ffff:1]:2"));
        assert_ne!(holder("[2001:db8::1]:1"), holder("[2001:db8:0:1::1]:1"));
        assert_ne!(Holder::of(b"10.0.0.1:1", Some(b"a")), Holder::of(b"10.0.0.1:1", Some(b"b")));
        assert_ne!(Holder::of(b"10.0.0.1:1", Some(b"a")), Holder::of(b"10.0.0.1:1", None));
        for address in ["", "10.0.0.1", "/run/envoy.sock", "localhost:1", "10.0.0.1:1 "] {
            assert_eq!(Holder::of(address.as_bytes(), None), None, "{address}");
        }
    }

    #[test]
    fn workers_count_together_and_each_address_apart() {
        let data = MemoryData::default();
        Clients::begin(&data);
        let [mut one, mut two] = [Clients::default(), Clients::default()];
        let (a, b) = (holder("10.0.0.1:1"), holder("10.0.0.2:1"));
        assert!(one.take(&data, a, 3) && two.take(&data, a, 3) && one.take(&data, a, 3));
        assert!(!one.take(&data, a, 3) && !two.take(&data, a, 3));
        assert!(two.take(&data, b, 3));
        two.give_back(&data, a);
        // A worker cannot give back what it does not hold.
        two.give_back(&data, a);
        assert_eq!(total(&data), 3);
        assert!(two.take(&data, a, 3));
        for _ in 0..2 {
            one.give_back(&data, a);
        }
        two.give_back(&data, a);
        two.give_back(&data, b);
        assert_eq!(total(&data), 0);
        assert!(one.held.is_empty() && two.held.is_empty());
        assert_eq!(data.keys(), BUCKETS + 1);
    }

    /// A crashed worker takes what it held with it, and the others keep theirs.
    #[test]
    fn what_a_crashed_worker_held_is_forgotten() {
        let data = MemoryData::default();
        Clients::begin(&data);
        let [mut stays, mut crashes] = [Clients::default(), Clients::default()];
        let a = holder("10.0.0.1:1");
        assert!(stays.take(&data, a, 3) && crashes.take(&data, a, 3) && crashes.take(&data, a, 3));
        Clients::begin(&data);
        let mut next = Clients::default();
        assert!(next.take(&data, a, 3), "nothing is known of the others yet");
        stays.notice(&data);
        assert_eq!(total(&data), 2);
        assert!(next.take(&data, a, 3));
        assert!(!stays.take(&data, a, 3));
        stays.give_back(&data, a);
        next.give_back(&data, a);
        next.give_back(&data, a);
        assert_eq!(total(&data), 0);
    }

    /// A worker that has not noticed the new era finds a bucket of it.
    #[test]
    fn a_worker_that_was_told_late_adds_what_it_holds_once() {
        struct Late<'a>(&'a MemoryData, std::cell::Cell<u32>);
        impl SharedData for Late<'_> {
            fn get(&self, key: &str) -> (Vec<u8>, u32) {
                // The era is changed between this worker's look at it and its look at the bucket.
                if key == CLIENT_ERA && self.1.replace(self.1.get() + 1) == 0 {
                    let before = self.0.get(key);
                    Clients::begin(self.0);
                    assert!(Clients::default().take(self.0, holder("10.0.0.1:1"), 9));
                    return before;
                }
                self.0.get(key)
            }
            fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), crate::store::CasMismatch> {
                self.0.set(key, value, cas)
            }
        }
        let data = MemoryData::default();
        Clients::begin(&data);
        let mut late = Clients::default();
        assert!(late.take(&data, holder("10.0.0.1:1"), 9));
        assert!(late.take(&Late(&data, std::cell::Cell::new(0)), holder("10.0.0.1:1"), 9));
        assert_eq!(total(&data), 3);
    }

    #[test]
    fn a_silent_connection_comes_up_after_its_time() {
        let mut silent = Silent::default();
        for connection in [1, 2, 3] {
            silent.add(connection);
        }
        silent.remove(2);
        for second in 1..Silent::LIMIT {
            assert!(silent.tick().is_empty(), "{second}");
        }
        silent.remove(3);
        assert_eq!(silent.tick(), [1]);
        silent.remove(1);
        assert!(silent.tick().is_empty());
    }
}
