//! Shared data and a signal in memory, with a way to lose races on purpose.

use super::{CasMismatch, ChangeSignal, SharedData};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

type Interloper<'a> = Box<dyn FnOnce(&FakeData<'a>) + 'a>;

/// In-memory [`SharedData`] with the numbering of Envoy's: the first set makes 1, each later one adds 1.
#[derive(Default)]
pub(crate) struct FakeData<'a> {
    entries: RefCell<HashMap<String, (Vec<u8>, u32)>>,
    reads: Cell<usize>,
    interloper: RefCell<Option<Interloper<'a>>>,
    always_mismatch: Cell<bool>,
}

impl<'a> FakeData<'a> {
    /// Runs `other` just before the next conditional write.
    pub(crate) fn interleave(&self, other: impl FnOnce(&FakeData<'a>) + 'a) {
        *self.interloper.borrow_mut() = Some(Box::new(other));
    }

    /// Makes every conditional write lose from now on.
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
        self.reads.set(self.reads.get() + 1);
        self.entries.borrow().get(key).cloned().unwrap_or_default()
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), CasMismatch> {
        if cas != 0 {
            let interloper = self.interloper.borrow_mut().take();
            if let Some(other) = interloper {
                other(self);
            }
        }
        let mut entries = self.entries.borrow_mut();
        let entry = entries.entry(key.to_owned()).or_default();
        if cas != 0 && (self.always_mismatch.get() || cas != entry.1) {
            return Err(CasMismatch);
        }
        *entry = (value.to_owned(), entry.1 + 1);
        Ok(())
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
