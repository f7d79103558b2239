//! Signed rows of the directory: stored, and signed again.
//!
//! Rows whose writers cannot sign any more: another node that holds them signs them.
//! Which those are, and what is signed, is `system`'s; when they are looked for, the peers' upkeep.
//!
//! What was believed once stays believed: by nodes that come later too, which have only the signatures
//! to go by. A row that its writer signed after this node had learnt that it must not is not here to be
//! adopted: `system::check` has refused it.

use cortex_core::{
    directory::{NodeRow, Row, UNKNOWN_DATABASE},
    model::{Hlc, NodeName, Signer, Stamp},
    replication::{Dot, VersionVector},
};
use cortex_mutant::mutant;

use crate::store::{
    command::DirectoryOutcome,
    error::{CommandError, StoreError},
    events::Event,
    system::{self, Rank, VerifiedRow},
    tx::{
        Tx,
        row_table::RowTable,
        versions::{self, ArrivedVersion, ExistingRow, Origin},
    },
};

/// Rows that are adopted together with a removal, at most. Upkeep adopts the others.
const AT_ONCE: usize = 4096;

/// Stores a row of the system table of any writer. False where what is there is newer.
pub(crate) fn store(
    tx: &mut Tx<'_>,
    key: &[u8],
    stamp: Stamp,
    seq: u64,
    value: &[u8],
) -> Result<bool, CommandError> {
    let found = versions::find(tx, RowTable::SYSTEM.id, key)?;
    let rank = Rank::of(key, stamp, Some(value));
    let is_newer = |found: &ExistingRow| Rank::of(key, found.stamp, found.value.as_deref()) >= rank;
    if found.as_ref().filter(|found| !found.damaged).is_some_and(is_newer) {
        return Ok(false);
    }
    let (present, context) = (found.as_ref().map(ExistingRow::present), VersionVector::new());
    let arrived =
        ArrivedVersion { stamp, seq, context_id: None, context: &context, concurrent: false };
    let origin = Origin::Arrived(arrived);
    versions::put_version(tx, RowTable::SYSTEM, key, present, Some(value), origin)?;
    Ok(true)
}

/// The stamp and number of a row of the directory: later than the row that it replaces, which was written here
/// too, perhaps while the clock was ahead, or by this machine before it was restored. The clock does not follow.
#[mutant(OwnRowExceeded => Ok(tx.draw()))]
pub(crate) fn draw_after(tx: &mut Tx<'_>, key: &[u8]) -> Result<(Stamp, u64), StoreError> {
    let (mut stamp, seq) = tx.draw();
    if let Some(found) = versions::find(tx, system::NUMBER, key)? {
        stamp.hlc = stamp.hlc.max(found.stamp.hlc.next());
    }
    Ok((stamp, seq))
}

/// What this node says under a key.
pub(crate) fn own_row(tx: &Tx<'_>, key: &[u8]) -> Option<Row> {
    let directory = tx.state.catalog.directory();
    directory.written_by(directory.here()?).find(|row| row.key().as_bytes() == key)
}

/// What this machine has written since it was restored, where a row arrives that it had written before and has
/// forgotten. That one may have the later timestamp, where the clock was ahead then.
pub(crate) fn written_since_restored(
    tx: &Tx<'_>,
    arriving: &VerifiedRow,
) -> Result<Option<Row>, StoreError> {
    let (row, own) = (arriving.row(), tx.state.own_actor());
    let directory = tx.state.catalog.directory();
    if directory.here() != Some(row.writer()) || arriving.authored().actor == own {
        return Ok(None);
    }
    let key = arriving.key();
    let found = versions::find(tx, system::NUMBER, key)?;
    // What was merely signed again since then was decided before.
    let rank = found.map(|found| Rank::of(key, found.stamp, found.value.as_deref()));
    if rank.is_none_or(|rank| rank.authored.actor != own) {
        return Ok(None);
    }
    Ok(own_row(tx, key).filter(|mine| mine != row))
}

/// Signs rows that still are as they were found.
pub(crate) fn adopt_rows(
    tx: &mut Tx<'_>,
    rows: &[(Vec<u8>, Stamp)],
) -> Result<DirectoryOutcome, CommandError> {
    let signer = tx.signer()?;
    let mut adopted = 0;
    for (key, stamp) in rows {
        let found = versions::find(tx, RowTable::SYSTEM.id, key)?;
        let Some(found) = found.filter(|found| found.stamp == *stamp && !found.damaged) else {
            continue;
        };
        let Some(held) = found.value.as_deref().and_then(system::open) else { continue };
        sign_in_its_place(tx, signer.as_ref(), key, found.stamp, &held)?;
        adopted += 1;
    }
    if adopted > 0 {
        let text = format!(
            "{adopted} rows of the directory were signed here in the place of machines that cannot any more"
        );
        tx.note(&Event { uid: None, kind: "rows_adopted", text })?;
    }
    Ok(DirectoryOutcome::Adopted)
}

fn sign_in_its_place(
    tx: &mut Tx<'_>,
    signer: &dyn Signer,
    key: &[u8],
    before: Stamp,
    held: &system::SealedParts<'_>,
) -> Result<(), CommandError> {
    let (stamp, seq) = draw_after(tx, key)?;
    let value = system::adopt(signer, before, stamp, key, held);
    store(tx, key, stamp, seq, &value)?;
    if let Some(replica) = tx.state.replicas.get_mut(system::UID) {
        replica.vector.raise(Dot { actor: stamp.actor, seq });
    }
    Ok(())
}

/// Signs what this node has signed, with the certificate that it has now. Each row keeps its place among the
/// versions of it.
pub(crate) fn sign_again(
    tx: &mut Tx<'_>,
    here: &NodeName,
    signer: &dyn Signer,
) -> Result<(), CommandError> {
    for (key, stamp) in signed_by(tx, here, usize::MAX)? {
        let found = versions::find(tx, RowTable::SYSTEM.id, &key)?;
        let Some(value) = found.filter(|found| !found.damaged).and_then(|found| found.value) else {
            continue;
        };
        let is_presentation = |held: &system::SealedParts<'_>| {
            matches!(system::row_of(&key, held), Some(Row::Node(_)) | None)
        };
        if let Some(held) = system::open(&value).filter(|held| !is_presentation(held)) {
            sign_in_its_place(tx, signer, &key, stamp, &held)?;
        }
    }
    Ok(())
}

/// Signs what a machine has signed that was just put out of the mesh.
pub(crate) fn adopt_all_of(tx: &mut Tx<'_>, node: &NodeName) -> Result<(), CommandError> {
    let is_known = |row: &NodeRow| row.database != UNKNOWN_DATABASE;
    if !tx.directory().node(node).is_some_and(is_known) {
        return Ok(()); // of older versions: upkeep does it
    }
    let rows = signed_by(tx, node, AT_ONCE)?;
    adopt_rows(tx, &rows).map(|_| ())
}

fn signed_by(
    tx: &Tx<'_>,
    node: &NodeName,
    most: usize,
) -> Result<Vec<(Vec<u8>, Stamp)>, StoreError> {
    let mut statement = tx.cached(
        "SELECT key, value, hlc, actor FROM records
         WHERE table_id = ?1 AND value IS NOT NULL ORDER BY key",
    )?;
    let mut rows = statement.query([system::NUMBER.0])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()?
        && found.len() < most
    {
        let (key, value): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
        if system::signer(&key, &value).as_ref() == Some(node) {
            let hlc = Hlc::from_i64(row.get(2)?);
            let actor = tx.state.actors.id(row.get(3)?);
            found.push((key, Stamp { hlc, actor }));
        }
    }
    Ok(found)
}
