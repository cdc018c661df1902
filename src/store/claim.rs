//! A claim: the right of one writer to a pair of slots in every shard, for the length of one write.
//!
//! Without it two writers could put different shards into the same free slot, and the head of the faster one would name what the
//! slower one wrote. Claims do not keep writers waiting: there are more pairs than workers, and a worker does one write at a time.

use super::SharedData;

/// Shared-data key of the claims: for each writer the time it claimed at, milliseconds since the Unix epoch, or 0 where free.
pub(super) const KEY: &str = "pixell.writers.1";

/// How many writers there can be at once.
pub(super) const WRITERS: usize = 64;

/// After this many milliseconds a claim is void: its writer's VM must have died. A write takes at most some hundred milliseconds.
const VOID_AFTER: u64 = 60_000;

/// Claims and releases are short; whoever loses so often in a row meets something worse than other writers.
const MAX_ATTEMPTS: usize = 1000;

/// A writer's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim(u8);

impl Claim {
    /// Claims a pair of slots; `None` where there is none to be had.
    pub(super) fn take(data: &impl SharedData) -> Option<Self> {
        for _ in 0..MAX_ATTEMPTS {
            let (mut times, cas) = times(data);
            let now = data.now().max(1);
            // A time far in the future is a clock that was set back; a little one is the clocks of two threads.
            let free = |time: u64| time == 0 || now.abs_diff(time) > VOID_AFTER;
            let mut numbered = times.as_chunks_mut().0.iter_mut().enumerate();
            let (writer, time) = numbered.find(|(_, time)| free(u64::from_le_bytes(**time)))?;
            *time = now.to_le_bytes();
            if data.set(KEY, &times, cas).is_ok() {
                return u8::try_from(writer).ok().map(Self);
            }
        }
        None
    }

    /// Gives the pair back.
    pub(super) fn release(self, data: &impl SharedData) {
        for _ in 0..MAX_ATTEMPTS {
            let (mut times, cas) = times(data);
            if let Some(time) = times.as_chunks_mut::<8>().0.get_mut(usize::from(self.0)) {
                *time = [0; 8];
            }
            if data.set(KEY, &times, cas).is_ok() {
                return;
            }
        }
    }

    /// The one of the two slots that is not `taken`.
    pub(super) const fn slot(self, taken: Option<u8>) -> u8 {
        let first = self.0 * 2;
        match taken {
            Some(slot) if slot == first => first + 1,
            _ => first,
        }
    }
}

/// The claims as they are stored, little-endian, and the number to swap them with; before the first claim nothing is stored.
fn times(data: &impl SharedData) -> (Vec<u8>, u32) {
    let (mut times, cas) = data.get(KEY);
    times.resize(WRITERS * 8, 0);
    (times, cas)
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeData;
    use super::super::prepare;
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn no_two_writers_share_a_slot() {
        let data = FakeData::default();
        prepare(&data);
        let claims: Vec<_> = std::iter::from_fn(|| Claim::take(&data)).collect();
        let mut slots: Vec<u8> =
            claims.iter().flat_map(|claim| [claim.slot(None), claim.slot(Some(claim.slot(None)))]).collect();
        slots.sort_unstable();
        assert!(slots.into_iter().eq(0..128));
        claims[5].release(&data);
        assert_eq!(Claim::take(&data), Some(claims[5]));
    }

    #[test]
    fn the_claim_of_a_dead_writer_runs_out() {
        let data = FakeData::default();
        prepare(&data);
        data.advance(1);
        while Claim::take(&data).is_some() {}
        data.advance(VOID_AFTER);
        assert_eq!(Claim::take(&data), None);
        data.advance(1);
        assert_eq!(Claim::take(&data), Some(Claim(0)));
    }
}
