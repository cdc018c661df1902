//! The store under writers and readers that get in each other's way at every step.

use super::layout::SLOTS;
use super::memory::{MemoryData, MemorySignal};
use super::*;
use crate::deployment_id::DeploymentId;
use crate::table::{Table, edit};
use crate::timestamp::Timestamp;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
#[cfg(not(target_arch = "wasm32"))]
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// One table, and one other shard, which holds the number of writes.
static LAYOUT: Layout = Layout { prefix: *b"pixell.example.1", tables: 1, others: 1 };

fn prepared() -> MemoryData {
    let data = MemoryData::default();
    prepare(&data, &LAYOUT);
    data
}

/// Writes `value` under `name`, and counts the write in the other shard.
fn write(data: &impl SharedData, signal: &MemorySignal, name: &str, value: &[u8]) -> Result<u64, PublishError<()>> {
    let id = DeploymentId::parse(name.as_bytes()).expect("valid");
    let published = publish(&Backend { data, signal, new_epoch: || 7, now: Timestamp::default }, &LAYOUT, |stored| {
        let before = stored.shard(0)?.map(|bytes| Table::parse(bytes, TAG_LEN).expect("a table"));
        let len = before.as_ref().map_or(0, Table::len);
        let added = usize::from(before.as_ref().is_none_or(|table| table.find(id).is_none()));
        let table = edit(before.as_ref(), &[0; TAG_LEN], [(id, Some(value))].into_iter()).expect("it fits");
        let mut count = stored.shard(1)?.unwrap_or_else(|| vec![0; TAG_LEN + 1]);
        count[TAG_LEN] += 1;
        let edition = Edition { shards: vec![(0, table), (1, Some(count))], len: u32::try_from(len + added).expect("few") };
        Ok(Update::Store(edition, ()))
    });
    published.map(|done| done.version.generation)
}

/// The whole map, which must be that of one moment: as many writes as generations.
fn read(data: &impl SharedData) -> BTreeMap<String, Vec<u8>> {
    for _ in 0..100 {
        let stored = Stored::now(data, &LAYOUT);
        let (Ok(table), Ok(count)) = (stored.shard(0), stored.shard(1)) else { continue };
        let Some(table) = table.map(|bytes| Table::parse(bytes, TAG_LEN).expect("a table")) else { return BTreeMap::new() };
        assert_eq!(Some(stored.version().generation), count.map(|count| u64::from(count[TAG_LEN])));
        assert_eq!(table.len(), stored.len());
        return table.iter().map(|(id, value)| (id.as_str().to_owned(), value.to_vec())).collect();
    }
    panic!("the map moves on and on");
}

/// Shared data that calls `hook` with the number of each operation, before it is done.
pub(crate) struct Hooked<'a, F> {
    data: &'a MemoryData,
    operations: Cell<usize>,
    hook: RefCell<F>,
}

impl<'a, F: FnMut(usize)> Hooked<'a, F> {
    pub(crate) fn new(data: &'a MemoryData, hook: F) -> Self {
        Self { data, operations: Cell::new(0), hook: RefCell::new(hook) }
    }

    fn step(&self) {
        let number = self.operations.replace(self.operations.get() + 1);
        self.hook.borrow_mut()(number);
    }
}

impl<F: FnMut(usize)> SharedData for Hooked<'_, F> {
    fn get(&self, key: &str) -> (Vec<u8>, u32) {
        self.step();
        self.data.get(key)
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), CasMismatch> {
        self.step();
        self.data.set(key, value, cas)
    }
}

fn map<const N: usize>(entries: [(&str, &[u8]); N]) -> BTreeMap<String, Vec<u8>> {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
}

/// Whatever number of rivals come between two steps of a write, all writes land, and nobody reads what is half written.
#[test]
fn rivals_may_come_at_any_step() {
    let signal = MemorySignal::default();
    for rivals in 1..6 {
        for at in 0.. {
            let data = prepared();
            write(&data, &signal, "a", b"0").expect("lands");
            let hooked = Hooked::new(&data, |number| {
                if number == at {
                    for n in 0..rivals {
                        write(&data, &signal, &format!("rival-{n}"), b"1").expect("lands");
                    }
                }
                read(&data);
            });
            write(&hooked, &signal, "mine", b"2").expect("lands");
            let steps = hooked.operations.get();
            let found = read(&data);
            if at >= steps {
                assert!(steps >= 8, "{steps}");
                break;
            }
            assert_eq!(found.len(), 2 + rivals, "{rivals} rivals at step {at}");
            assert_eq!(found["mine"], b"2");
        }
    }
}

/// A rival with a rival of its own: three writers, one inside the other.
#[test]
fn three_writers_at_any_two_steps() {
    let signal = MemorySignal::default();
    for (outer, inner) in (0..12).flat_map(|outer| (0..12).map(move |inner| (outer, inner))) {
        let data = prepared();
        let first = Hooked::new(&data, |number| {
            if number == outer {
                let second = Hooked::new(&data, |number| {
                    if number == inner {
                        write(&data, &signal, "third", b"3").expect("lands");
                        write(&data, &signal, "third", b"4").expect("lands");
                    }
                });
                write(&second, &signal, "second", b"2").expect("lands");
            }
        });
        write(&first, &signal, "first", b"1").expect("lands");
        let found = read(&data);
        assert!(found["first"] == b"1", "{outer} {inner}: {found:?}");
        let expected = 1 + usize::from(found.contains_key("second")) + usize::from(found.contains_key("third"));
        assert_eq!(found.len(), expected);
    }
}

/// A writer that dies before any of its steps leaves the map as it was before its write or as it is after it, and the next write lands.
/// (Not on wasm32: a panic ends the program there.)
#[cfg(not(target_arch = "wasm32"))]
#[test]
fn a_writer_may_die_at_any_step() {
    let signal = MemorySignal::default();
    for at in 0.. {
        let data = prepared();
        write(&data, &signal, "a", b"0").expect("lands");
        let dying = Hooked::new(&data, |number| assert_ne!(number, at, "died"));
        if catch_unwind(AssertUnwindSafe(|| write(&dying, &signal, "dead", b"1"))).is_ok() {
            assert!(at >= 8, "{at}");
            break;
        }
        let found = read(&data);
        assert_eq!(found, map([("a", b"0")]), "died at step {at}");
        assert_eq!(write(&data, &signal, "b", b"2"), Ok(2));
        assert_eq!(read(&data), map([("a", b"0"), ("b", b"2")]));
    }
}

/// However many writers die one after the other, the next one finds a slot.
/// (Not on wasm32: a panic ends the program there.)
#[cfg(not(target_arch = "wasm32"))]
#[test]
fn dead_writers_do_not_use_up_the_slots() {
    let signal = MemorySignal::default();
    for at in 0..9 {
        let data = prepared();
        for _ in 0..3 * SLOTS {
            let dying = Hooked::new(&data, |number| assert_ne!(number, at, "died"));
            let _ = catch_unwind(AssertUnwindSafe(|| write(&dying, &signal, "dead", b"1")));
        }
        let generation = write(&data, &signal, "b", b"2").expect("lands");
        assert_eq!(read(&data)["b"], b"2");
        assert_eq!(Stored::now(&data, &LAYOUT).version(), Version { epoch: 7, generation });
    }
}

#[test]
fn a_map_that_was_never_stored_is_not_loaded_by_a_turn_alone() {
    let (data, signal) = (prepared(), MemorySignal::default());
    // Every slot of the table is taken by a writer of the first turn.
    for slot in 0..SLOTS {
        data.set(LAYOUT.slot_key(0, slot).as_str(), &1_u64.to_le_bytes(), 0).expect("unconditional");
    }
    let loaded = RefCell::new(Vec::new());
    let hooked = Hooked::new(&data, |_| loaded.borrow_mut().push(Stored::now(&data, &LAYOUT).is_loaded()));
    assert_eq!(write(&hooked, &signal, "a", b"1"), Ok(1));
    assert!(loaded.borrow().iter().all(|loaded| !loaded));
    assert_eq!(read(&data), map([("a", b"1")]));
}

#[test]
fn gives_up_after_losing_too_often() {
    let (data, signal) = (prepared(), MemorySignal::default());
    let rivals = Cell::new(0_u32);
    // A rival before each step.
    let hooked = Hooked::new(&data, |_| {
        rivals.set(rivals.get() + 1);
        write(&data, &signal, "rival", b"1").expect("lands");
    });
    assert_eq!(write(&hooked, &signal, "mine", b"2"), Err(PublishError::RetriesExhausted));
    assert_eq!(read(&data), map([("rival", b"1")]));
    assert_eq!(signal.read(), u64::from(rivals.get()), "the loser raised no signal");
}

#[test]
fn a_rejected_or_empty_update_moves_nothing() {
    let (data, signal) = (prepared(), MemorySignal::default());
    let backend = Backend { data: &data, signal: &signal, new_epoch: || 7, now: Timestamp::default };
    let rejected = publish(&backend, &LAYOUT, |_| Err::<Update<()>, _>(Stop::Rejected("no")));
    assert_eq!(rejected, Err(PublishError::Rejected("no")));
    let kept = publish(&backend, &LAYOUT, |_| Ok::<_, Stop<()>>(Update::Keep("same"))).expect("kept");
    assert_eq!(kept, Published { version: Version::default(), outcome: "same", stored: false });
    assert!(!Stored::now(&data, &LAYOUT).is_loaded());
    assert_eq!(signal.read(), 0);
}

#[test]
fn a_reader_fetches_the_head_and_what_changed() {
    let (data, signal) = (prepared(), MemorySignal::default());
    let mut cache = Cache::new(&LAYOUT);
    let reader = Hooked::new(&data, |_| {});
    for n in 1..50_u8 {
        write(&data, &signal, "a", &[n]).expect("lands");
        let before = reader.operations.get();
        for _ in 0..10 {
            cache.refresh(&reader, &signal);
            assert_eq!(cache.table(0).and_then(|table| table.find(DeploymentId::parse(b"a").ok()?)), Some(&[n][..]));
        }
        assert_eq!(reader.operations.get() - before, 2, "the head and one table");
    }
}

/// A reader that overlaps a writer sees the map before or after it, and never less than what a writer had reported before it began.
#[test]
fn a_reader_may_come_at_any_step() {
    let signal = MemorySignal::default();
    for at in 0..20 {
        let data = prepared();
        write(&data, &signal, "a", b"0").expect("lands");
        let cache = RefCell::new(Cache::new(&LAYOUT));
        let found = |cache: &Cache| cache.table(0)?.find(DeploymentId::parse(b"a").ok()?).map(<[u8]>::to_vec);
        let writer = Hooked::new(&data, |number| {
            if number == at {
                cache.borrow_mut().refresh(&data, &signal);
                assert_eq!(found(&cache.borrow()), Some(b"0".to_vec()), "before the response, step {number}");
            }
        });
        write(&writer, &signal, "a", b"1").expect("lands");
        // A reader between whose steps the map moves on starts over.
        let moves = Hooked::new(&data, |number| {
            if number == 1 {
                write(&data, &signal, "a", b"2").expect("lands");
                write(&data, &signal, "a", b"3").expect("lands");
            }
        });
        cache.borrow_mut().refresh(&moves, &signal);
        assert_eq!(found(&cache.borrow()), Some(b"3".to_vec()));
        cache.borrow_mut().refresh(&data, &signal);
        assert_eq!(found(&cache.borrow()), Some(b"3".to_vec()));
    }
}

/// Two writers whose steps alternate in every way that changes between them up to three times.
#[cfg(not(target_arch = "wasm32"))]
#[test]
fn two_writers_in_any_order_of_steps() {
    use super::tests::turns::{Turns, every_schedule};
    let signal = &MemorySignal::default();
    for schedule in every_schedule(26, 3) {
        let data = &prepared();
        write(data, signal, "a", b"0").expect("lands");
        let turns = &Turns::new(&schedule);
        std::thread::scope(|scope| {
            for (number, name) in ["one", "two"].into_iter().enumerate() {
                scope.spawn(move || {
                    let stepped = Hooked::new(data, |_| turns.wait(number));
                    write(&stepped, signal, name, b"1").expect("lands");
                    turns.leave(number);
                });
            }
        });
        assert_eq!(read(data), map([("a", b"0"), ("one", b"1"), ("two", b"1")]), "{schedule:?}");
    }
}

/// Two threads that take steps in a given order.
#[cfg(not(target_arch = "wasm32"))]
mod turns {
    use std::sync::{Condvar, Mutex};

    pub(super) struct Turns {
        state: Mutex<State>,
        changed: Condvar,
    }

    struct State {
        /// At which steps the other thread goes on.
        switches: Vec<usize>,
        step: usize,
        turn: usize,
        left: [bool; 2],
    }

    impl Turns {
        pub(super) fn new(switches: &[usize]) -> Self {
            let state = State { switches: switches.to_vec(), step: 0, turn: 0, left: [false; 2] };
            Self { state: Mutex::new(state), changed: Condvar::new() }
        }

        /// Returns once the thread `number` may take its next step.
        pub(super) fn wait(&self, number: usize) {
            let mut state = self.state.lock().expect("no thread panics");
            while state.turn != number && !state.left[1 - number] {
                state = self.changed.wait(state).expect("no thread panics");
            }
            if state.switches.contains(&state.step) && !state.left[1 - number] {
                state.turn = 1 - number;
                state.step += 1;
                self.changed.notify_all();
                while state.turn != number && !state.left[1 - number] {
                    state = self.changed.wait(state).expect("no thread panics");
                }
            }
            state.step += 1;
        }

        /// The thread takes no more steps.
        pub(super) fn leave(&self, number: usize) {
            let mut state = self.state.lock().expect("no thread panics");
            state.left[number] = true;
            state.turn = 1 - number;
            self.changed.notify_all();
        }
    }

    /// Every choice of up to `most` of the first `steps` steps, in ascending order.
    pub(super) fn every_schedule(steps: usize, most: usize) -> Vec<Vec<usize>> {
        let mut all = vec![Vec::new()];
        let mut last = all.clone();
        for _ in 0..most {
            last = last
                .iter()
                .flat_map(|schedule: &Vec<usize>| {
                    let from = schedule.last().map_or(0, |step| step + 1);
                    (from..steps).map(|step| [&schedule[..], &[step]].concat()).collect::<Vec<_>>()
                })
                .collect();
            all.extend(last.iter().cloned());
        }
        all
    }
}
