//! The order of writes: hybrid timestamps, actors, stamps.
//! How a timestamp is drawn is in `clock`; which of two versions wins is in `replication::resolve`.

/// A hybrid logical timestamp: 48 bits of Unix milliseconds above 16 bits of counter
/// (Kulkarni et al., "Logical Physical Clocks", 2014). Order is numeric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc(u64);

impl Hlc {
    const COUNTER_BITS: u32 = 16;
    /// The greatest timestamp. It leaves the sign bit clear, so that a signed 64-bit
    /// column keeps the order.
    pub const MAX: Self = Self(i64::MAX.unsigned_abs());

    /// The first timestamp of a millisecond since the Unix epoch. Times past year 6429 saturate.
    #[must_use]
    pub fn from_unix_ms(ms: u64) -> Self {
        Self(ms.min(Self::MAX.0 >> Self::COUNTER_BITS) << Self::COUNTER_BITS)
    }

    /// The millisecond of this timestamp, since the Unix epoch.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        self.0 >> Self::COUNTER_BITS
    }

    /// The next timestamp. A full counter carries into the milliseconds.
    #[must_use]
    pub fn next(self) -> Self {
        Self((self.0 + 1).min(Self::MAX.0))
    }

    /// As a signed column value.
    #[must_use]
    pub fn to_i64(self) -> i64 {
        self.0.cast_signed()
    }

    /// From a signed column value; negative ones, which no clock draws, count as zero.
    #[must_use]
    pub fn from_i64(value: i64) -> Self {
        Self(u64::try_from(value).unwrap_or(0))
    }
}

/// Who a version was written by, a database file between two rollbacks: a random 128-bit id. A restored or cloned
/// file starts a new one, so that an actor with a sequence number names one write for ever. The order has no
/// meaning; it is the same on every machine, which is what a tie needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorId(pub u128);

/// The place of a version in the merge order. Unique: an actor draws each timestamp once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Compared first.
    pub hlc: Hlc,
    /// Breaks ties.
    pub actor: ActorId,
}
