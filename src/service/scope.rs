//! Methods on where tables may be: get_scope, set_scope.
//! What competing decisions come to is `cortex_core::directory`; bringing rows there, replication's.

use std::collections::BTreeSet;

use cortex_core::{
    model::{Caller, Permissions, Refusal, Scope},
    wire::encode,
};

use super::{
    Answer, Service,
    params::Params,
    tables::{read_scope, write_scope},
};
use crate::store::{Command, Failure};

impl Service {
    /// `get_scope [table]`.
    pub(super) fn get_scope(
        &self,
        caller: &Caller,
        params: Params<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Failure> {
        self.notary()?;
        let mut params = params.count(1)?;
        let entry = self.open(caller, params.text()?, Permissions::READ)?;
        let catalog = self.store.catalog();
        encode::map(out, 3);
        encode::str(out, "table");
        encode::str(out, &catalog.show(&entry.table.name));
        encode::str(out, "node_scope");
        write_scope(&entry.table.scope, out);
        encode::str(out, "contested");
        encode::bool(out, entry.table.contested);
        Ok(Answer::Ready)
    }

    /// `set_scope [table, scope]`.
    pub(super) fn set_scope(&self, caller: &Caller, params: Params<'_>) -> Result<Answer, Failure> {
        self.notary()?;
        let mut params = params.count(2)?;
        let (table, scope) = (params.text()?, params.raw()?);
        let entry = self.open(caller, table, Permissions::ADMIN)?;
        let scope = read_scope(scope, &params)?;
        self.check_scope(&scope)?;
        Ok(Answer::Commit(Command::SetScope {
            caller: caller.clone(),
            entry,
            scope,
            write_off: BTreeSet::new(),
        }))
    }

    /// Refuses a scope that needs a mesh where there is none, or that names a node that is in none:
    /// a slip of the pen would keep the data away from where it is wanted.
    pub(super) fn check_scope(&self, scope: &Scope) -> Result<(), Refusal> {
        if *scope == Scope::Local {
            return Ok(());
        }
        let notary = self.notary()?;
        let Scope::Nodes(nodes) = scope else {
            return Ok(());
        };
        let known = self.peers();
        match nodes.iter().find(|node| *node != notary.node() && !known.contains(node)) {
            Some(node) => Err(Refusal::UnknownNode(node.as_str().into())),
            None => Ok(()),
        }
    }
}
