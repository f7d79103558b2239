//! The system table: the directory's rows as signed records.
//! What the rows mean is `cortex_core::directory`; who may cause them, the gate and the service.
//!
//! A record's value is the row beside its writer's signature, which covers the stamp too. So a row
//! can be passed on by anybody, and changed by nobody but its writer.

use std::collections::BTreeMap;

use cortex_core::{
    directory::{Directory, NodeRow, Row, signed_part},
    model::{Hlc, Incarnation, NodeName, Notary, Refusal, Stamp, TableId, TableUid},
    wire::{Head, Reader, encode},
};
use rusqlite::{Connection, OptionalExtension};

use super::error::Fault;

/// Its number in every database file.
pub(super) const NUMBER: TableId = TableId(0);

/// Its lasting id, on every node of every mesh.
pub const UID: TableUid = TableUid(*b"cortexd\0\0\0\0\0\0\0\0\0");

/// The longest value of a row: a certificate is the largest part of any.
const MOST_BYTES: usize = 16 << 10;

/// A row as it is passed from node to node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRow {
    /// Its key in the system table.
    pub key: Vec<u8>,
    /// The row and the signature.
    pub value: Vec<u8>,
    /// Its place in the merge order, with the origin's id.
    pub stamp: Stamp,
    /// Its number among the writes of its origin.
    pub seq: u64,
}

/// A row whose signature has been found to be its writer's.
#[derive(Clone, Debug)]
pub struct VerifiedRow {
    pub(super) sealed: SealedRow,
    pub(super) row: Row,
}

impl VerifiedRow {
    pub(super) fn bytes(&self) -> usize {
        self.sealed.key.len() + self.sealed.value.len()
    }

    /// What it says.
    #[must_use]
    pub fn row(&self) -> &Row {
        &self.row
    }
}

/// Signs a row: the value of its record.
pub(super) fn seal(notary: &dyn Notary, stamp: Stamp, key: &str, row: &[u8]) -> Vec<u8> {
    let signature = notary.sign(&signed_part(notary.mesh(), stamp, key.as_bytes(), row));
    let mut value = Vec::with_capacity(row.len() + signature.len() + 8);
    encode::array(&mut value, 2);
    encode::bin(&mut value, row);
    encode::bin(&mut value, &signature);
    value
}

/// Checks rows that came from another node: each must be signed by the node that alone may write it,
/// with a certificate of this mesh that is known, or is among the rows.
///
/// # Errors
/// [`Refusal::TokenForged`] where one is not. Rows are not taken by halves.
pub fn verify(
    notary: &dyn Notary,
    known: &Directory,
    rows: Vec<SealedRow>,
) -> Result<Vec<VerifiedRow>, Refusal> {
    let opened: Vec<(SealedRow, Row, Vec<u8>, Vec<u8>)> = rows
        .into_iter()
        .map(|sealed| {
            let (row, signature) = open(&sealed.value)?;
            let (row, signature) = (row.to_vec(), signature.to_vec());
            let read = Row::decode(&sealed.key, &row)?;
            Some((sealed, read, row, signature))
        })
        .collect::<Option<_>>()
        .ok_or(Refusal::TokenForged)?;
    let brought: BTreeMap<&NodeName, &NodeRow> = opened
        .iter()
        .filter_map(|(_, row, ..)| {
            let Row::Node(node) = row else {
                return None;
            };
            Some((&node.node, node))
        })
        .collect();
    let signed = |sealed: &SealedRow, row: &Row, bytes: &[u8], signature: &[u8]| {
        let writer = row.writer();
        // A row that is brought along is signed by its own certificate, which must be the mesh's.
        let node = brought.get(writer).copied().or_else(|| known.node(writer))?;
        let message = signed_part(notary.mesh(), sealed.stamp, &sealed.key, bytes);
        let (signer, _) = notary.signer(&node.certificate, &message, signature).ok()?;
        (signer == *writer).then_some(())
    };
    for (sealed, row, bytes, signature) in &opened {
        signed(sealed, row, bytes, signature).ok_or(Refusal::TokenForged)?;
    }
    Ok(opened.into_iter().map(|(sealed, row, ..)| VerifiedRow { sealed, row }).collect())
}

/// The row and the signature in a record's value.
fn open(value: &[u8]) -> Option<(&[u8], &[u8])> {
    if value.len() > MOST_BYTES {
        return None;
    }
    let mut reader = Reader::new(value);
    match (reader.head()?, reader.head()?, reader.head()?) {
        (Head::Array(2), Head::Bin(row), Head::Bin(signature)) if reader.rest().is_empty() => {
            Some((row, signature))
        }
        _ => None,
    }
}

/// Who has written a record of the system table, by what it says.
pub(super) fn writer(key: &[u8], value: &[u8]) -> Option<NodeName> {
    let (row, _) = open(value)?;
    Some(Row::decode(key, row)?.writer().clone())
}

/// Reads the directory from the file. A row that this version does not know is left alone: a newer
/// node has written it.
pub(super) fn load(conn: &Connection) -> Result<Directory, Fault> {
    let here: Option<String> =
        conn.query_row("SELECT node FROM node_state WHERE id = 1", [], |row| row.get(0))?;
    let here = here.map(|name| NodeName::parse(&name)).transpose();
    let here = here.map_err(|_| Fault::Corrupt("the name of this node is no name".into()))?;
    let mut directory = Directory::new(here);
    let mut statement = conn.prepare(
        "SELECT key, value FROM records
         WHERE table_id = ?1 AND value IS NOT NULL",
    )?;
    let mut rows = statement.query([NUMBER.0])?;
    let mut known = Vec::new();
    while let Some(row) = rows.next()? {
        let (key, value) = (row.get_ref(0)?.as_blob(), row.get_ref(1)?.as_blob());
        let (Ok(key), Ok(value)) = (key, value) else {
            continue;
        };
        match open(value).and_then(|(row, _)| Row::decode(key, row)) {
            Some(row) => known.push(row),
            None => tracing::warn!("a row of the directory could not be read and is passed over"),
        }
    }
    directory.extend(known);
    Ok(directory)
}

/// Rows as they are stored here, to be passed on.
pub(super) fn sealed(conn: &Connection, keys: &[String]) -> Result<Vec<SealedRow>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT r.value, r.hlc, i.uid, r.seq FROM records r JOIN incarnations i ON i.number = r.incarnation
         WHERE r.table_id = ?1 AND r.key = ?2 AND r.value IS NOT NULL",
    )?;
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys {
        let row = statement.query_row(rusqlite::params![NUMBER.0, key.as_bytes()], |row| {
            Ok(SealedRow {
                key: key.as_bytes().to_vec(),
                value: row.get(0)?,
                stamp: Stamp {
                    hlc: Hlc::from_i64(row.get(1)?),
                    incarnation: Incarnation(u128::from_be_bytes(row.get(2)?)),
                },
                seq: row.get(3)?,
            })
        });
        rows.extend(row.optional()?);
    }
    Ok(rows)
}
