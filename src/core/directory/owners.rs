//! Whose a table is: the identity that its name was registered for, or whom it was transferred to since.
//! Whether a caller may hand one over is the gate's.
//!
//! A table keeps its lasting id when it is transferred, and with it its rows, grants, replicas and scope: a
//! transfer is one row of the directory. Where transfers compete, made on two nodes that did not know of each
//! other, none counts until one of them is decided again: nobody gains by a clock.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Decision, Directory, Generation, Row, Seen, TransferRow, decide::next_count, join, latest, note,
};
use crate::model::{
    IdentityId, IdentityName, MeshId, NodeName, Owner, QualifiedName, Refusal, TableName, TableUid,
};

impl Decision for TransferRow {
    fn count(&self) -> u64 {
        self.count
    }

    fn seen(&self) -> &Seen {
        &self.seen
    }
}

impl Directory {
    /// Whom a table was transferred to, and what it is called since; none where it was not, or where transfers
    /// compete. A uid is that of a named machine, this one among them.
    #[must_use]
    pub fn transferred(&self, table: TableUid) -> Option<QualifiedName> {
        let decisions = latest(self.transfers.get(&table)?);
        let (first, others) = decisions.split_first()?;
        let agree = others.iter().all(|row| row.owner == first.owner && row.name == first.name);
        agree.then(|| QualifiedName { owner: first.owner.clone(), name: first.name.clone() })
    }

    /// The table that was transferred to an identity under a name.
    #[must_use]
    pub(super) fn received(&self, owner: IdentityId, name: &TableName) -> Option<TableUid> {
        self.received.get(&(owner, name.clone())).copied()
    }

    /// The names of the tables that were transferred to an identity.
    pub(super) fn names_received(&self, owner: IdentityId) -> impl Iterator<Item = &TableName> {
        self.received.keys().filter(move |(of, _)| *of == owner).map(|(_, name)| name)
    }

    /// The federated table of that lasting id, as the directory knows it: whose, and what it is called.
    #[must_use]
    pub fn name_of_table(&self, table: TableUid) -> Option<QualifiedName> {
        if self.is_dropped(table) {
            return None;
        }
        if let Some(name) = self.transferred(table) {
            return Some(name);
        }
        let (owner, name, _) = self.owner_of(self.mesh?, table)?;
        Some(QualifiedName { owner: Owner::Identity(owner), name })
    }

    /// True where that is what a table is called, by what the directory says.
    #[must_use]
    pub fn is_named(
        &self,
        mesh: MeshId,
        table: TableUid,
        owner: IdentityId,
        name: &TableName,
    ) -> bool {
        let known = self.owner_of(mesh, table);
        known.is_some_and(|(known, called, _)| known == owner && called == *name)
    }

    /// Hands a table over. A name that it has by its generation is given up: the next table under that name is
    /// another one.
    ///
    /// # Errors
    /// [`Refusal::AlreadyExists`] where the new owner has a table of that name, [`Refusal::DirectoryFull`].
    pub fn transfer(
        &self,
        here: &NodeName,
        table: TableUid,
        to: &QualifiedName,
        now_ms: u64,
    ) -> Result<Vec<Row>, Refusal> {
        if let Owner::Identity(id) = &to.owner
            && self.federated(*id, &to.name).is_some_and(|other| other != table)
        {
            return Err(Refusal::AlreadyExists);
        }
        let mut seen = Seen::new();
        for row in self.transfers.get(&table).into_iter().flat_map(BTreeMap::values) {
            note(&mut seen, &row.by, row.count);
            join(&mut seen, &row.seen);
        }
        let count = next_count(seen.get(here).copied(), now_ms);
        let (owner, name, by) = (to.owner.clone(), to.name.clone(), here.clone());
        let mut rows = vec![Row::Transfer(TransferRow { table, owner, name, by, count, seen })];
        let first = self.mesh.and_then(|mesh| self.owner_of(mesh, table));
        if let Some((owner, name, Generation { dropped: false, .. })) = first {
            rows.push(self.give_up_name(here, owner, &name)?);
        }
        self.check_room(rows.len())?;
        Ok(rows)
    }

    /// The identities that nobody is any more, and whose tables therefore belong to nobody.
    pub fn departed(&self) -> impl Iterator<Item = IdentityId> {
        self.departed.values().flatten().copied()
    }

    /// True where an identity is known, and nobody is it any more.
    #[must_use]
    pub fn is_departed(&self, id: IdentityId) -> bool {
        self.identities.get(&id).is_some_and(|row| {
            self.departed.get(&row.name).is_some_and(|departed| departed.contains(&id))
        })
    }

    /// Where an identity was registered, whether or not somebody is it.
    #[must_use]
    pub fn home_of(&self, id: IdentityId) -> Option<&NodeName> {
        self.identities.get(&id).map(|row| &row.home)
    }

    /// True where a machine is a member: it has presented itself, and was not put out.
    #[must_use]
    pub fn is_member(&self, node: &NodeName) -> bool {
        self.here() == Some(node) || (self.nodes.contains_key(node) && !self.is_put_out(node))
    }

    /// The departed identity that a written name means for one of its tables: `alice`, where nobody goes by that
    /// name now, or `alice~3f2a`. So who was granted rights goes on using the name that they have always used.
    ///
    /// # Errors
    /// [`Refusal::AccessDenied`] where there is none with such a table, [`Refusal::IdentityContested`] where there
    /// are two.
    pub(super) fn find_departed(&self, written: &str, name: &str) -> Result<IdentityId, Refusal> {
        let denied = |_| Refusal::AccessDenied;
        let (bearer, digits) = written.split_once('~').unwrap_or((written, ""));
        let bearer = IdentityName::parse(bearer).map_err(denied)?;
        let name = TableName::parse(name).map_err(denied)?;
        let named = self.departed.get(&bearer).into_iter().flatten();
        let mut meant = named
            .filter(|id| id.to_string().starts_with(digits))
            .filter(|id| self.federated(**id, &name).is_some());
        match (meant.next(), meant.next()) {
            (Some(id), None) => Ok(*id),
            (Some(_), Some(_)) => Err(Refusal::IdentityContested),
            (None, _) => Err(Refusal::AccessDenied),
        }
    }

    /// True where whose a table is may be another after a row.
    pub(super) fn says_whose(&self, row: &Row) -> bool {
        match row {
            Row::Transfer(_) => true,
            Row::Dropped(row) => self.transfers.contains_key(&row.table),
            Row::Node(_)
            | Row::Identity(_)
            | Row::Binding(_)
            | Row::Unbinding(_)
            | Row::Revocation(_)
            | Row::Grant(_)
            | Row::Name(_)
            | Row::Scope(_)
            | Row::Removal(_)
            | Row::Replica(_)
            | Row::NameResolution(_) => false,
        }
    }

    /// Computes which tables were transferred to which identities. Of two under one name the smaller id has it, on every
    /// node alike; the other is found by its id.
    pub(super) fn recount_received(&mut self) {
        let mut received = BTreeMap::new();
        for table in self.transfers.keys().copied().filter(|table| !self.is_dropped(*table)) {
            if let Some(QualifiedName { owner: Owner::Identity(id), name }) =
                self.transferred(table)
            {
                let known = received.entry((id, name)).or_insert(table);
                *known = table.min(*known);
            }
        }
        self.received = received;
    }

    /// Computes who has departed: identities without an account.
    pub(super) fn recount_departed(&mut self) {
        let mut departed: BTreeMap<IdentityName, BTreeSet<IdentityId>> = BTreeMap::new();
        for row in self.identities.values() {
            if !self.by_name.get(&row.name).is_some_and(|named| named.contains(&row.id)) {
                departed.entry(row.name.clone()).or_default().insert(row.id);
            }
        }
        self.departed = departed;
    }
}
