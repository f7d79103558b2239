//! What only another machine may ask about identities: redeeming tokens.
//! Comparing replicas is `comparison`'s.

use super::{
    Malformed, Response,
    param::{Param, WriteParam, request},
};
use crate::{
    directory::SealedRow,
    model::{ActorId, Hlc, Stamp},
    wire::{Reader, encode},
};

/// Rows that are taken from another node for one identity: with ten nodes, some thirty are normal.
const MOST_ROWS: usize = 1000;

request! {
    /// Uses up a token that this machine has made; answers the rows of the directory about its identity.
    IdentityRedeem<'a> = IdentityRedeem -> SealedRows {
        /// The token.
        token: &'a str,
    }
}

request! {
    /// Rows of the directory about the asker's own users: `ok`.
    IdentityLearn = IdentityLearn -> String {
        /// The rows.
        rows: SealedRows,
    }
}

/// Rows of the directory with their signatures, each an array of key, value, timestamp, actor and number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRows(pub Vec<SealedRow>);

impl SealedRows {
    fn write_to(&self, out: &mut Vec<u8>) {
        encode::array(out, self.0.len());
        for row in &self.0 {
            encode::array(out, 5);
            encode::bin(out, &row.key);
            encode::bin(out, &row.value);
            encode::uint(out, row.stamp.hlc.to_i64().unsigned_abs());
            encode::bin(out, &row.stamp.actor.0.to_be_bytes());
            encode::uint(out, row.seq);
        }
    }

    fn read_from(encoded: &[u8]) -> Option<Self> {
        Reader::new(encoded).list(MOST_ROWS, read_row).map(Self)
    }
}

impl WriteParam for SealedRows {
    fn write(&self, out: &mut Vec<u8>) {
        self.write_to(out);
    }
}

impl Param<'_> for SealedRows {
    fn read(encoded: &[u8]) -> Option<Self> {
        Self::read_from(encoded)
    }
}

impl Response for SealedRows {
    fn read(result: &[u8]) -> Result<Self, Malformed> {
        Self::read_from(result).ok_or_else(|| Malformed("a list of rows is expected".into()))
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.write_to(out);
    }
}

fn read_row(reader: &mut Reader<'_>) -> Option<SealedRow> {
    reader.array_of(5)?;
    let (key, value) = (reader.bin()?.to_vec(), reader.bin()?.to_vec());
    let hlc = Hlc::from_i64(i64::try_from(reader.count()?).ok()?);
    let actor = ActorId(u128::from_be_bytes(reader.bin_of()?));
    Some(SealedRow { key, value, stamp: Stamp { hlc, actor }, seq: reader.count()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_they_were_written_and_in_bounds() {
        let stamp = Stamp { hlc: Hlc::from_unix_ms(7), actor: ActorId(3) };
        let row = SealedRow { key: b"+node/a".to_vec(), value: vec![1, 2], stamp, seq: 4 };
        let rows = SealedRows(vec![row.clone(), row.clone()]);
        let mut encoded = Vec::new();
        rows.write_to(&mut encoded);
        assert_eq!(SealedRows::read_from(&encoded), Some(rows));
        let mut encoded = Vec::new();
        SealedRows(vec![row; MOST_ROWS + 1]).write_to(&mut encoded);
        assert_eq!(SealedRows::read_from(&encoded), None);
    }
}
