//! What a wish comes to: the rows that this node has to write for it, or a refusal.
//! Nothing is changed here; the store writes the rows and gives them back with `insert`.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    BindingRow, Directory, Generation, GrantRow, IdentityRow, NameRow, RevocationRow, Row,
    ScopeRow, Seen, TokenId, UNKNOWN_DATABASE, UnbindingRow, covers, note,
};
use crate::model::{
    IdentityId, IdentityName, NodeName, Permissions, Principal, Refusal, Scope, TableName,
    TableUid, Uid,
};

impl Directory {
    /// Makes an identity and maps a uid of this node to it.
    ///
    /// # Errors
    /// [`Refusal::IdentityTaken`], [`Refusal::AlreadyMapped`], [`Refusal::RootNotMapped`],
    /// [`Refusal::DirectoryFull`].
    pub fn register(
        &self,
        here: &NodeName,
        id: IdentityId,
        name: &IdentityName,
        uid: Uid,
        now_ms: u64,
    ) -> Result<Vec<Row>, Refusal> {
        if self.bearers(name).next().is_some() {
            return Err(Refusal::IdentityTaken);
        }
        let (name, home) = (name.clone(), here.clone());
        let identity = IdentityRow { id, name, home, created_ms: now_ms };
        let binding = self.binding(here, id, uid, None, now_ms)?;
        self.check_room(2)?;
        Ok(vec![Row::Identity(identity), binding])
    }

    /// Maps a uid of this node to an identity that is known, by a claim token.
    ///
    /// # Errors
    /// [`Refusal::UnknownIdentity`], [`Refusal::AlreadyMapped`], [`Refusal::IdentityHasUid`],
    /// [`Refusal::RootNotMapped`], [`Refusal::TokenUsed`], [`Refusal::DirectoryFull`].
    pub fn bind(
        &self,
        here: &NodeName,
        id: IdentityId,
        uid: Uid,
        token: TokenId,
        now_ms: u64,
    ) -> Result<Vec<Row>, Refusal> {
        if self.identity(id).is_none() {
            return Err(Refusal::UnknownIdentity);
        }
        if let Some(other) = self.uid_on(here, id).filter(|other| *other != uid) {
            return Err(Refusal::IdentityHasUid(other.0));
        }
        let binding = self.binding(here, id, uid, Some(token), now_ms)?;
        if self.bound_by(&token).next().is_some() {
            return Err(Refusal::TokenUsed);
        }
        self.check_room(1)?;
        Ok(vec![binding])
    }

    fn binding(
        &self,
        here: &NodeName,
        identity: IdentityId,
        uid: Uid,
        token: Option<TokenId>,
        bound_ms: u64,
    ) -> Result<Row, Refusal> {
        if uid == Uid::ROOT {
            return Err(Refusal::RootNotMapped);
        }
        if let Some(who) = self.identity_of(here, uid) {
            return Err(Refusal::AlreadyMapped(self.show_identity(who).into()));
        }
        let account = (identity, here.clone(), uid);
        let seen = self.unbindings.get(&account).cloned().unwrap_or_default();
        let database = self.nodes.get(here).map_or(UNKNOWN_DATABASE, |row| row.database);
        let seen_revocations = self.revocations.get(&identity).cloned().unwrap_or_default();
        let node = here.clone();
        Ok(Row::Binding(BindingRow {
            node,
            uid,
            identity,
            seen,
            bound_ms,
            database,
            seen_revocations,
            token,
        }))
    }

    /// The bindings that were made with a claim token, those too that do not count any more: one
    /// suffices for the token to be used.
    pub fn bound_by<'a>(&'a self, token: &'a TokenId) -> impl Iterator<Item = &'a BindingRow> {
        self.bindings.values().filter(move |row| row.token.as_ref() == Some(token))
    }

    /// Revokes an identity's mappings: on one node, or on all, those too that this node has not
    /// heard of. Without any it is nobody any more.
    ///
    /// # Errors
    /// [`Refusal::NotMappedThere`] where there is none to revoke, [`Refusal::DirectoryFull`].
    pub fn unbind(
        &self,
        here: &NodeName,
        identity: IdentityId,
        node: Option<&NodeName>,
        now_ms: u64,
    ) -> Result<Vec<Row>, Refusal> {
        let meant = self.accounts(identity).filter(|(on, _)| node.is_none_or(|node| node == *on));
        let mut rows: Vec<Row> =
            meant.map(|(node, uid)| self.unbinding(here, identity, node, uid, now_ms)).collect();
        if rows.is_empty() {
            return Err(Refusal::NotMappedThere);
        }
        if node.is_none() {
            rows = vec![self.revocation(here, identity, now_ms)];
        }
        self.check_room_to_restrict(rows.len())?;
        Ok(rows)
    }

    fn revocation(&self, here: &NodeName, identity: IdentityId, now_ms: u64) -> Row {
        let counts = self.revocations.get(&identity);
        let before = counts.and_then(|counts| counts.get(here)).copied();
        let (by, count) = (here.clone(), next_count(before, now_ms));
        Row::Revocation(RevocationRow { identity, by, count })
    }

    pub(super) fn unbinding(
        &self,
        here: &NodeName,
        identity: IdentityId,
        node: &NodeName,
        uid: Uid,
        now_ms: u64,
    ) -> Row {
        let account = (identity, node.clone(), uid);
        let counts = self.unbindings.get(&account);
        let before = counts.and_then(|counts| counts.get(here)).copied();
        let (node, by, count) = (node.clone(), here.clone(), next_count(before, now_ms));
        Row::Unbinding(UnbindingRow { identity, node, uid, by, count })
    }

    /// Grants rights on a table. What this node has granted already costs no row; what another has
    /// granted does, as a node may receive this node's rows and not that one's.
    ///
    /// # Errors
    /// [`Refusal::TooManyGrants`], [`Refusal::DirectoryFull`].
    pub fn grant(
        &self,
        here: &NodeName,
        table: TableUid,
        principal: &Principal,
        rights: Permissions,
    ) -> Result<Vec<Row>, Refusal> {
        let mut acl = self.acl(table);
        acl.grant(principal.clone(), rights)?;
        let rows = rights.each().filter_map(|right| {
            let by_node = self.rights_by_node(table, principal, right);
            let own = by_node.get(here);
            let seen: Seen = by_node.iter().map(|(by, row)| (by.clone(), row.revoked)).collect();
            let granted = own.and_then(|own| own.granted.as_ref());
            if granted.is_some_and(|granted| covers(granted, &seen)) {
                return None;
            }
            Some(Row::Grant(GrantRow {
                table,
                principal: principal.clone(),
                right,
                by: here.clone(),
                granted: Some(seen),
                revoked: own.map_or(0, |own| own.revoked),
            }))
        });
        let rows: Vec<Row> = rows.collect();
        self.check_room(rows.len())?;
        Ok(rows)
    }

    /// Revokes rights on a table, those too that another node has granted meanwhile unseen.
    ///
    /// # Errors
    /// [`Refusal::DirectoryFull`].
    pub fn revoke(
        &self,
        here: &NodeName,
        table: TableUid,
        principal: &Principal,
        rights: Permissions,
        now_ms: u64,
    ) -> Result<Vec<Row>, Refusal> {
        let rows = rights.each().map(|right| {
            let own = self.rights_by_node(table, principal, right).get(here);
            Row::Grant(GrantRow {
                table,
                principal: principal.clone(),
                right,
                by: here.clone(),
                granted: None,
                revoked: next_count(own.map(|own| own.revoked), now_ms),
            })
        });
        let rows: Vec<Row> = rows.collect();
        self.check_room_to_restrict(rows.len())?;
        Ok(rows)
    }

    /// Decides where a table may be, in the place of all that was decided before. What the replicas
    /// of some machines hold alone may be abandoned with it: nobody waits for those any more.
    ///
    /// # Errors
    /// [`Refusal::DirectoryFull`].
    pub fn decide_scope(
        &self,
        here: &NodeName,
        table: TableUid,
        scope: Scope,
        abandon: &BTreeSet<NodeName>,
        now_ms: u64,
    ) -> Result<Row, Refusal> {
        let seen = self.scope_knowledge(table);
        let count = next_count(seen.get(here).copied(), now_ms);
        let (mut epochs, mut off) = (self.epochs(table), self.gone(table));
        for node in abandon {
            if let Some(epoch) = epochs.get(node).copied() {
                note(&mut off, node, epoch);
            }
        }
        for node in self.named_in(&scope, here) {
            let next = off.get(&node).copied().unwrap_or(0).saturating_add(1);
            note(&mut epochs, &node, next);
        }
        // A table that is decided about already may be narrowed whatever else there is.
        let is_known = self.scopes.contains_key(&table);
        if is_known {
            self.check_room_to_restrict(1)?;
        } else {
            self.check_room(1)?;
        }
        Ok(Row::Scope(ScopeRow { table, by: here.clone(), scope, count, seen, epochs, off }))
    }

    /// The machines that a scope admits, as far as they can be named: without those that were put
    /// out, whose replica epochs are over.
    fn named_in(&self, scope: &Scope, here: &NodeName) -> BTreeSet<NodeName> {
        match scope {
            Scope::Local => [here.clone()].into(),
            Scope::All => {
                let members = self.members().map(|row| row.node.clone());
                members.chain([here.clone()]).collect()
            }
            Scope::Nodes(nodes) => {
                nodes.iter().filter(|node| !self.is_put_out(node)).cloned().collect()
            }
        }
    }

    /// Takes a federated table's name into use. Where the table is known, whether or not a replica of it is here,
    /// nothing is decided: a row written here would compete with, or replace, what others have decided about it.
    ///
    /// # Errors
    /// [`Refusal::AlreadyExists`], [`Refusal::DirectoryFull`].
    pub fn take_name(
        &self,
        here: &NodeName,
        owner: IdentityId,
        name: &TableName,
    ) -> Result<NameRow, Refusal> {
        self.check_room(1)?;
        if self.received(owner, name).is_some() {
            return Err(Refusal::AlreadyExists);
        }
        let generation = match self.generation(owner, name) {
            None => 1,
            Some(known) if self.is_over(owner, name, known) => known.number + 1,
            Some(_live) => return Err(Refusal::AlreadyExists),
        };
        let (name, by) = (name.clone(), here.clone());
        Ok(NameRow { owner, name, by, generation, dropped: false })
    }

    /// Gives up a federated table's name, for this generation.
    ///
    /// # Errors
    /// [`Refusal::DirectoryFull`].
    pub fn give_up_name(
        &self,
        here: &NodeName,
        owner: IdentityId,
        name: &TableName,
    ) -> Result<Row, Refusal> {
        self.check_room_to_restrict(1)?;
        let generation = self.generation(owner, name).map_or(1, |known| known.number);
        let (name, by) = (name.clone(), here.clone());
        Ok(Row::Name(NameRow { owner, name, by, generation, dropped: true }))
    }

    /// True where a generation of a name was dropped. The two rows that say so may arrive one after the other.
    fn is_over(&self, owner: IdentityId, name: &TableName, known: Generation) -> bool {
        let table = |mesh| TableUid::of_federated(mesh, owner, name, known.number);
        known.dropped || self.mesh.is_some_and(|mesh| self.is_dropped(table(mesh)))
    }

    /// True where a table is decided to be exactly there and nothing competes: to decide it once more would
    /// change nothing but whose decision it is, and compete with what others decide meanwhile.
    #[must_use]
    pub fn is_decided(&self, here: &NodeName, table: TableUid, scope: &Scope) -> bool {
        let wanted = if *scope == Scope::Local {
            Scope::Nodes([here.clone()].into())
        } else {
            scope.clone()
        };
        matches!(self.competing(table).as_slice(), [(_, only)] if *only == wanted)
    }

    fn rights_by_node(
        &self,
        table: TableUid,
        principal: &Principal,
        right: Permissions,
    ) -> &BTreeMap<NodeName, GrantRow> {
        static NONE: BTreeMap<NodeName, GrantRow> = BTreeMap::new();
        let of_table = self.grants.get(&table);
        of_table.and_then(|all| all.get(&(principal.clone(), right.bits()))).unwrap_or(&NONE)
    }

    /// Whether there is room for so many rows more.
    pub(super) fn check_room(&self, rows: usize) -> Result<(), Refusal> {
        self.check_rows(rows, Self::MOST_ROWS - Self::RESERVED_ROWS)
    }

    /// The same for a decision that takes something away.
    pub(super) fn check_room_to_restrict(&self, rows: usize) -> Result<(), Refusal> {
        self.check_rows(rows, Self::MOST_ROWS)
    }

    fn check_rows(&self, more: usize, most: usize) -> Result<(), Refusal> {
        if self.rows + more > most {
            return Err(Refusal::DirectoryFull(most));
        }
        Ok(())
    }
}

/// The number of a node's next decision. A node that was restored from an older disk has forgotten
/// some that it has made, and others have not: what the clock says is above those.
pub(super) fn next_count(before: Option<u64>, now_ms: u64) -> u64 {
    before.unwrap_or(0).saturating_add(1).max(now_ms)
}
