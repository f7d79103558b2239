//! Methods on where tables may be: get_scope, set_scope.
//! What competing decisions come to is `cortex_core::directory`; bringing rows there, replication's.

use std::collections::BTreeSet;

use bytes::Bytes;
use cortex_core::{
    api::{self, Decision, NodeScope, ScopeReport},
    gate,
    model::{Caller, NodeName, Permissions, Refusal, Scope},
};

use super::{Answer, Service, read, ready, tables::parse_scope};
use crate::store::{CommandError, Entry, TableCommand, TableOutcome};

impl Service {
    /// `get_scope [table]`. Without a mesh every table is `local`.
    pub(super) fn get_scope(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<ScopeReport, CommandError> {
        let api::GetScope { table } = read(params)?;
        let entry = self.open_anywhere(caller, table, Permissions::READ)?;
        let replicas = self.replicas_of(&entry);
        Ok(ScopeReport {
            node_scope: NodeScope::from(&entry.table.scope),
            contested: entry.table.contested,
            decisions: self.decisions(&entry),
            replicas: self.replicas(&replicas),
            table: replicas.name,
        })
    }

    /// `set_scope [table, scope]` or `[table, scope, {abandon: [node, ...]}]`.
    pub(super) fn set_scope(
        &self,
        caller: &Caller,
        params: &Bytes,
        out: &mut Vec<u8>,
    ) -> Result<Answer, CommandError> {
        let api::SetScope { table, scope, options } = read(params)?;
        let abandon = options.abandon.iter().map(|node| NodeName::parse(node));
        let abandon: BTreeSet<_> = abandon.collect::<Result<_, _>>()?;
        let entry = self.open_anywhere(caller, table, Permissions::ADMIN)?;
        let scope = parse_scope(&scope)?;
        self.check_scope(&scope)?;
        if self.signer().is_err() {
            // Signing a decision needs a mesh; that what is local stays so needs no decision.
            return stays_local(&entry, &abandon, out);
        }
        let catalog = self.store.catalog();
        gate::admit_scope(&entry.table.name.owner, &scope, &abandon, catalog.directory())?;
        self.check_abandoned(&entry, &abandon)?;
        Ok(Answer::commit(TableCommand::SetScope { caller: caller.clone(), entry, scope, abandon }))
    }

    /// The decisions about a scope that no other has replaced. Where they compete, somebody has to choose.
    pub(super) fn decisions(&self, entry: &Entry) -> Vec<Decision> {
        let catalog = self.store.catalog();
        let decisions = catalog.directory().competing(entry.table.uid);
        let decision = |(node, scope): (&NodeName, Scope)| Decision {
            by: node.to_string(),
            node_scope: NodeScope::from(&scope),
        };
        decisions.into_iter().map(decision).collect()
    }

    /// Refuses to abandon replicas that do not exist, or that the scope keeps: a typing error would abandon the
    /// wrong one, or nothing. The replica of this node cannot be abandoned here.
    fn check_abandoned(&self, entry: &Entry, nodes: &BTreeSet<NodeName>) -> Result<(), Refusal> {
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        let epochs = directory.epochs(entry.table.uid);
        let unknown = nodes.iter().find(|node| !epochs.contains_key(*node));
        if let Some(node) = unknown {
            return Err(Refusal::UnknownNode(node.as_str().into()));
        }
        if directory.here().is_some_and(|here| nodes.contains(here)) {
            return Err(Refusal::OwnNode);
        }
        Ok(())
    }

    /// Refuses a scope that needs a mesh where there is none, or that names a node that is in none, or was put
    /// out: a slip of the pen would keep the data away from where it is wanted. A member need not be linked to
    /// this node: at the end of a chain the directory alone knows it.
    pub(super) fn check_scope(&self, scope: &Scope) -> Result<(), Refusal> {
        if *scope == Scope::Local {
            return Ok(());
        }
        let signer = self.signer()?;
        let Scope::Nodes(nodes) = scope else {
            return Ok(());
        };
        let (configured, catalog) = (self.peers(), self.store.catalog());
        let directory = catalog.directory();
        let may_hold = |node: &NodeName| {
            let is_known = configured.contains(node) || directory.node(node).is_some();
            node == signer.node() || (is_known && !directory.is_put_out(node))
        };
        match nodes.iter().find(|node| !may_hold(node)) {
            Some(node) => Err(Refusal::UnknownNode(node.as_str().into())),
            None => Ok(()),
        }
    }
}

/// Answers `local` for a table that is, where there is no mesh.
fn stays_local(
    entry: &Entry,
    abandon: &BTreeSet<NodeName>,
    out: &mut Vec<u8>,
) -> Result<Answer, CommandError> {
    if entry.table.scope != Scope::Local || !abandon.is_empty() {
        return Err(Refusal::MeshNotConfigured.into());
    }
    ready(out, &Service::done(TableOutcome::Scoped.into()).to_owned())
}
