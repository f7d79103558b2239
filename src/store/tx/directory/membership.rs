//! This node and others as members of the mesh.

use std::sync::Arc;

use cortex_core::model::{Caller, NodeName, Refusal, Signer};
use rusqlite::params;

use crate::store::{
    command::DirectoryOutcome,
    error::CommandError,
    events::Event,
    tx::{
        Tx,
        directory::{
            reconcile::{self, Concerned},
            signed,
        },
    },
};

/// From now on this node signs as the signer does. A database belongs to one mesh and is one
/// node of it for ever: what it has signed is out in the world.
pub(crate) fn join(
    tx: &mut Tx<'_>,
    signer: &Arc<dyn Signer>,
) -> Result<DirectoryOutcome, CommandError> {
    let (mesh, node): (Option<[u8; 16]>, Option<String>) = tx
        .cached("SELECT mesh, node FROM node_state WHERE id = 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if let Some(node) = node.filter(|node| node != signer.node().as_str()) {
        return Err(Refusal::AnotherNode(node.into()).into());
    }
    if mesh.is_some_and(|mesh| mesh != signer.mesh().0) {
        return Err(Refusal::AnotherMesh.into());
    }
    tx.execute(
        "UPDATE node_state SET mesh = ?1, node = ?2 WHERE id = 1",
        params![signer.mesh().0, signer.node().as_str()],
    )?;
    if mesh.is_none() {
        // What was made here before may be in a replica of this file too, which may join as well.
        reconcile::rotate_actor(tx)?;
    }
    tx.state.signer = Some(Arc::clone(signer));
    tx.directory_mut().set_here(signer.node().clone());
    tx.directory_mut().set_mesh(signer.mesh());
    reconcile::introduce(tx, signer.as_ref())?;
    reconcile::reconcile(tx, Concerned::All)?;
    Ok(DirectoryOutcome::Joined)
}

/// Puts a node out of the mesh with the database that it has.
pub(crate) fn remove_node(
    tx: &mut Tx<'_>,
    caller: &Caller,
    node: &NodeName,
) -> Result<DirectoryOutcome, CommandError> {
    let here = tx.here()?;
    let rows = tx.directory().remove_node(&here, node, tx.wall_ms)?;
    reconcile::write(tx, rows)?;
    signed::adopt_all_of(tx, node)?;
    let text = format!("{node} was removed from the mesh, by {caller}");
    tx.note(&Event { uid: None, kind: "node_removed", text })?;
    Ok(DirectoryOutcome::Removed)
}
