//! Shared data and a signal in memory, with a way to lose races on purpose.

use super::{CasMismatch, ChangeSignal, SharedData, StoredMap, Update, prepare, publish};
use crate::change::{Change, Edit};
use crate::deployment_id::DeploymentId;
use crate::route::Route;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};

type Interloper<'a> = Box<dyn FnOnce(&FakeData<'a>) + 'a>;

/// In-memory [`SharedData`] with the numbering of Envoy's: the first set makes 1, each later one adds 1.
#[derive(Default)]
pub(crate) struct FakeData<'a> {
    entries: RefCell<HashMap<String, (Vec<u8>, u32)>>,
    reads: Cell<usize>,
    interloper: RefCell<Option<Interloper<'a>>>,
    /// How many operations go by before the interloper comes; `None`: it comes just before the next swap of the head.
    delay: Cell<Option<usize>>,
    always_mismatch: Cell<bool>,
    now: Cell<u64>,
}

impl<'a> FakeData<'a> {
    /// A prepared store, with a map of these routes.
    pub(crate) fn with<const N: usize>(routes: [(&str, Route); N]) -> Self {
        let data = Self::default();
        prepare(&data);
        let edits = routes.iter().map(|(id, route)| (DeploymentId::parse(id.as_bytes()).expect("valid"), Edit::Set(*route)));
        data.publish(&Change { replace: true, edits: edits.collect() });
        data
    }

    /// Makes a change that is known to be valid.
    pub(crate) fn publish(&self, change: &Change<'_>) {
        let update = |map: &StoredMap<'_, Self>| change.apply(map, usize::MAX).map(Update::Store);
        assert!(publish(self, &FakeSignal::default(), || 1, update).is_ok());
    }

    /// The whole map.
    pub(crate) fn routes(&self) -> BTreeMap<String, Route> {
        let map = StoredMap::now(self);
        let routes = map.routes().expect("nobody else writes");
        assert_eq!(routes.len(), map.len());
        routes.into_iter().map(|(id, route)| (id.as_str().to_owned(), route)).collect()
    }

    /// Lets time pass, in milliseconds.
    pub(crate) fn advance(&self, by: u64) {
        self.now.set(self.now.get() + by);
    }

    /// How many keys there are.
    pub(crate) fn keys(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Runs `other` just before the next swap of the head.
    pub(crate) fn interleave(&self, other: impl FnOnce(&FakeData<'a>) + 'a) {
        *self.interloper.borrow_mut() = Some(Box::new(other));
    }

    /// Runs `other` just before the operation after the next `operations`; `false` from [`FakeData::interloper_came`] where there
    /// were not that many.
    pub(crate) fn interleave_after(&self, operations: usize, other: impl FnOnce(&FakeData<'a>) + 'a) {
        self.interleave(other);
        self.delay.set(Some(operations));
    }

    /// Whether the interloper has run.
    pub(crate) fn interloper_came(&self) -> bool {
        self.interloper.borrow().is_none()
    }

    fn operation(&self, swaps_head: bool) {
        match self.delay.get() {
            Some(0) => self.delay.set(None),
            Some(left) => return self.delay.set(Some(left - 1)),
            None if swaps_head => {}
            None => return,
        }
        let interloper = self.interloper.borrow_mut().take();
        if let Some(other) = interloper {
            other(self);
        }
    }

    /// Makes every swap of the head lose from now on.
    pub(crate) fn always_mismatch(&self) {
        self.always_mismatch.set(true);
    }

    /// How often a key has been read.
    pub(crate) fn reads(&self) -> usize {
        self.reads.get()
    }
}

impl SharedData for FakeData<'_> {
    fn get(&self, key: &str) -> (Vec<u8>, u32) {
        self.operation(false);
        self.reads.set(self.reads.get() + 1);
        self.entries.borrow().get(key).cloned().unwrap_or_default()
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), CasMismatch> {
        let swaps_head = key == super::head::KEY && cas != 0;
        self.operation(swaps_head);
        let mut entries = self.entries.borrow_mut();
        let entry = entries.entry(key.to_owned()).or_default();
        if cas != 0 && cas != entry.1 || swaps_head && self.always_mismatch.get() {
            return Err(CasMismatch);
        }
        *entry = (value.to_owned(), entry.1 + 1);
        Ok(())
    }

    fn now(&self) -> u64 {
        self.now.get()
    }
}

/// In-memory [`ChangeSignal`].
#[derive(Default)]
pub(crate) struct FakeSignal(Cell<u64>);

impl ChangeSignal for FakeSignal {
    fn read(&self) -> u64 {
        self.0.get()
    }

    fn raise(&self) {
        self.0.set(self.0.get() + 1);
    }
}
