//! From a written name to a table that the caller may use: the early run of the gate.
//! The rule itself is `cortex_core::gate`; the writer runs it again within the transaction.

use std::sync::Arc;

use cortex_core::{
    gate,
    model::{Caller, Permissions, Refusal, TableRef},
};

use super::Service;
use crate::store::Entry;

impl Service {
    /// The table that `name` means for the caller, if they may do this to it.
    ///
    /// A malformed name, an absent table and a forbidden one answer the same. Only a name that
    /// two identities have gets an answer of its own: names of identities are no secret.
    ///
    /// # Errors
    /// [`Refusal::AccessDenied`]; [`Refusal::NotHere`] where the table is on other machines alone.
    pub fn open(
        &self,
        caller: &Caller,
        name: &str,
        needed: Permissions,
    ) -> Result<Arc<Entry>, Refusal> {
        let entry = self.open_anywhere(caller, name, needed)?;
        if !entry.is_in_file() {
            entry.takes_reads()?;
        }
        Ok(entry)
    }

    /// The same where what is known everywhere is enough: of a table of an identity there may be nothing here.
    pub(super) fn open_anywhere(
        &self,
        caller: &Caller,
        name: &str,
        needed: Permissions,
    ) -> Result<Arc<Entry>, Refusal> {
        let written = TableRef::parse(name).map_err(|_| Refusal::AccessDenied)?;
        let catalog = self.store.catalog();
        let entry = if let TableRef::Id(table) = written {
            catalog.find_by_id(table)
        } else {
            let (owner, short) = catalog.directory().resolve(written, caller)?;
            let here = catalog.find(&owner, short).cloned();
            here.or_else(|| catalog.find_elsewhere(&owner, short))
        };
        let entry = entry.ok_or(Refusal::AccessDenied)?;
        gate::admit(caller, &entry.table, needed, catalog.directory())?;
        Ok(entry)
    }
}
