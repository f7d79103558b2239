//! The system table: the directory's rows as signed records.
//! What the rows mean is `cortex_core::directory`; who may cause them, the gate and the service.
//!
//! A record's value is the row beside its writer's signature, which covers the stamp too. So a row
//! can be passed on by anybody, and changed by nobody but its writer.

use std::collections::BTreeMap;

use cortex_core::{
    directory::{Directory, NodeRow, Row, signed_part},
    model::{Hlc, Incarnation, NodeName, NotSigned, Notary, Refusal, Stamp, TableId, TableUid},
    wire::{Head, Reader, encode},
};
use rusqlite::{Connection, OptionalExtension};

use super::{checksum::StoredRow, error::Fault};

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

    /// Its key in the system table.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.sealed.key
    }

    /// Its place in the merge order.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.sealed.stamp
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

/// A row that is not believed, now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedRow {
    /// Its key in the system table.
    pub key: Vec<u8>,
    /// Its place in the merge order.
    pub stamp: Stamp,
    /// Who alone may write it; none where this version does not understand it.
    pub writer: Option<NodeName>,
    /// What is wrong with it, or with the certificate that it is judged by.
    pub why: Box<str>,
}

/// Rows that came from another node, each by itself.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Those that may be believed.
    pub verified: Vec<VerifiedRow>,
    /// The others.
    pub unverified: Vec<UnverifiedRow>,
}

/// Checks rows that came from another node: each must be signed by the node that alone may write it,
/// with a certificate of this mesh that is known, or is among the rows.
#[must_use]
pub fn check(notary: &dyn Notary, known: &Directory, rows: Vec<SealedRow>) -> Checked {
    let mut checked = Checked::default();
    let mut opened = Vec::with_capacity(rows.len());
    for sealed in rows {
        match Opened::read(sealed) {
            Ok(row) => opened.push(row),
            Err(sealed) => checked.refuse(sealed, None, "it is not understood".into()),
        }
    }
    // A row that is brought along is signed by its own certificate, which must be the mesh's.
    let (mut brought, mut doubtful) = (BTreeMap::new(), BTreeMap::new());
    for opened in &opened {
        if let Row::Node(node) = &opened.row {
            let is_good = opened.judge(notary, node).is_ok();
            let of = if is_good { &mut brought } else { &mut doubtful };
            of.insert(node.node.clone(), node.clone());
        }
    }
    for opened in opened {
        let writer = opened.row.writer();
        let known = brought.get(writer).or_else(|| known.node(writer));
        // What is wrong with a certificate is to be said, where there is no other.
        let signer = match &opened.row {
            Row::Node(own) => Some(own),
            Row::Identity(_)
            | Row::Binding(_)
            | Row::Unbinding(_)
            | Row::Revocation(_)
            | Row::Grant(_)
            | Row::Name(_)
            | Row::Scope(_)
            | Row::Replica(_)
            | Row::Settlement(_)
            | Row::Dropped(_)
            | Row::Removal(_) => known.or_else(|| doubtful.get(writer)),
        };
        let verdict = match signer {
            Some(signer) => opened.judge(notary, signer),
            None => Err("its writer has not presented itself".into()),
        };
        match verdict {
            Ok(()) => {
                checked.verified.push(VerifiedRow { sealed: opened.sealed, row: opened.row });
            }
            Err(why) => {
                let writer = Some(writer.clone());
                checked.refuse(opened.sealed, writer, why);
            }
        }
    }
    checked
}

/// The same where one row that is not believed is one too many.
///
/// # Errors
/// [`Refusal::TokenForged`] where there is one. Rows are not taken by halves.
pub fn verify(
    notary: &dyn Notary,
    known: &Directory,
    rows: Vec<SealedRow>,
) -> Result<Vec<VerifiedRow>, Refusal> {
    let Checked { verified, unverified } = check(notary, known, rows);
    if unverified.is_empty() { Ok(verified) } else { Err(Refusal::TokenForged) }
}

impl Checked {
    fn refuse(&mut self, sealed: SealedRow, writer: Option<NodeName>, why: Box<str>) {
        let SealedRow { key, stamp, .. } = sealed;
        self.unverified.push(UnverifiedRow { key, stamp, writer, why });
    }
}

/// A row that was read, with what its signature is over.
struct Opened {
    sealed: SealedRow,
    row: Row,
    bytes: Vec<u8>,
    signature: Vec<u8>,
}

impl Opened {
    fn read(sealed: SealedRow) -> Result<Self, SealedRow> {
        let read = open(&sealed.value).and_then(|(bytes, signature)| {
            let row = Row::decode(&sealed.key, bytes)?;
            Some((row, bytes.to_vec(), signature.to_vec()))
        });
        match read {
            Some((row, bytes, signature)) => Ok(Self { sealed, row, bytes, signature }),
            None => Err(sealed),
        }
    }

    /// Judges the row by what its writer has said of itself.
    fn judge(&self, notary: &dyn Notary, presented: &NodeRow) -> Result<(), Box<str>> {
        let Self { sealed, row, bytes, signature } = self;
        let message = signed_part(notary.mesh(), sealed.stamp, &sealed.key, bytes);
        let (signer, _) = notary
            .signer(&presented.certificate, &message, signature)
            .map_err(|NotSigned(why)| why)?;
        if signer == *row.writer() {
            Ok(())
        } else {
            Err(format!("it is signed by {signer}").into())
        }
    }
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
        "SELECT key, value, hlc, incarnation, seq, checksum FROM records
         WHERE table_id = ?1 AND value IS NOT NULL",
    )?;
    let mut rows = statement.query([NUMBER.0])?;
    let mut known = Vec::new();
    while let Some(row) = rows.next()? {
        let (key, value) = (row.get_ref(0)?.as_blob(), row.get_ref(1)?.as_blob());
        let (Ok(key), Ok(value)) = (key, value) else {
            continue;
        };
        let stored = StoredRow {
            table: NUMBER,
            key,
            hlc: row.get(2)?,
            origin: row.get(3)?,
            seq: row.get(4)?,
            value: Some(value),
        };
        if !stored.is_sound(row.get(5)?) {
            let key = String::from_utf8_lossy(key);
            tracing::warn!(%key, "a row of the directory is damaged and is passed over");
            continue;
        }
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
        "SELECT r.value, r.hlc, i.uid, r.seq, r.incarnation, r.checksum
         FROM records r JOIN incarnations i ON i.number = r.incarnation
         WHERE r.table_id = ?1 AND r.key = ?2 AND r.value IS NOT NULL",
    )?;
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys {
        let row = statement.query_row(rusqlite::params![NUMBER.0, key.as_bytes()], |row| {
            let stored = StoredRow {
                table: NUMBER,
                key: key.as_bytes(),
                hlc: row.get(1)?,
                origin: row.get(4)?,
                seq: row.get(3)?,
                value: Some(row.get_ref(0)?.as_blob()?),
            };
            let sound = stored.is_sound(row.get(5)?);
            Ok(sound.then_some(SealedRow {
                key: key.as_bytes().to_vec(),
                value: row.get(0)?,
                stamp: Stamp {
                    hlc: Hlc::from_i64(row.get(1)?),
                    incarnation: Incarnation(u128::from_be_bytes(row.get(2)?)),
                },
                seq: row.get(3)?,
            }))
        });
        rows.extend(row.optional()?.flatten());
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use cortex_core::directory::DroppedRow;

    use super::{super::fake_notary::FakeNotary, *};

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).expect("a name")
    }

    fn sealed(row: &Row, by: &str) -> SealedRow {
        let stamp = Stamp { hlc: Hlc::from_unix_ms(1), incarnation: Incarnation(1) };
        let key = row.key();
        let value = seal(&FakeNotary::of(by), stamp, &key, &row.encode());
        SealedRow { key: key.into_bytes(), value, stamp, seq: 1 }
    }

    fn presented(name: &str) -> Row {
        let (database, incarnation) = ([1; 16], Incarnation(1));
        let certificate = name.as_bytes().to_vec();
        Row::Node(NodeRow { node: node(name), certificate, database, incarnation })
    }

    fn dropped(table: u8, by: &str) -> Row {
        Row::Dropped(DroppedRow { table: TableUid([table; 16]), by: node(by) })
    }

    fn checked(rows: Vec<SealedRow>) -> (Vec<Row>, Vec<(Option<NodeName>, String)>) {
        let known = Directory::new(Some(node("home")));
        let Checked { verified, unverified } = check(&FakeNotary::of("home"), &known, rows.clone());
        assert_eq!(verify(&FakeNotary::of("home"), &known, rows).is_ok(), unverified.is_empty());
        let believed = verified.iter().map(|row| row.row().clone()).collect();
        let others = unverified.into_iter().map(|row| (row.writer, row.why.into()));
        (believed, others.collect())
    }

    /// holds M5
    #[test]
    fn each_row_is_judged_by_itself_and_the_reason_is_told() {
        let good = [presented("home"), dropped(1, "home")];
        let mut rows: Vec<_> = good.iter().map(|row| sealed(row, "home")).collect();
        rows.push(sealed(&presented("xcabin"), "xcabin"));
        rows.push(sealed(&dropped(2, "xcabin"), "xcabin"));
        rows.push(sealed(&dropped(3, "stranger"), "stranger"));
        rows.push(sealed(&dropped(4, "home"), "office"));
        rows.push(SealedRow { value: b"of a later version".to_vec(), ..rows[0].clone() });
        let (believed, others) = checked(rows);
        assert_eq!(believed, good);
        let why = |name: &str, why: &str| (Some(node(name)), why.to_owned());
        let expected = [
            (None, "it is not understood".to_owned()),
            why("xcabin", "the certificate is revoked"),
            why("xcabin", "the certificate is revoked"),
            why("stranger", "its writer has not presented itself"),
            why("home", "the signature is not that of the certificate"),
        ];
        assert_eq!(others, expected);
    }

    /// A row that is brought along and is not its writer's vouches for nobody.
    #[test]
    fn a_presentation_that_is_forged_does_not_stand_in_the_way_of_the_known_one() {
        let mut known = Directory::new(Some(node("home")));
        known.insert(presented("cabin"));
        let Row::Node(real) = presented("cabin") else { unreachable!() };
        let forged = Row::Node(NodeRow { certificate: b"office".to_vec(), ..real });
        let rows = vec![sealed(&forged, "cabin"), sealed(&dropped(1, "cabin"), "cabin")];
        let Checked { verified, unverified } = check(&FakeNotary::of("home"), &known, rows);
        assert_eq!(verified.len(), 1);
        assert_eq!(verified[0].row(), &dropped(1, "cabin"));
        assert_eq!(unverified.len(), 1);
    }
}
