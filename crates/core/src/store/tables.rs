//! The tables of a stored map, fetched one by one as they are asked for.

use super::{Moved, SharedData, Stored, TAG_LEN};
use crate::table::Table;
use std::cell::OnceCell;

/// The tables of one moment.
pub struct Tables<'a, D> {
    stored: &'a Stored<'a, D>,
    tables: Vec<OnceCell<Option<Table<Vec<u8>>>>>,
}

impl<'a, D: SharedData> Tables<'a, D> {
    /// Those of `stored`.
    #[must_use]
    pub fn of(stored: &'a Stored<'a, D>) -> Self {
        Self { stored, tables: std::iter::repeat_with(OnceCell::new).take(stored.layout().tables).collect() }
    }

    /// The map that they belong to.
    #[must_use]
    pub const fn stored(&self) -> &'a Stored<'a, D> {
        self.stored
    }

    /// A table; `None` if it is empty.
    ///
    /// # Errors
    /// [`Moved`]
    pub fn get(&self, number: usize) -> Result<Option<&Table<Vec<u8>>>, Moved> {
        let Some(cell) = self.tables.get(number) else { return Ok(None) };
        if cell.get().is_none() {
            let bytes = self.stored.shard(number)?;
            // Bytes that are not a table would be a defect of the writer; the map moves on with the next write.
            let _ = cell.set(bytes.and_then(|bytes| Table::parse(bytes, TAG_LEN).ok()));
        }
        Ok(cell.get().and_then(Option::as_ref))
    }
}
