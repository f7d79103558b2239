//! The system table: the directory's rows as signed records.
//! What the rows mean is `cortex_core::directory`; who may cause them, the gate and the service.
//!
//! A record's value is the row beside its writer's signature, which covers the stamp too. So a row
//! can be passed on by anybody, and changed by nobody but its writer.
//!
//! A writer whose certificate was revoked or has expired, or whose machine was removed or installed
//! again, cannot be verified any more by a node that has not verified the row before. Another node that
//! holds the row signs it in the writer's place: it adopts it. The row keeps the stamp that its writer
//! gave it, which decides which version is the newest; that of the record is the adopter's.

use std::collections::BTreeMap;

use cortex_core::{
    directory::{Directory, NodeRow, Progress, Row, SealedRow, adopted_part, signed_part},
    model::{ActorId, Hlc, NodeName, NotSigned, Refusal, Signer, Stamp, TableId, TableUid},
    replication::UnverifiedRow,
    wire::{Reader, encode},
};
use cortex_mutant::mutant;
use rusqlite::{Connection, OptionalExtension};

use super::{checksum::StoredRow, error::StoreError};

/// Its number in every database file.
pub(super) const NUMBER: TableId = TableId(0);

/// Its lasting id, on every node of every mesh.
pub const UID: TableUid = cortex_core::replication::SYSTEM_TABLE;

/// The longest value of a row: a certificate is the largest part of any.
const MOST_BYTES: usize = 16 << 10;

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

    /// The stamp that its writer gave it.
    pub(super) fn authored(&self) -> Stamp {
        let SealedRow { key, value, stamp, .. } = &self.sealed;
        Rank::of(key, *stamp, Some(value)).authored
    }
}

/// Signs a row: the value of its record.
pub(super) fn seal(signer: &dyn Signer, stamp: Stamp, key: &str, row: &[u8]) -> Vec<u8> {
    let signature = signer.sign(&signed_part(signer.mesh(), stamp, key.as_bytes(), row));
    let mut value = Vec::with_capacity(row.len() + signature.len() + 8);
    encode::array(&mut value, 2);
    encode::bin(&mut value, row);
    encode::bin(&mut value, &signature);
    value
}

/// Signs a row in the place of its writer, whose own signature is kept beside: the value of its record,
/// which had the stamp `before` and gets another.
pub(super) fn adopt(
    signer: &dyn Signer,
    before: Stamp,
    stamp: Stamp,
    key: &[u8],
    held: &SealedParts<'_>,
) -> Vec<u8> {
    let SealedParts { row, original, .. } = held;
    let authored = held.authored(before);
    let signature = signer.sign(&adopted_part(signer.mesh(), stamp, authored, key, row));
    let mut value = Vec::with_capacity(row.len() + original.len() + signature.len() + 64);
    encode::array(&mut value, 6);
    encode::bin(&mut value, row);
    encode::bin(&mut value, &signature);
    encode::str(&mut value, signer.node().as_str());
    encode::uint(&mut value, authored.hlc.to_i64().unsigned_abs());
    encode::bin(&mut value, &authored.actor.0.to_be_bytes());
    encode::bin(&mut value, original);
    value
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
pub fn check(signer: &dyn Signer, known: &Directory, rows: Vec<SealedRow>) -> Checked {
    let mut checked = Checked::default();
    let mut opened = Vec::with_capacity(rows.len());
    for sealed in rows {
        match SignedContent::read(sealed) {
            Ok(row) => opened.push(row),
            Err(sealed) => checked.refuse(sealed, None, "it is not understood".into()),
        }
    }
    // A row that is brought along is signed by its own certificate, which must be the mesh's.
    let (mut brought, mut unverified) = (BTreeMap::new(), BTreeMap::new());
    for opened in &opened {
        if let Row::Node(node) = &opened.row
            && opened.adopted.is_none()
        {
            let is_good = opened.judge(signer, node).is_ok();
            let of = if is_good { &mut brought } else { &mut unverified };
            of.insert(node.node.clone(), node.clone());
        }
    }
    for opened in opened {
        let writer = opened.signer();
        let known = brought.get(writer).or_else(|| known.node(writer));
        // What is wrong with a certificate is to be said, where there is no other.
        let presented = match &opened.row {
            Row::Node(own) if opened.adopted.is_none() => Some(own),
            Row::Node(_)
            | Row::Identity(_)
            | Row::Binding(_)
            | Row::Unbinding(_)
            | Row::Revocation(_)
            | Row::Grant(_)
            | Row::Name(_)
            | Row::Scope(_)
            | Row::Replica(_)
            | Row::NameResolution(_)
            | Row::Dropped(_)
            | Row::Transfer(_)
            | Row::Removal(_) => known.or_else(|| unverified.get(writer)),
        };
        let verdict = match presented {
            Some(presented) => opened.judge(signer, presented),
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
/// [`Refusal::RowUnverified`] for the first one. Rows are not taken by halves.
pub fn verify(
    signer: &dyn Signer,
    known: &Directory,
    rows: Vec<SealedRow>,
) -> Result<Vec<VerifiedRow>, Refusal> {
    let Checked { verified, unverified } = check(signer, known, rows);
    match unverified.first() {
        None => Ok(verified),
        Some(row) => Err(row.refusal()),
    }
}

impl Checked {
    fn refuse(&mut self, sealed: SealedRow, writer: Option<NodeName>, why: Box<str>) {
        let SealedRow { key, stamp, .. } = sealed;
        self.unverified.push(UnverifiedRow { key, stamp, writer, why });
    }
}

/// A row that was read, with what its signature is over.
struct SignedContent {
    sealed: SealedRow,
    row: Row,
    bytes: Vec<u8>,
    signature: Vec<u8>,
    adopted: Option<Adopted>,
}

impl SignedContent {
    fn read(sealed: SealedRow) -> Result<Self, SealedRow> {
        let read = open(&sealed.value).and_then(|held| {
            let row = Row::decode(&sealed.key, held.row)?;
            Some((row, held.row.to_vec(), held.signature.to_vec(), held.adopted))
        });
        match read {
            Some((row, bytes, signature, adopted)) => {
                Ok(Self { sealed, row, bytes, signature, adopted })
            }
            None => Err(sealed),
        }
    }

    /// Whose signature it has.
    fn signer(&self) -> &NodeName {
        self.adopted.as_ref().map_or_else(|| self.row.writer(), |adopted| &adopted.by)
    }

    /// Judges the row by what its signer has said of itself.
    fn judge(&self, signer: &dyn Signer, presented: &NodeRow) -> Result<(), Box<str>> {
        let Self { sealed, bytes, signature, .. } = self;
        let (mesh, stamp, key) = (signer.mesh(), sealed.stamp, &sealed.key);
        let message = match &self.adopted {
            None => signed_part(mesh, stamp, key, bytes),
            Some(adopted) => adopted_part(mesh, stamp, adopted.authored, key, bytes),
        };
        let (by, _) = signer
            .verify(&presented.certificate, &message, signature)
            .map_err(|NotSigned(why)| why)?;
        if by == *self.signer() { Ok(()) } else { Err(format!("it is signed by {by}").into()) }
    }
}

/// Who has signed a row in its writer's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Adopted {
    by: NodeName,
    /// The stamp that the writer gave the row.
    authored: Stamp,
}

/// A record's value, taken apart.
#[derive(Debug)]
pub(super) struct SealedParts<'a> {
    row: &'a [u8],
    signature: &'a [u8],
    pub(super) adopted: Option<Adopted>,
    /// The writer's own signature.
    original: &'a [u8],
}

impl SealedParts<'_> {
    /// The stamp that the writer gave the row, of a record with that stamp.
    fn authored(&self, stamp: Stamp) -> Stamp {
        self.adopted.as_ref().map_or(stamp, |adopted| adopted.authored)
    }

    /// Whose signature a row under that key has.
    pub(super) fn signer(&self, key: &[u8]) -> Option<NodeName> {
        match &self.adopted {
            Some(adopted) => Some(adopted.by.clone()),
            None => Some(Row::decode(key, self.row)?.writer().clone()),
        }
    }
}

/// What a record under that key says.
pub(super) fn row_of(key: &[u8], held: &SealedParts<'_>) -> Option<Row> {
    Row::decode(key, held.row)
}

/// Takes a record's value apart.
pub(super) fn open(value: &[u8]) -> Option<SealedParts<'_>> {
    if value.len() > MOST_BYTES {
        return None;
    }
    let mut reader = Reader::new(value);
    let parts = reader.array()?;
    let (row, signature) = (reader.bin()?, reader.bin()?);
    let (adopted, original) = match parts {
        2 => (None, signature),
        6 => {
            let by = NodeName::parse(reader.text()?).ok()?;
            let hlc = Hlc::from_i64(i64::try_from(reader.int()?).ok()?);
            let actor = ActorId(u128::from_be_bytes(reader.bin_of()?));
            let original = reader.bin()?;
            (Some(Adopted { by, authored: Stamp { hlc, actor } }), original)
        }
        _ => return None,
    };
    reader.rest().is_empty().then_some(SealedParts { row, signature, adopted, original })
}

/// Who has signed a record of the system table, by what it says.
pub(super) fn signer(key: &[u8], value: &[u8]) -> Option<NodeName> {
    open(value)?.signer(key)
}

/// What decides which version of a row counts: how far its writer had come, when it wrote it, and of what was
/// adopted by several nodes, which record is the latest. The same on every node, whatever arrives first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Before the timestamp: a restored writer has forgotten some of what it had decided.
    progress: Progress,
    /// The stamp that its writer gave it.
    pub(super) authored: Stamp,
    stamp: Stamp,
}

impl Rank {
    /// The rank of a record.
    pub(super) fn of(key: &[u8], stamp: Stamp, value: Option<&[u8]>) -> Self {
        let held = value.and_then(open);
        let authored = held.as_ref().map_or(stamp, |held| held.authored(stamp));
        Self { progress: Self::progress(key, held.as_ref()), authored, stamp }
    }

    #[mutant(ForgottenDecisionCounts => Progress::default())]
    fn progress(key: &[u8], held: Option<&SealedParts<'_>>) -> Progress {
        let row = held.and_then(|held| row_of(key, held));
        row.map_or_else(Progress::default, |row| row.progress())
    }
}

/// The keys and stamps of rows that a node could not verify which has not verified them before:
/// those of a machine that was removed, or whose certificate does not count any more. Nothing where this
/// node's own do not count: then the fault is here.
pub(super) fn orphans(
    conn: &Connection,
    signer: &dyn Signer,
    directory: &Directory,
) -> Result<Vec<(Vec<u8>, Stamp)>, StoreError> {
    let mut statement = conn.prepare(
        "SELECT r.key, r.value, r.hlc, i.uid, r.seq FROM records r
         JOIN actors i ON i.number = r.actor
         WHERE r.table_id = ?1 AND r.value IS NOT NULL ORDER BY r.key",
    )?;
    let rows = statement.query_map([NUMBER.0], |row| {
        let (key, value) = (row.get(0)?, row.get(1)?);
        let actor = ActorId(u128::from_be_bytes(row.get(3)?));
        let stamp = Stamp { hlc: Hlc::from_i64(row.get(2)?), actor };
        Ok(SealedRow { key, value, stamp, seq: row.get(4)? })
    })?;
    let mut found = Vec::new();
    let mut counts: BTreeMap<NodeName, bool> = BTreeMap::new();
    for row in rows {
        let Ok(opened) = SignedContent::read(row?) else { continue };
        let signed_by = opened.signer();
        let (key, stamp) = (opened.sealed.key.clone(), opened.sealed.stamp);
        let Some(presented) = directory.node(signed_by) else { continue };
        if signed_by == signer.node() {
            if !counts.contains_key(signed_by) {
                if opened.judge(signer, presented).is_err() {
                    return Ok(Vec::new());
                }
                counts.insert(signed_by.clone(), true);
            }
            continue;
        }
        if directory.is_put_out(signed_by) {
            found.push((key, stamp));
            continue;
        }
        // One signature of a certificate suffices to know that it counts, for rows of the same actor.
        let is_current = stamp.actor == presented.actor;
        if is_current && counts.contains_key(signed_by) {
            continue;
        }
        match opened.judge(signer, presented) {
            Ok(()) if is_current => drop(counts.insert(signed_by.clone(), true)),
            Ok(()) => {}
            Err(_) => found.push((key, stamp)),
        }
    }
    if !counts.contains_key(signer.node()) {
        found.clear();
    }
    Ok(found)
}

/// Reads the directory from the file. A row that this version does not know is left alone: a newer
/// node has written it.
pub(super) fn load(conn: &Connection) -> Result<Directory, StoreError> {
    let here: Option<String> =
        conn.query_row("SELECT node FROM node_state WHERE id = 1", [], |row| row.get(0))?;
    let here = here.map(|name| NodeName::parse(&name)).transpose();
    let here = here.map_err(|_| StoreError::Corrupt("the name of this node is no name".into()))?;
    let mut directory = Directory::new(here);
    let mut statement = conn.prepare(
        "SELECT key, value, hlc, actor, seq, checksum FROM records
         WHERE table_id = ?1 AND value IS NOT NULL",
    )?;
    let mut rows = statement.query([NUMBER.0])?;
    let mut known = Vec::new();
    while let Some(row) = rows.next()? {
        let Ok((stored, checksum)) = StoredRow::read(NUMBER, row) else {
            continue;
        };
        let (key, value) = (stored.key, stored.value.unwrap_or_default());
        if !stored.is_sound(checksum) {
            let key = String::from_utf8_lossy(key);
            tracing::warn!(%key, "a row of the directory is damaged and is passed over");
            continue;
        }
        match open(value).and_then(|held| Row::decode(key, held.row)) {
            Some(row) => known.push(row),
            None => tracing::warn!("a row of the directory could not be read and is passed over"),
        }
    }
    directory.extend(known);
    Ok(directory)
}

/// Rows as they are stored here, to be passed on.
pub(super) fn sealed(conn: &Connection, keys: &[String]) -> Result<Vec<SealedRow>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT r.value, r.hlc, i.uid, r.seq, r.actor, r.checksum
         FROM records r JOIN actors i ON i.number = r.actor
         WHERE r.table_id = ?1 AND r.key = ?2 AND r.value IS NOT NULL",
    )?;
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys {
        let row = statement.query_row(rusqlite::params![NUMBER.0, key.as_bytes()], |row| {
            let stored = StoredRow {
                table: NUMBER,
                key: key.as_bytes(),
                hlc: row.get(1)?,
                actor_number: row.get(4)?,
                seq: row.get(3)?,
                value: Some(row.get_ref(0)?.as_blob()?),
            };
            let sound = stored.is_sound(row.get(5)?);
            Ok(sound.then_some(SealedRow {
                key: key.as_bytes().to_vec(),
                value: row.get(0)?,
                stamp: Stamp {
                    hlc: Hlc::from_i64(row.get(1)?),
                    actor: ActorId(u128::from_be_bytes(row.get(2)?)),
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

    use super::{super::fake_signer::FakeSigner, *};

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).expect("a name")
    }

    fn sealed(row: &Row, by: &str) -> SealedRow {
        let stamp = Stamp { hlc: Hlc::from_unix_ms(1), actor: ActorId(1) };
        let key = row.key();
        let value = seal(&FakeSigner::of(by), stamp, &key, &row.encode());
        SealedRow { key: key.into_bytes(), value, stamp, seq: 1 }
    }

    fn presented(name: &str) -> Row {
        let (database, actor) = ([1; 16], ActorId(1));
        let certificate = name.as_bytes().to_vec();
        Row::Node(NodeRow { node: node(name), certificate, database, actor })
    }

    fn dropped(table: u8, by: &str) -> Row {
        Row::Dropped(DroppedRow { table: TableUid([table; 16]), by: node(by) })
    }

    fn checked(rows: Vec<SealedRow>) -> (Vec<Row>, Vec<(Option<NodeName>, String)>) {
        let known = Directory::new(Some(node("home")));
        let Checked { verified, unverified } = check(&FakeSigner::of("home"), &known, rows.clone());
        assert_eq!(verify(&FakeSigner::of("home"), &known, rows).is_ok(), unverified.is_empty());
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
        let Checked { verified, unverified } = check(&FakeSigner::of("home"), &known, rows);
        assert_eq!(verified.len(), 1);
        assert_eq!(verified[0].row(), &dropped(1, "cabin"));
        assert_eq!(unverified.len(), 1);
    }

    fn rank(row: &SealedRow) -> Rank {
        Rank::of(&row.key, row.stamp, Some(&row.value))
    }

    fn adopted(row: &SealedRow, by: &str, at: u64) -> SealedRow {
        let stamp = Stamp { hlc: Hlc::from_unix_ms(at), actor: ActorId(9) };
        let held = open(&row.value).expect("a row");
        let value = adopt(&FakeSigner::of(by), row.stamp, stamp, &row.key, &held);
        SealedRow { value, stamp, seq: at, ..row.clone() }
    }

    /// holds M5: what a revoked machine has signed is believed where another one vouches for it, and not
    /// otherwise.
    #[test]
    fn a_row_of_a_revoked_machine_is_believed_once_another_has_signed_it_in_its_place() {
        let mut known = Directory::new(Some(node("home")));
        known.extend([presented("home"), presented("xcabin"), presented("xshed")]);
        let row = sealed(&dropped(1, "xcabin"), "xcabin");
        let check = |row: &SealedRow| check(&FakeSigner::of("home"), &known, vec![row.clone()]);
        assert_eq!(check(&row).verified.len(), 0, "it was signed by who does not count");
        let kept = adopted(&row, "home", 5);
        assert_eq!(check(&kept).verified[0].row(), &dropped(1, "xcabin"));
        assert_eq!(signer(&kept.key, &kept.value), Some(node("home")));
        let again = adopted(&adopted(&row, "xshed", 5), "home", 6);
        assert_eq!(check(&again).verified.len(), 1, "the one between is not asked");
        assert_eq!(rank(&again).authored, row.stamp, "its writer's stamp stays");
        for wrong in [
            adopted(&row, "xshed", 5),
            SealedRow { stamp: row.stamp, ..kept.clone() },
            SealedRow { key: b"dropped/other".to_vec(), ..kept.clone() },
        ] {
            assert_eq!(check(&wrong).verified.len(), 0, "{wrong:?}");
        }
        let mut changed = kept.clone();
        let at = changed.value.len() / 2;
        changed.value[at] ^= 1;
        assert_eq!(check(&changed).verified.len(), 0);
    }

    /// Which version is the newest does not depend on who has adopted which of them, or when.
    #[test]
    fn an_older_version_that_was_adopted_later_does_not_replace_a_newer_one() {
        let old = sealed(&dropped(1, "xcabin"), "xcabin");
        let stamp = Stamp { hlc: Hlc::from_unix_ms(2), actor: ActorId(1) };
        let new = SealedRow { stamp, ..old.clone() };
        assert!(rank(&old) < rank(&adopted(&old, "home", 9)));
        assert!(rank(&adopted(&old, "home", 9)) < rank(&new));
        assert!(rank(&new) < rank(&adopted(&new, "home", 5)));
        assert!(rank(&adopted(&new, "home", 5)) < rank(&adopted(&new, "office", 6)));
    }
}
