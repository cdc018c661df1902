//! Random numbers that are the same in each run.

/// A source of them.
#[derive(Clone, Copy, Debug)]
pub struct Draw(u64);

impl Draw {
    /// A source that differs from those of other seeds.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or_default().checked_rem(limit).unwrap_or_default()
    }
}
