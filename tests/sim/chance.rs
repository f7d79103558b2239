//! Everything random in a run, from one number.
//! What is drawn for is the callers'.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A source of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x5EED))
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    /// A number below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).expect("a small number");
        usize::try_from(self.draw() % end).expect("a small number")
    }

    /// A number from `first` to `last`.
    pub(crate) fn within(&mut self, first: u64, last: u64) -> u64 {
        first + self.draw() % (last - first + 1)
    }

    /// True so many times of a hundred.
    pub(crate) fn percent(&mut self, times: u64) -> bool {
        self.draw() % 100 < times
    }

    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// One of them, by their weights.
    pub(crate) fn weighted<T: Copy>(&mut self, all: &[(T, u64)]) -> T {
        let total: u64 = all.iter().map(|(_, weight)| weight).sum();
        let mut at = self.draw() % total.max(1);
        for (one, weight) in all {
            if at < *weight {
                return *one;
            }
            at -= weight;
        }
        all[0].0
    }

    /// Some of them, at least one.
    pub(crate) fn some<T: Copy + Ord>(&mut self, all: &[T]) -> BTreeSet<T> {
        let mut chosen: BTreeSet<T> = all.iter().copied().filter(|_| self.percent(60)).collect();
        chosen.insert(self.of(all));
        chosen
    }
}

/// Ids that are drawn once in a run, by all databases of it.
#[derive(Clone, Debug)]
pub(crate) struct Ids(Arc<AtomicU64>);

impl Ids {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new((mix(seed ^ 0x1D5) << 20) | 1)))
    }

    pub(crate) fn draw(&self) -> [u8; 16] {
        let count = self.0.fetch_add(1, Relaxed);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&mix(count).to_be_bytes());
        id[8..].copy_from_slice(&count.to_be_bytes());
        id
    }

    pub(crate) fn drawer(&self) -> impl Fn() -> [u8; 16] + Send + 'static {
        let ids = self.clone();
        move || ids.draw()
    }
}
