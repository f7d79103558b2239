//! Rows of the directory that other nodes have signed, taken over where they are newer.
//! Their signatures were checked before, by `store::system`.

use cortex_core::directory::{Row, SealedRow};
use cortex_mutant::mutant;

use crate::store::{
    error::CommandError,
    events::Event,
    system::VerifiedRow,
    tx::{
        Tx,
        directory::{reconcile, signed, tokens},
    },
};

/// Takes rows of other nodes over, where they are newer than what is known.
pub(crate) fn learn(tx: &mut Tx<'_>, rows: &[VerifiedRow]) -> Result<(), CommandError> {
    let (mut newer, mut again) = (Vec::new(), Vec::new());
    for row in rows {
        let mine = signed::written_since_restored(tx, row)?;
        let again_as = |mine: Row| {
            // A decision by count replaces the forgotten one as it is. It must not claim to have seen what that
            // one had: it would win where it has to compete.
            if matches!(mine, Row::Scope(_) | Row::NameResolution(_) | Row::Transfer(_)) {
                return None;
            }
            let lifted = mine.clone().written_again(row.row());
            (lifted != mine).then_some(lifted)
        };
        if store_learnt(tx, &row.sealed)? {
            newer.push(row.row().clone());
            again.extend(mine.map(|mine| mine.written_again(row.row())));
        } else {
            // Later, and all the same without what the forgotten one says: it has replaced that elsewhere.
            again.extend(mine.and_then(again_as));
        }
    }
    tokens::note_tokens(tx, &newer)?;
    reconcile::take_effect(tx, newer)?;
    write_above_forgotten(tx, again)
}

/// Stores a row of another node, where it is newer. One node whose clock is wrong would move those of all others by it.
#[mutant(DirectoryMovesNoClock => { tx.observe(row.stamp.hlc); signed::store(tx, &row.key, row.stamp, row.seq, &row.value) })]
fn store_learnt(tx: &mut Tx<'_>, row: &SealedRow) -> Result<bool, CommandError> {
    signed::store(tx, &row.key, row.stamp, row.seq, &row.value)
}

/// Writes rows above those that this machine had forgotten.
fn write_above_forgotten(tx: &mut Tx<'_>, again: Vec<Row>) -> Result<(), CommandError> {
    let mut written = 0;
    for row in again {
        // What was learnt may have had this node write the same row meanwhile, as that a replica goes on.
        let current = signed::own_row(tx, row.key().as_bytes());
        let above = match &current {
            Some(current) if *current != row => row.written_again(current),
            Some(_) | None => row,
        };
        if current.as_ref() != Some(&above) {
            reconcile::write(tx, vec![above])?;
            written += 1;
        }
    }
    if written == 0 {
        return Ok(());
    }
    let text = format!(
        "{written} decisions of this machine, made after it was restored, were written once more above those that it had forgotten"
    );
    tx.note(&Event { uid: None, kind: "decisions_rewritten", text })?;
    Ok(())
}
