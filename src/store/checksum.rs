//! A checksum of every stored row, kept beside it: of its table, key, version and value.
//! It tells what a disk or a stray program has changed; against somebody who means harm it is no help.
//!
//! CRC-32C (Castagnoli), as ext4, Btrfs and iSCSI use it: every change within 32 bits is found, any other with all
//! but one chance in four thousand million. Eight bytes at a time by tables ("slicing by 8", Kounavis and Berry,
//! 2005), which is faster than reading the row from SQLite is.

use cortex_core::model::TableId;

/// A row as the file has it: the origin by its short number.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredRow<'r> {
    pub(super) table: TableId,
    pub(super) key: &'r [u8],
    pub(super) hlc: i64,
    pub(super) origin: i64,
    pub(super) seq: u64,
    /// None for a tombstone.
    pub(super) value: Option<&'r [u8]>,
}

impl StoredRow<'_> {
    /// What is to be stored with it.
    pub(super) fn checksum(&self) -> u32 {
        let mut crc = Crc(!0);
        crc.update(&self.table.0.to_le_bytes());
        crc.update(&self.hlc.to_le_bytes());
        crc.update(&self.origin.to_le_bytes());
        crc.update(&self.seq.to_le_bytes());
        crc.update(&(self.key.len() as u64).to_le_bytes());
        crc.update(self.key);
        if let Some(value) = self.value {
            crc.update(&[1]);
            crc.update(value);
        }
        !crc.0
    }

    /// Whether it is what was stored. A row of an earlier schema has no checksum until the scrub gives it one.
    pub(super) fn is_sound(&self, stored: Option<i64>) -> bool {
        stored.is_none_or(|stored| stored == i64::from(self.checksum()))
    }
}

/// Castagnoli's polynomial, its bits in reverse.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// What a byte at each of eight places changes.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut place = 1;
    while place < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[place - 1][byte];
            tables[place][byte] = before >> 8 ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        place += 1;
    }
    tables
}

struct Crc(u32);

impl Crc {
    fn update(&mut self, bytes: &[u8]) {
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            let word = u64::from_le_bytes(*eight) ^ u64::from(self.0);
            let places = word.to_le_bytes().into_iter().zip(TABLES.iter().rev());
            self.0 = places.fold(0, |crc, (byte, table)| crc ^ table[usize::from(byte)]);
        }
        for byte in rest {
            let index = usize::from(self.0.to_le_bytes()[0] ^ byte);
            self.0 = self.0 >> 8 ^ TABLES[0][index];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn crc(bytes: &[u8]) -> u32 {
        let mut crc = Crc(!0);
        crc.update(bytes);
        !crc.0
    }

    /// The check value of the catalogue of CRCs, and three of RFC 3720.
    #[test]
    fn it_is_the_crc_that_others_compute() {
        assert_eq!(crc(b"123456789"), 0xE306_9283);
        assert_eq!(crc(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc(&[0xFF; 32]), 0x62A8_AB43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc(&rising), 0x46DD_794E);
    }

    fn row<'r>(key: &'r [u8], value: Option<&'r [u8]>) -> StoredRow<'r> {
        StoredRow { table: TableId(3), key, hlc: 77, origin: 2, seq: 5, value }
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
            StoredRow { origin: 3, ..one },
            StoredRow { seq: 6, ..one },
        ];
        for (n, one) in all.iter().enumerate() {
            let told = |other: &StoredRow<'_>| other.checksum() != one.checksum();
            assert!(all[n + 1..].iter().all(told), "{n} is not told apart");
        }
    }

    proptest! {
        #[test]
        fn bytes_in_parts_come_to_the_same(bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>()) {
            let at = at.index(bytes.len() + 1);
            let mut parts = Crc(!0);
            parts.update(&bytes[..at]);
            parts.update(&bytes[at..]);
            prop_assert_eq!(!parts.0, crc(&bytes));
        }

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
