//! The ledger of a fleet under load: what each request was for, which agents got it, and what its client was told.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An id of the fleet, by its place in the list of ids.
pub type Id = usize;

/// A request by the number that it carries.
pub type Number = usize;

/// How many errors are kept in full.
const SHOWN: usize = 20;

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The response of an agent.
    Served {
        /// The id that the agent says it is.
        id: Id,
        /// The task that the agent says it is in.
        task: usize,
    },
    /// A rejection, by its code, or what else the client saw in place of a response.
    Failed(String),
}

/// One request.
#[derive(Clone, Debug)]
struct Entry {
    id: Id,
    /// How many agents got it.
    executions: u32,
    /// Whether an agent of another id got it.
    strayed: bool,
    is_ended: bool,
    has_failed: bool,
    is_served: bool,
}

#[derive(Debug, Default)]
struct Book {
    entries: Vec<Entry>,
    counts: Counts,
}

/// Counts over all requests so far.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Requests that an agent of the right id responded to.
    pub served: u64,
    /// Requests that an agent of another id got, or whose response came from one. Always an error.
    pub wrong: u64,
    /// Requests that agents got more than once. Always an error.
    pub doubled: u64,
    /// Responses of agents that had not got the request. Always an error of the test itself.
    pub made_up: u64,
    /// All other requests, by what their clients were told.
    pub failed: BTreeMap<String, u64>,
    /// The first of them, in full.
    pub first: Vec<String>,
}

impl Counts {
    /// Requests that no agent responded to.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Whether no request got to a wrong agent, and none was executed twice.
    #[must_use]
    pub const fn is_right(&self) -> bool {
        self.wrong == 0 && self.doubled == 0 && self.made_up == 0
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { served, wrong, doubled, made_up, failed, .. } = self;
        write!(f, "{served} requests served, {wrong} by a wrong agent, {doubled} executed twice, {} errors", self.errors())?;
        if !failed.is_empty() {
            write!(f, " {failed:?}")?;
        }
        if *made_up > 0 {
            write!(f, ", {made_up} responses without an execution")?;
        }
        Ok(())
    }
}

/// All requests of a run.
#[derive(Debug)]
pub struct Ledger {
    started: Instant,
    book: Mutex<Book>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { started: Instant::now(), book: Mutex::default() }
    }
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        // What another thread has written is whole at each moment.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a request for `id`, before it is sent.
    pub fn open(&self, id: Id) -> Number {
        let mut book = self.book();
        book.entries.push(Entry { id, executions: 0, strayed: false, is_ended: false, has_failed: false, is_served: false });
        book.entries.len() - 1
    }

    /// An agent of `id` has got a request.
    pub fn executed(&self, number: Number, id: Id) {
        let mut book = self.book();
        let Book { entries, counts } = &mut *book;
        let Some(entry) = entries.get_mut(number) else {
            counts.made_up += 1;
            return;
        };
        entry.executions += 1;
        if entry.executions == 2 {
            counts.doubled += 1;
            note(counts, || format!("request {number} was executed twice"));
        }
        if entry.id != id && !entry.strayed {
            entry.strayed = true;
            counts.wrong += 1;
            note(counts, || format!("request {number} for {} got to an agent of {id}", entry.id));
        }
    }

    /// The client of a request has been told its outcome. `through` says how the request was sent.
    pub fn close(&self, number: Number, through: &str, outcome: Outcome, took: Duration) {
        let mut book = self.book();
        let Book { entries, counts } = &mut *book;
        let Some(entry) = entries.get_mut(number) else { return };
        entry.is_ended = true;
        match outcome {
            Outcome::Served { id, .. } if id != entry.id => {
                if !entry.strayed {
                    entry.strayed = true;
                    counts.wrong += 1;
                }
                note(counts, || format!("request {number} for {} {through}: the response is of {id}", entry.id));
            }
            Outcome::Served { .. } if entry.executions == 0 => counts.made_up += 1,
            Outcome::Served { .. } => {
                entry.is_served = true;
                counts.served += 1;
            }
            Outcome::Failed(code) => {
                entry.has_failed = true;
                note(counts, || {
                    let (at, executions) = (self.started.elapsed().as_secs_f32(), entry.executions);
                    format!(
                        "at {at:.3} s request {number} for {} {through}: {code} after {took:.1?}, executed {executions} times",
                        entry.id
                    )
                });
                *counts.failed.entry(code).or_default() += 1;
            }
        }
    }

    /// What has been counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.book().counts.clone()
    }

    /// How many requests for one of these ids had no response of an agent.
    #[must_use]
    pub fn errors_of(&self, ids: &[Id]) -> usize {
        self.book().entries.iter().filter(|entry| entry.has_failed && ids.contains(&entry.id)).count()
    }

    /// How many requests for one of these ids an agent responded to.
    #[must_use]
    pub fn served_of(&self, ids: &[Id]) -> usize {
        self.book().entries.iter().filter(|entry| entry.is_served && ids.contains(&entry.id)).count()
    }

    /// How many requests have not ended yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.book().entries.iter().filter(|entry| !entry.is_ended).count()
    }
}

fn note(counts: &mut Counts, line: impl FnOnce() -> String) {
    if counts.first.len() < SHOWN {
        counts.first.push(line());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    fn served(id: Id) -> Outcome {
        Outcome::Served { id, task: 0 }
    }

    #[test]
    fn each_way_to_go_wrong_is_counted_once() {
        let ledger = Ledger::default();
        let [right, stray, twice, failed, failed_twice, made_up] = std::array::from_fn(|_| ledger.open(1));
        assert_eq!(ledger.in_flight(), 6);
        ledger.executed(right, 1);
        ledger.close(right, "", served(1), SOON);
        ledger.executed(stray, 2);
        ledger.close(stray, "", served(2), SOON);
        for _ in 0..3 {
            ledger.executed(twice, 1);
        }
        ledger.close(twice, "", served(1), SOON);
        ledger.close(failed, "", Outcome::Failed("agent_closed".to_owned()), SOON);
        ledger.executed(failed_twice, 1);
        ledger.executed(failed_twice, 1);
        ledger.close(failed_twice, "", Outcome::Failed("agent_closed".to_owned()), SOON);
        ledger.close(made_up, "", served(1), SOON);
        let counts = ledger.counts();
        assert_eq!((counts.served, counts.wrong, counts.doubled, counts.made_up, counts.errors()), (2, 1, 2, 1, 2));
        assert!(!counts.is_right() && counts.failed["agent_closed"] == 2 && ledger.in_flight() == 0, "{counts}");
    }
}
