//! What a driver has done by the store: each piece of work on a thread that may block, or by the writer.
//! What work is to be done, and what follows from it, is the driver's to say.

use std::sync::Arc;

use cortex_core::{
    model::{Hlc, TableUid},
    replication::{
        Ack, Batch, PullRequest, Why,
        driver::{Answered, Done, Outcome, ReaderKnows, Work},
    },
};
use tracing::{debug, warn};

use super::{
    Exchange, Finished,
    answers::{answer_from_memory, answer_to, checked},
    problems::failed,
};
use crate::store::{
    Applied, Checked, Command, CommandError, DirectoryCommand, Event, ReceivedBatch,
    ReplicationCommand, ReplicationOutcome, StoreError, UpkeepCommand, blocking,
};

impl Exchange<'_> {
    pub(super) fn work(&mut self, work: Work) {
        match work {
            Work::Locate(table) => {
                self.locate(table, move |found| Some(Done::Located(table, found)));
            }
            Work::FindDurable { table, drain } => self.locate(table, move |found| {
                found.map(|upto| Done::Durable { table, upto, drain }) // else with the next batch
            }),
            Work::Apply { batch, latest, learn } => self.apply(*batch, latest, learn),
            Work::Read { request, reader } => self.read(request, reader),
            Work::FindLastWrite => {
                let store = self.here.store.clone();
                self.jobs.spawn(async move {
                    let own = blocking(move || store.last_write()).await?;
                    Ok(Finished::Done(Done::LastWrite(own)))
                });
            }
            Work::RotateActor { known, own } => self.rotate_actor(known, own),
            Work::EndDrained(ack) => self.end_drained(ack),
            Work::WasStored(table) => self.here.store.was_stored(self.node, table),
            Work::WasRefused(table) => self.here.store.was_refused(self.node, table),
        }
    }

    fn locate(
        &mut self,
        table: TableUid,
        done: impl FnOnce(Option<cortex_core::replication::Position>) -> Option<Done> + Send + 'static,
    ) {
        let (store, node) = (self.here.store.clone(), self.node.clone());
        self.jobs.spawn(async move {
            let position = blocking(move || store.position(table, &node)).await;
            Ok(done(unless_closed(position)?).map_or(Finished::Noted, Finished::Done))
        });
    }

    /// Has a batch stored. What comes back is its outline: the rows have done what they are for.
    fn apply(&mut self, mut batch: Batch, latest: Hlc, learn: bool) {
        let (rows, contexts) =
            (std::mem::take(&mut batch.rows), std::mem::take(&mut batch.contexts));
        let outline = Box::new(batch.clone());
        (batch.rows, batch.contexts) = (rows, contexts);
        let (store, from) = (self.here.store.clone(), self.node.clone());
        let signer = Arc::clone(self.shared.mesh().credentials());
        self.jobs.spawn(async move {
            let Checked { verified, unverified } = checked(&batch, &store, signer).await?;
            let done = if learn || !unverified.is_empty() {
                let keys = verified.iter().map(|row| row.key().to_vec()).collect();
                match store.execute(DirectoryCommand::Learn(verified)).await {
                    Ok(_learnt) => Done::Learnt { outline, keys, unverified },
                    Err(failure) => {
                        Done::Applied { outcome: outcome_of(Err(failure), &from), outline }
                    }
                }
            } else {
                let node = from.clone();
                let delivery = ReceivedBatch { from, batch, verified, latest };
                let came = store.execute(ReplicationCommand::ApplyBatch(Box::new(delivery))).await;
                Done::Applied { outcome: outcome_of(came, &node), outline }
            };
            Ok(Finished::Done(done))
        });
    }

    /// Reads what is wanted: at once, where it was written just now.
    fn read(&mut self, request: Box<PullRequest>, reader: ReaderKnows) {
        if let Some((answered, frame)) =
            answer_from_memory(&self.here.store, self.node, &request, reader)
        {
            self.prepared = frame;
            return self.done(Done::Read { request, answered });
        }
        let (store, node) = (self.here.store.clone(), self.node.clone());
        self.jobs.spawn(async move {
            let work = move || {
                let (answered, frame) = unless_closed(answer_to(&store, &node, &request, reader))?
                    .unwrap_or((Answered::refused(Why::Storage), None));
                Ok(Finished::Read { request, answered, frame })
            };
            blocking(work).await
        });
    }

    fn end_drained(&mut self, ack: Box<Ack>) {
        let (store, from) = (self.here.store.clone(), self.node.clone());
        self.jobs.spawn(async move {
            if let Err(failure) = store.execute(ReplicationCommand::Drained { from, ack }).await {
                debug!(%failure, "a replica that drains was not ended");
            }
            Ok(Finished::Noted)
        });
    }

    fn rotate_actor(&mut self, known: u64, own: u64) {
        let (store, node) = (self.here.store.clone(), self.node.clone());
        warn!(%node, known, own, "the database was rolled back while the daemon ran, its actor id is rotated: {node} knows write {known} of this machine, which has {own}");
        let text = format!(
            "{node} knows write {known} of this machine, which has {own}: the database was rolled back"
        );
        self.jobs.spawn(async move {
            let event = Event { uid: None, kind: "rolled_back", text };
            let commands = [
                Command::from(ReplicationCommand::RotateActor),
                Command::from(UpkeepCommand::Note(event)),
            ];
            for command in commands {
                if let Err(failure) = store.execute(command).await {
                    warn!(%failure, "the actor id was not rotated: {failure}");
                }
            }
            Ok(Finished::Noted)
        });
    }
}

/// What has become of a batch, by what the store says.
fn outcome_of(
    came: Result<ReplicationOutcome, CommandError>,
    node: &cortex_core::model::NodeName,
) -> Outcome {
    match came {
        Ok(ReplicationOutcome::Applied(Applied::Stored { verified, .. })) => {
            Outcome::Stored { verified }
        }
        Ok(ReplicationOutcome::Applied(Applied::Unfit(why))) => {
            debug!(%node, ?why, "a batch is of no use");
            Outcome::Unfit(why)
        }
        Ok(_other) => Outcome::Stored { verified: None },
        Err(failure) => {
            debug!(%node, %failure, "a batch was not stored");
            failed(&failure)
        }
    }
}

/// None where the store could not be read, which concerns one table and passes, or does not.
fn unless_closed<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::Closed) => Err(StoreError::Closed),
        Err(fault) => {
            debug!(%fault, "the store could not be read for another machine");
            Ok(None)
        }
    }
}
