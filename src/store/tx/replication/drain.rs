//! A replica that drains ends once another one has everything.

use cortex_core::{
    directory::Standing,
    model::NodeName,
    replication::{Ack, Cursor},
    rule::Rule,
};

use crate::store::{
    command::ReplicationOutcome,
    error::CommandError,
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
    let (table, standing) = (ack.table, directory.standing(ack.table, &here));
    let gone = directory.gone(table).get(from).copied().unwrap_or(0);
    let epochs = directory.epochs(table).get(from).copied().unwrap_or(0);
    let is_current = ack.status.epoch > gone && ack.status.epoch == epochs;
    let counts = (standing == Standing::Out || !Rule::FrozenKeeps.holds())
        && (directory.standing(table, from) == Standing::In || !Rule::DrainedIntoScope.holds())
        && (is_current || !Rule::DrainedIntoLivingEpoch.holds())
        && tx.state.replicas.get(table).is_some_and(|replica| {
            let has_all = |cursor: &Cursor| {
                let read_up_to =
                    cursor.change_log == replica.change_log && cursor.lsn >= replica.last_lsn;
                read_up_to || !Rule::DrainedWholly.holds()
            };
            replica.epoch > 0
                && replica.drain.is_some()
                && replica.drain == ack.drain
                && ack.cursor.as_ref().is_some_and(has_all)
        });
    if counts {
        reconcile::end_epoch(tx, table, from.as_str())?;
    }
    Ok(ReplicationOutcome::Drained { left: counts })
}
