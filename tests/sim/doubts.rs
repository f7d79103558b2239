//! Certificates that a node does not take for good for a while, as by a revocation list that is withdrawn again: rows
//! of the directory that their nodes have signed are quarantined, and released. Here are the stories of it.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard},
};

use cortex_core::{
    model::{KeyHash, MeshId, NodeName, NotSigned, Signer},
    replication::{Quarantined, SYSTEM_TABLE},
};

use crate::{
    fake_signer::FakeSigner,
    requests::{entry, named, set_scope},
    rest::{heal, settle},
    restored::permit,
    stories::{cut, nodes, put, shared},
    world::{World, broken},
};

/// Signs as a node, and believes no signature of some others.
#[derive(Debug)]
pub(crate) struct DoubtingSigner {
    signer: FakeSigner,
    doubted: Mutex<BTreeSet<NodeName>>,
}

impl DoubtingSigner {
    pub(crate) fn of(name: &str) -> Self {
        Self { signer: FakeSigner::of(name), doubted: Mutex::default() }
    }

    /// Whose signatures are not believed.
    pub(crate) fn doubted(&self) -> MutexGuard<'_, BTreeSet<NodeName>> {
        self.doubted.lock().expect("nobody panics with it")
    }
}

impl Signer for DoubtingSigner {
    fn mesh(&self) -> MeshId {
        self.signer.mesh()
    }

    fn node(&self) -> &NodeName {
        self.signer.node()
    }

    fn key_hash(&self) -> KeyHash {
        self.signer.key_hash()
    }

    fn certificate(&self) -> &[u8] {
        self.signer.certificate()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signer.sign(message)
    }

    fn verify(
        &self,
        certificate: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(NodeName, KeyHash), NotSigned> {
        let (node, key) = self.signer.verify(certificate, message, signature)?;
        if self.doubted().contains(&node) {
            return Err(NotSigned("its certificate is not believed for now".into()));
        }
        Ok((node, key))
    }
}

impl World {
    pub(crate) fn doubt(&mut self, n: usize, whom: usize) {
        self.nodes[n].signer.doubted().insert(self.nodes[whom].name.clone());
        self.credentials_replaced(n);
    }

    pub(crate) fn believe(&mut self, n: usize) {
        self.nodes[n].signer.doubted().clear();
        self.credentials_replaced(n);
    }

    /// Of which others, that it has a link to, a node holds rows against
    /// that it could not verify, although it believes everybody now.
    pub(crate) fn quarantines(&self, n: usize) -> Vec<usize> {
        let node = &self.nodes[n];
        if !node.signer.doubted().is_empty() {
            return Vec::new();
        }
        // Who was put out of the mesh is not asked any more.
        let linked = self.living().into_iter().filter(|other| self.is_linked(n, *other));
        let holds = |other: &usize| {
            let known = node.peers.of(SYSTEM_TABLE, &self.nodes[*other].name);
            known.is_some_and(|known| known.quarantined != Quarantined::default())
        };
        linked.filter(holds).collect()
    }
}

fn has(world: &World, n: usize, key: usize) -> bool {
    let key = crate::requests::key(key).as_bytes().to_vec();
    world.nodes[n].disk.copies[&world.tables[0]].rows.contains_key(&key)
}

/// One reads of a node that passes on what another one has granted, whose certificate it does not believe; and
/// decisions of its own, that stand behind it.
pub(crate) fn a_grant_cannot_be_verified_for_a_while(world: &mut World) {
    nodes(world, 3);
    let table = shared(world);
    settle(world);
    cut(world, 1, 2);
    world.link_down((1, 2));
    world.doubt(1, 2);
    world.small = true;
    permit(world, 2, table, true);
    settle(world);
    let (entry, everywhere) = (entry(world, 0, table), named(world, &[0, 1, 2].into()));
    set_scope(world, 0, &entry.expect("a table"), everywhere, BTreeSet::new());
    put(world, 0, 1);
    settle(world);
    let decided = |n: usize| {
        let knowledge = world.nodes[n].db.catalog().directory().scope_knowledge(table);
        knowledge.get(&world.nodes[0].name).copied()
    };
    if decided(1) != decided(0) {
        broken("n1 has not learnt what stands behind a row that it cannot verify".into());
    }
    if has(world, 1, 1) {
        broken("n1 has read a table whose grants it cannot verify".into());
    }
    world.believe(1);
    settle(world);
    if !has(world, 1, 1) {
        broken("n1 does not read on although it believes the grant now".into());
    }
    heal(world);
}

/// And by the time that it is believed it has come from who has granted, so that the other one has nothing to send.
pub(crate) fn a_grant_comes_another_way_meanwhile(world: &mut World) {
    nodes(world, 3);
    let table = shared(world);
    settle(world);
    cut(world, 1, 2);
    world.link_down((1, 2));
    world.doubt(1, 2);
    permit(world, 2, table, true);
    settle(world);
    world.cut = [(0, 1)].into();
    world.link_down((0, 1));
    world.believe(1);
    settle(world);
    world.cut.clear();
    put(world, 0, 1);
    settle(world);
    if !has(world, 1, 1) {
        broken("n1 withholds a table although it has the grant".into());
    }
    heal(world);
}
