//! What to ask for: the scenarios, and the operations that each one draws.
//!
//! How operations are encoded and sent is left to `fleet` and the protocols.

use std::ops::Range;

use super::wire::VALUE_BYTES;

/// The load of one line in the report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) clients: usize,
    /// Requests sent in one write; the next go out when all of these are answered.
    pub(crate) pipeline: usize,
    pub(crate) get_percent: u32,
}

/// Every scenario, in the order of the report.
pub(crate) const SCENARIOS: [Scenario; 9] = [
    scenario("put 1", 1, 1, 0),
    scenario("put 16", 16, 1, 0),
    scenario("put 64", 64, 1, 0),
    scenario("put 16x16", 16, 16, 0),
    scenario("get 1", 1, 1, 100),
    scenario("get 16", 16, 1, 100),
    scenario("get 64", 64, 1, 100),
    scenario("get 16x16", 16, 16, 100),
    scenario("mix 90/10 64", 64, 1, 90),
];

const fn scenario(
    name: &'static str,
    clients: usize,
    pipeline: usize,
    get_percent: u32,
) -> Scenario {
    Scenario { name, clients, pipeline, get_percent }
}

impl Scenario {
    /// Whether requests come one by one, so that a latency can be held against the
    /// machine's: with more in flight it is mostly waiting for each other.
    pub(crate) fn is_serial(&self) -> bool {
        self.clients == 1 && self.pipeline == 1
    }

    /// Whether nothing could run side by side: a put leaves work for later, and
    /// waits for the disk most of the time anyway.
    pub(crate) fn is_on_one_cpu(&self) -> bool {
        self.is_serial() && self.get_percent == 100
    }
}

/// One request to send.
#[derive(Debug)]
pub(crate) enum Op<'a> {
    Put(u32, &'a [u8; VALUE_BYTES]),
    Get(u32),
}

/// A source of operations.
#[derive(Debug)]
pub(crate) struct Work {
    plan: Plan,
    random: Random,
    values: Vec<[u8; VALUE_BYTES]>,
}

#[derive(Debug)]
enum Plan {
    /// Puts each row once, in order.
    Fill(Range<u32>),
    /// Goes on for ever over random rows.
    Draw { rows: u32, get_percent: u32 },
}

/// Enough different values that a server cannot keep one, few enough to stay cached.
const VALUES: u32 = 64;

impl Work {
    pub(crate) fn fill(rows: u32, seed: u64) -> Self {
        Self::new(Plan::Fill(0..rows), seed)
    }

    pub(crate) fn draw(rows: u32, get_percent: u32, seed: u64) -> Self {
        Self::new(Plan::Draw { rows, get_percent }, seed)
    }

    fn new(plan: Plan, seed: u64) -> Self {
        let mut random = Random(seed);
        let values = (0..VALUES).map(|_| value(&mut random)).collect();
        Self { plan, random, values }
    }

    /// The next operation, or `None` when the plan is carried out.
    pub(crate) fn next(&mut self) -> Option<Op<'_>> {
        let (row, is_get) = match &mut self.plan {
            Plan::Fill(rows) => (rows.next()?, false),
            Plan::Draw { rows, get_percent } => {
                let is_get = self.random.below(100) < *get_percent;
                (self.random.below(*rows), is_get)
            }
        };
        if is_get {
            return Some(Op::Get(row));
        }
        let chosen = self.random.below(VALUES) as usize;
        Some(Op::Put(row, &self.values[chosen]))
    }
}

fn value(random: &mut Random) -> [u8; VALUE_BYTES] {
    std::array::from_fn(|_| random.next().to_le_bytes()[0])
}

/// SplitMix64: one multiplication or two per number, and any seed will do.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number under `bound`, by the high half of a product instead of a division.
    fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }
}
