//! A replica that drains ends once another one has everything.

use cortex_core::{
    directory::{Directory, Standing},
    model::NodeName,
    replication::{Ack, Cursor},
};
use cortex_mutant::mutant;

use crate::store::{
    command::ReplicationOutcome,
    error::CommandError,
    replica::Replica,
    tx::{Tx, directory::reconcile},
};

/// Another replica confirms that it has everything of one that drains. What was written meanwhile, by
/// whatever came, keeps it from ending.
pub(crate) fn acknowledged(
    tx: &mut Tx<'_>,
    from: &NodeName,
    ack: &Ack,
) -> Result<ReplicationOutcome, CommandError> {
    let here = tx.here()?;
    let directory = tx.state.catalog.directory();
    let table = ack.table;
    let counts = must_leave(directory.standing(table, &here))
        && may_take_over(directory.standing(table, from))
        && goes_on(directory, from, ack)
        && tx.state.replicas.get(table).is_some_and(|replica| {
            replica.epoch > 0
                && replica.drain.is_some()
                && replica.drain == ack.drain
                && ack.cursor.as_ref().is_some_and(|cursor| has_all(cursor, replica))
        });
    if counts {
        reconcile::end_epoch(tx, table, from.as_str())?;
    }
    Ok(ReplicationOutcome::Drained { left: counts })
}

/// Where only some of competing decisions leave it out, another one may yet want it back.
#[mutant(FrozenKeeps => true)]
fn must_leave(standing: Standing) -> bool {
    standing == Standing::Out
}

/// Who is to leave itself would only hand it on, and may be the last to have it.
#[mutant(DrainedIntoScope => true)]
fn may_take_over(standing: Standing) -> bool {
    standing == Standing::In
}

/// True where the replica epoch that acknowledges is known to have begun, and not to have ended.
#[mutant(DrainedIntoLivingEpoch => true)]
fn goes_on(directory: &Directory, from: &NodeName, ack: &Ack) -> bool {
    let gone = directory.gone(ack.table).get(from).copied().unwrap_or(0);
    let begun = directory.epochs(ack.table).get(from).copied().unwrap_or(0);
    ack.status.epoch > gone && ack.status.epoch == begun
}

#[mutant(DrainedWholly => true)]
fn has_all(cursor: &Cursor, replica: &Replica) -> bool {
    cursor.change_log == replica.change_log && cursor.lsn >= replica.last_lsn
}
