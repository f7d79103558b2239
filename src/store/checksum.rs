//! A checksum of every stored row, kept beside it: of its table, key, version and value.
//! It detects what a disk or a stray program has changed; against somebody who means harm it is no help.
//!
//! CRC-32C (Castagnoli), as ext4, Btrfs and iSCSI use it: every change within 32 bits is found, any other with all
//! but one chance in four thousand million. Processors have an instruction for it, so it costs less than reading
//! the row from SQLite does.

use cortex_core::model::{Hlc, Stamp, TableId};
use rusqlite::{Row, types::FromSqlError};

use super::{actors::Actors, error::StoreError};

/// A row as the file has it: the actor by its short number.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredRow<'r> {
    pub(super) table: TableId,
    pub(super) key: &'r [u8],
    pub(super) hlc: i64,
    pub(super) actor_number: i64,
    pub(super) seq: u64,
    /// None for a tombstone.
    pub(super) value: Option<&'r [u8]>,
}

impl<'r> StoredRow<'r> {
    /// Takes the first columns of a statement, `key, value, hlc, actor, seq, checksum`. Answers the row, and the
    /// checksum that is stored beside it.
    pub(super) fn read(
        table: TableId,
        row: &'r Row<'_>,
    ) -> Result<(Self, Option<i64>), StoreError> {
        let damaged = |e: FromSqlError| StoreError::Corrupt(e.to_string());
        let stored = Self {
            table,
            key: row.get_ref(0)?.as_blob().map_err(damaged)?,
            value: row.get_ref(1)?.as_blob_or_null().map_err(damaged)?,
            hlc: row.get(2)?,
            actor_number: row.get(3)?,
            seq: row.get(4)?,
        };
        Ok((stored, row.get(5)?))
    }

    /// Its place in the merge order.
    pub(super) fn stamp(&self, actors: &Actors) -> Stamp {
        Stamp { hlc: Hlc::from_i64(self.hlc), actor: actors.id(self.actor_number) }
    }

    /// What is to be stored with it.
    pub(super) fn checksum(&self) -> u32 {
        let head = [
            &self.table.0.to_le_bytes()[..],
            &self.hlc.to_le_bytes(),
            &self.actor_number.to_le_bytes(),
            &self.seq.to_le_bytes(),
            &(self.key.len() as u64).to_le_bytes(),
            self.key,
        ];
        let head = head.into_iter().fold(0, crc32c::crc32c_append);
        // The byte distinguishes an empty value from none.
        self.value
            .map_or(head, |value| crc32c::crc32c_append(crc32c::crc32c_append(head, &[1]), value))
    }

    /// Whether it is what was stored. A row of an earlier schema has no checksum until the scrub gives it one.
    pub(super) fn is_sound(&self, stored: Option<i64>) -> bool {
        stored.is_none_or(|stored| stored == i64::from(self.checksum()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row<'r>(key: &'r [u8], value: Option<&'r [u8]>) -> StoredRow<'r> {
        StoredRow { table: TableId(3), key, hlc: 77, actor_number: 2, seq: 5, value }
    }

    #[test]
    fn a_row_is_told_by_everything_that_makes_it() {
        let one = row(b"k", Some(b"v"));
        let all = [
            one,
            row(b"kv", Some(b"")),
            row(b"k", None),
            row(b"k", Some(b"")),
            row(b"k", Some(b"w")),
            StoredRow { table: TableId(4), ..one },
            StoredRow { hlc: 78, ..one },
            StoredRow { actor_number: 3, ..one },
            StoredRow { seq: 6, ..one },
        ];
        for (n, one) in all.iter().enumerate() {
            let told = |other: &StoredRow<'_>| other.checksum() != one.checksum();
            assert!(all[n + 1..].iter().all(told), "{n} is not told apart");
        }
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_found(value in prop::collection::vec(any::<u8>(), 1..300), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let stored = i64::from(row(b"k", Some(&value)).checksum());
            prop_assert!(row(b"k", Some(&value)).is_sound(Some(stored)));
            let mut flipped = value.clone();
            let at = at.index(value.len());
            flipped[at] ^= 1_u8 << bit;
            prop_assert!(!row(b"k", Some(&flipped)).is_sound(Some(stored)));
        }
    }
}
