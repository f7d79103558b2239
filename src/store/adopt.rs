//! Rows of the directory whose writers cannot sign any more: another node that holds them signs them.
//! Which those are, and what is signed, is `system`'s; when they are looked for, the peers' upkeep.
//!
//! What was believed once stays believed: by nodes that come later too, which have only the signatures
//! to go by. A row that its writer signed after this node had learnt that it must not is not here to be
//! adopted: `system::check` has refused it.

use cortex_core::{
    directory::{NodeRow, Row, UNKNOWN_DATABASE},
    model::{Hlc, NodeName, Signer, Stamp},
    replication::Dot,
};

use super::{
    Store,
    apply::Tx,
    command::Outcome,
    error::{CommandError, StoreError},
    events::Event,
    rows::Place,
    system,
};

/// Rows that are adopted together with a removal, at most. Upkeep adopts the others.
const AT_ONCE: usize = 4096;

impl Store {
    /// The rows of the directory whose signatures say nothing to a node that comes later, each with its
    /// stamp: to be signed here, in the place of their writers. Reads all of the directory.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn orphans(&self, signer: &dyn Signer) -> Result<Vec<(Vec<u8>, Stamp)>, StoreError> {
        let catalog = self.catalog();
        self.inner.scans.read(|conn| system::orphans(conn, signer, catalog.directory()))
    }
}

impl Tx<'_> {
    /// Signs rows that still are as they were found.
    pub(super) fn adopt_rows(
        &mut self,
        rows: &[(Vec<u8>, Stamp)],
    ) -> Result<Outcome, CommandError> {
        let signer = self.signer()?;
        let mut adopted = 0;
        for (key, stamp) in rows {
            let found = self.find_row(Place::SYSTEM.id, key)?;
            let Some(found) = found.filter(|found| found.stamp == *stamp && !found.damaged) else {
                continue;
            };
            let Some(held) = found.value.as_deref().and_then(system::open) else { continue };
            self.sign_in_its_place(signer.as_ref(), key, found.stamp, &held)?;
            adopted += 1;
        }
        if adopted > 0 {
            let text = format!(
                "{adopted} rows of the directory were signed here in the place of machines that cannot any more"
            );
            self.note(&Event { uid: None, kind: "rows_adopted", text })?;
        }
        Ok(Outcome::Adopted)
    }

    fn sign_in_its_place(
        &mut self,
        signer: &dyn Signer,
        key: &[u8],
        before: Stamp,
        held: &system::Held<'_>,
    ) -> Result<(), CommandError> {
        let (stamp, seq) = self.draw_after(key)?;
        let value = system::adopt(signer, before, stamp, key, held);
        self.merge_system(key, stamp, seq, &value)?;
        if let Some(replica) = self.state.replicas.get_mut(system::UID) {
            replica.vector.raise(Dot { actor: stamp.actor, seq });
        }
        Ok(())
    }

    /// Signs what this node has signed, with the certificate that it has now. Each row keeps its place among the
    /// versions of it.
    pub(super) fn sign_again(
        &mut self,
        here: &NodeName,
        signer: &dyn Signer,
    ) -> Result<(), CommandError> {
        for (key, stamp) in self.signed_by(here, usize::MAX)? {
            let found = self.find_row(Place::SYSTEM.id, &key)?;
            let Some(value) = found.filter(|found| !found.damaged).and_then(|found| found.value)
            else {
                continue;
            };
            let is_presentation = |held: &system::Held<'_>| {
                matches!(system::row_of(&key, held), Some(Row::Node(_)) | None)
            };
            if let Some(held) = system::open(&value).filter(|held| !is_presentation(held)) {
                self.sign_in_its_place(signer, &key, stamp, &held)?;
            }
        }
        Ok(())
    }

    /// Signs what a machine has signed that was just put out of the mesh.
    pub(super) fn adopt_all_of(&mut self, node: &NodeName) -> Result<(), CommandError> {
        let is_known = |row: &NodeRow| row.database != UNKNOWN_DATABASE;
        if !self.directory().node(node).is_some_and(is_known) {
            return Ok(()); // of older versions: upkeep does it
        }
        let rows = self.signed_by(node, AT_ONCE)?;
        self.adopt_rows(&rows).map(|_| ())
    }

    fn signed_by(&self, node: &NodeName, most: usize) -> Result<Vec<(Vec<u8>, Stamp)>, StoreError> {
        let mut statement = self.cached(
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
                let actor = self.state.actors.id(row.get(3)?);
                found.push((key, Stamp { hlc, actor }));
            }
        }
        Ok(found)
    }
}
