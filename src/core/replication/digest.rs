//! A digest of a table's live rows that can be kept up to date with each write: a sum of hashes.
//! Equal sums mean equal rows; see [`TableDigest`] for against whom.

use sha2::{Digest, Sha256};

use crate::model::{Stamp, TableUid};

/// The sum modulo 2²⁵⁶ of SHA-256 over each live row (Bellare and Micciancio, "A New Paradigm for
/// Collision-Free Hashing", 1997). It detects faults, not a writer who searches for collisions in a
/// table of their own: peers are authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableDigest([u64; 4]);

impl TableDigest {
    /// What one live row adds.
    #[must_use]
    pub fn of_row(table: TableUid, key: &[u8], stamp: Stamp, value: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(table.0);
        hash.update(stamp.hlc.to_i64().to_be_bytes());
        hash.update(stamp.actor.0.to_be_bytes());
        hash.update((key.len() as u64).to_be_bytes());
        hash.update(key);
        hash.update(value);
        Self::from_bytes(hash.finalize().into())
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let mut sum = [0; 4];
        let mut carry = false;
        for (n, limb) in sum.iter_mut().enumerate() {
            let (first, over) = self.0[n].overflowing_add(other.0[n]);
            let (second, again) = first.overflowing_add(carry.into());
            (*limb, carry) = (second, over || again);
        }
        Self(sum)
    }

    /// Without the other.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let one = Self([1, 0, 0, 0]);
        self.plus(Self(other.0.map(|limb| !limb)).plus(one))
    }

    /// As it is stored and sent: little endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (limb, place) in self.0.iter().zip(bytes.as_chunks_mut::<8>().0) {
            *place = limb.to_le_bytes();
        }
        bytes
    }

    /// From its stored form.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let mut limbs = [0; 4];
        for (limb, place) in limbs.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *limb = u64::from_le_bytes(*place);
        }
        Self(limbs)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{ActorId, Hlc};

    proptest! {
        #[test]
        fn sums_have_no_order_and_can_be_taken_back(
            a in any::<[u8; 32]>(), b in any::<[u8; 32]>(), c in any::<[u8; 32]>(),
        ) {
            let [a, b, c] = [a, b, c].map(TableDigest::from_bytes);
            prop_assert_eq!(a.plus(b).plus(c), c.plus(a).plus(b));
            prop_assert_eq!(a.plus(b).minus(b), a);
            prop_assert_eq!(a.minus(b).plus(b), a);
            prop_assert_eq!(TableDigest::from_bytes(a.to_bytes()), a);
        }
    }

    #[test]
    fn a_row_is_told_by_everything_that_makes_it() {
        let (table, other) = (TableUid([1; 16]), TableUid([2; 16]));
        let stamp = |ms, inc| Stamp { hlc: Hlc::from_unix_ms(ms), actor: ActorId(inc) };
        let all = [
            TableDigest::of_row(table, b"k", stamp(1, 1), b"v"),
            TableDigest::of_row(other, b"k", stamp(1, 1), b"v"),
            TableDigest::of_row(table, b"kv", stamp(1, 1), b""),
            TableDigest::of_row(table, b"k", stamp(2, 1), b"v"),
            TableDigest::of_row(table, b"k", stamp(1, 2), b"v"),
            TableDigest::of_row(table, b"k", stamp(1, 1), b"w"),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(!all[n + 1..].contains(one), "{n} is not told apart");
        }
    }
}
