//! Requests that may be waiting for a connection to their agent. Envoy has no limit for this: a request that finds all connections of
//! its agent busy would wait forever, without a line in the log.

/// The streams that were forwarded during the last seconds. Streams that have ended since are dropped when their time comes, because
/// dropping each one at once would cost every request something.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Streams by the second in which they were forwarded, the present one first.
    seconds: [Vec<u32>; Self::LIMIT + 1],
}

impl Waiting {
    /// How long a request may wait for a connection, in seconds; up to one more, because time is counted in ticks of a second.
    pub const LIMIT: usize = 5;

    /// Notes that a stream was forwarded.
    pub fn add(&mut self, stream: u32) {
        let [present, ..] = &mut self.seconds;
        present.push(stream);
    }

    /// Begins the next second, and gives the streams whose limit is reached.
    pub fn tick(&mut self) -> Vec<u32> {
        self.seconds.rotate_right(1);
        let [present, ..] = &mut self.seconds;
        std::mem::take(present)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_stream_comes_up_once_after_five_to_six_seconds() {
        let mut waiting = Waiting::default();
        waiting.add(1);
        for second in 1..=Waiting::LIMIT {
            assert!(waiting.tick().is_empty(), "{second}");
            waiting.add(10 + u32::try_from(second).expect("small"));
        }
        assert_eq!(waiting.tick(), [1]);
        for second in 1..=5 {
            assert_eq!(waiting.tick(), [10 + second]);
        }
        assert!(waiting.tick().is_empty());
    }
}
