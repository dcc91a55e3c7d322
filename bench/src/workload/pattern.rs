//! Bytes and places that are the same in every run.

/// A small generator of numbers (xorshift64*, Vigna 2016); the seed is part of the workload.
#[derive(Clone, Debug)]
pub(super) struct Places(u64);

impl Places {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`, which is not zero.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % bound.max(1)
    }
}

/// Bytes that do not compress to nothing.
pub(super) fn bytes(length: usize) -> Vec<u8> {
    let mut places = Places::new(7);
    (0..length)
        .map(|_| u8::try_from(places.below(256)).unwrap_or(0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_goes_to_the_same_places() {
        let take = |seed| {
            let mut places = Places::new(seed);
            (0..50).map(|_| places.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(take(3), take(3));
        assert_ne!(take(3), take(4));
        assert!(take(3).iter().all(|place| *place < 1000));
    }
}
