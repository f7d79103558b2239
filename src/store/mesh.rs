//! Commands on the directory: who is who, rights and scopes of tables that may leave this machine.
//! What they come to is decided by `cortex_core::directory`; here its rows are signed and stored.

mod notices;

use std::{collections::BTreeSet, sync::Arc};

use cortex_core::{
    directory::{BindingRow, Directory, DroppedRow, NodeRow, Row, Standing},
    gate,
    model::{
        Caller, IdentityId, IdentityName, NodeName, Permissions, Principal, Refusal, Scope, Signer,
        Stamp, TableName, TableUid, Uid,
    },
    replication::Dot,
    rule::Rule,
};
use rusqlite::{OptionalExtension, params};

use super::{
    apply::Tx,
    catalog::Entry,
    command::{Claim, Granting, Outcome, Redemption, Registration, TokenId},
    error::{CommandError, StoreError},
    events::Event,
    replica_epoch::Concerned,
    system::{self, Rank, SealedRow, VerifiedRow},
};

use notices::Before;

/// Tokens that are remembered as used. At a token a second, a day's worth.
const USED_TOKENS: i64 = 100_000;

/// For so long a token is good at most, in milliseconds.
const TOKEN_LIFE_MS: u64 = 86_400_000;

impl Tx<'_> {
    /// From now on this node signs as the signer does. A database belongs to one mesh and is one
    /// node of it for ever: what it has signed is out in the world.
    pub(super) fn join(&mut self, signer: &Arc<dyn Signer>) -> Result<Outcome, CommandError> {
        let (mesh, node): (Option<[u8; 16]>, Option<String>) = self
            .cached("SELECT mesh, node FROM node_state WHERE id = 1")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if let Some(node) = node.filter(|node| node != signer.node().as_str()) {
            return Err(Refusal::AnotherNode(node.into()).into());
        }
        if mesh.is_some_and(|mesh| mesh != signer.mesh().0) {
            return Err(Refusal::AnotherMesh.into());
        }
        self.execute(
            "UPDATE node_state SET mesh = ?1, node = ?2 WHERE id = 1",
            params![signer.mesh().0, signer.node().as_str()],
        )?;
        if mesh.is_none() {
            // What was made here before may be in a replica of this file too, which may join as well.
            self.rotate_actor()?;
        }
        self.state.signer = Some(Arc::clone(signer));
        self.directory_mut().set_here(signer.node().clone());
        self.directory_mut().set_mesh(signer.mesh());
        self.introduce(signer.as_ref())?;
        self.reconcile(Concerned::All)?;
        self.bring_home()?;
        Ok(Outcome::Joined)
    }

    /// Presents this node, where it is not as it was presented before. With another certificate,
    /// what the node has signed is signed again: others judge it by the one that is presented. That decides nothing
    /// anew: a restored machine signs what it has forgotten to have replaced.
    pub(super) fn introduce(&mut self, signer: &dyn Signer) -> Result<(), CommandError> {
        let (node, certificate) = (signer.node().clone(), signer.certificate().to_vec());
        let (database, actor) = (self.state.database, self.state.own_actor());
        let now = NodeRow { node: node.clone(), certificate, database, actor };
        let presented = self.directory().node(&node);
        if presented == Some(&now) {
            return Ok(());
        }
        let signed_before = presented.is_some_and(|row| row.certificate == now.certificate);
        self.write(vec![Row::Node(now)])?;
        if signed_before {
            return Ok(());
        }
        self.sign_again(&node, signer)
    }

    pub(super) fn register(
        &mut self,
        registration: &Registration,
    ) -> Result<Outcome, CommandError> {
        let Registration { caller, id, name, uid } = registration;
        let here = self.here()?;
        let rows = self.directory().register(&here, *id, name, *uid, self.wall_ms)?;
        self.write(rows)?;
        let text = format!("identity @{name} was registered for uid {uid}, by {caller}");
        self.note(&Event { uid: Some(*uid), kind: "identity_registered", text })?;
        Ok(Outcome::Registered)
    }

    pub(super) fn claim(&mut self, claim: &Claim) -> Result<Outcome, CommandError> {
        let Claim { uid, identity, rows, token } = claim;
        let here = self.here()?;
        if self.user_of(token)?.is_some() {
            return Err(Refusal::TokenUsed.into());
        }
        self.learn(rows)?;
        let binding = self.directory().bind(&here, *identity, *uid, token.id, self.wall_ms)?;
        self.write(binding)?;
        self.use_up(token, &here, *uid)?;
        let name = self.directory().show_identity(*identity);
        let text = format!("uid {uid} has claimed identity @{name}");
        self.note(&Event { uid: Some(*uid), kind: "identity_claimed", text })?;
        Ok(Outcome::Claimed)
    }

    /// Takes rows of other nodes over, where they are newer than what is known.
    pub(super) fn learn(&mut self, rows: &[VerifiedRow]) -> Result<(), CommandError> {
        let (mut newer, mut again) = (Vec::new(), Vec::new());
        for row in rows {
            let mine = self.written_since_restored(row)?;
            let again_as = |mine: Row| {
                // A decision by count replaces the forgotten one as it is. It must not claim to have seen what that
                // one had: it would win where it has to compete.
                if matches!(mine, Row::Scope(_) | Row::Settlement(_) | Row::Transfer(_)) {
                    return None;
                }
                let lifted = mine.clone().written_again(row.row());
                (lifted != mine).then_some(lifted)
            };
            let SealedRow { key, value, stamp, seq } = &row.sealed;
            if !Rule::DirectoryMovesNoClock.holds() {
                self.observe(stamp.hlc);
            }
            if self.merge_system(key, *stamp, *seq, value)? {
                newer.push(row.row().clone());
                again.extend(mine.map(|mine| mine.written_again(row.row())));
            } else {
                // Later, and all the same without what the forgotten one says: it has replaced that elsewhere.
                again.extend(mine.and_then(again_as));
            }
        }
        self.note_tokens(&newer)?;
        self.settle(newer)?;
        self.write_once_more(again)
    }

    /// Writes rows above those that this machine had forgotten.
    fn write_once_more(&mut self, again: Vec<Row>) -> Result<(), CommandError> {
        let mut written = 0;
        for row in again {
            // What was learnt may have had this node write the same row meanwhile, as that a replica goes on.
            let current = self.own_row(row.key().as_bytes());
            let above = match &current {
                Some(current) if *current != row => row.written_again(current),
                Some(_) | None => row,
            };
            if current.as_ref() != Some(&above) {
                self.write(vec![above])?;
                written += 1;
            }
        }
        if written == 0 {
            return Ok(());
        }
        let text = format!(
            "{written} decisions of this machine, made after it was restored, were written once more above those that it had forgotten"
        );
        self.note(&Event { uid: None, kind: "decisions_rewritten", text })?;
        Ok(())
    }

    /// What this node says under a key.
    fn own_row(&self, key: &[u8]) -> Option<Row> {
        let directory = self.state.catalog.directory();
        directory.written_by(directory.here()?).find(|row| row.key().as_bytes() == key)
    }

    /// What this machine has written since it was restored, where a row arrives that it had written before and has
    /// forgotten. That one may have the later timestamp, where the clock was ahead then.
    fn written_since_restored(&self, arriving: &VerifiedRow) -> Result<Option<Row>, StoreError> {
        let (row, own) = (arriving.row(), self.state.own_actor());
        let directory = self.state.catalog.directory();
        if directory.here() != Some(row.writer()) || arriving.authored().actor == own {
            return Ok(None);
        }
        let key = arriving.key();
        let found = self.find_row(system::NUMBER, key)?;
        // What was merely signed again since then was decided before.
        let rank = found.map(|found| Rank::of(key, found.stamp, found.value.as_deref()));
        if rank.is_none_or(|rank| rank.authored.actor != own) {
            return Ok(None);
        }
        Ok(self.own_row(key).filter(|mine| mine != row))
    }

    /// Has the directory know rows that were stored, and does what follows from them.
    fn settle(&mut self, rows: Vec<Row>) -> Result<(), CommandError> {
        if rows.is_empty() {
            return Ok(());
        }
        let concerned = Concerned::by(&rows, self.directory());
        let before = Before::of(&rows, self.directory());
        self.directory_mut().extend(rows);
        self.notice(&before)?;
        self.reconcile(concerned)
    }

    /// Notes the tokens by which others have bound their users. The row may be replaced while the
    /// token is still good.
    fn note_tokens(&self, rows: &[Row]) -> Result<(), CommandError> {
        for row in rows {
            let Row::Binding(BindingRow { node, uid, bound_ms, token: Some(id), .. }) = row else {
                continue;
            };
            let token = TokenId { id: *id, expires_ms: bound_ms.saturating_add(TOKEN_LIFE_MS) };
            if token.expires_ms > self.wall_ms && self.user_of(&token)?.is_none() {
                self.use_up(&token, node, *uid)?;
            }
        }
        Ok(())
    }

    /// Notes that a token of this node was used. The same user may ask again, as long as it is the
    /// same database that asks: the answer may have been lost on its way.
    pub(super) fn redeem(&mut self, redemption: &Redemption) -> Result<Outcome, CommandError> {
        let Redemption { token, node, uid } = redemption;
        match self.user_of(token)? {
            Some(user)
                if user == (node.clone(), *uid) && !self.was_bound_by_another(redemption) => {}
            Some(_) => return Err(Refusal::TokenUsed.into()),
            None => {
                self.use_up(token, node, *uid)?;
                let text = format!("a claim token was redeemed by uid {uid} of {node}");
                self.note(&Event { uid: None, kind: "token_redeemed", text })?;
            }
        }
        Ok(Outcome::Redeemed)
    }

    /// True where a user other than the one who asks was bound by a token, or the same one on a database
    /// that their machine does not have any more: what was used stays used when a disk is wiped.
    fn was_bound_by_another(&self, redemption: &Redemption) -> bool {
        let Redemption { token, node, uid } = redemption;
        let directory = self.directory();
        let current = directory.node(node).map(|row| row.database);
        directory.bound_by(&token.id).any(|row| {
            let is_current = current.is_none_or(|current| current == row.database);
            row.node != *node
                || row.uid != *uid
                || !is_current
                || directory.is_removed(&row.database)
        })
    }

    pub(super) fn unbind(
        &mut self,
        caller: &Caller,
        identity: IdentityId,
        node: Option<&NodeName>,
    ) -> Result<Outcome, CommandError> {
        let here = self.here()?;
        let may = matches!(caller, Caller::Local(uid)
            if *uid == Uid::ROOT || self.directory().identity_of(&here, *uid) == Some(identity));
        if !may {
            return Err(Refusal::AccessDenied.into());
        }
        let name = self.directory().show_identity(identity);
        let concerned = self.directory().uid_here(identity);
        let rows = self.directory().unbind(&here, identity, node, self.wall_ms)?;
        self.write(rows)?;
        let place = node.map_or_else(|| "everywhere".to_owned(), |node| format!("on {node}"));
        let text = format!("identity @{name} was revoked {place}, by {caller}");
        self.note(&Event { uid: concerned, kind: "identity_revoked", text })?;
        Ok(Outcome::Unbound)
    }

    pub(super) fn set_scope(
        &mut self,
        caller: &Caller,
        entry: &Entry,
        scope: &Scope,
        abandon: &BTreeSet<NodeName>,
    ) -> Result<Outcome, CommandError> {
        let entry = self.admit_anywhere(caller, entry, Permissions::ADMIN)?;
        if !entry.replicated && *scope == Scope::Local {
            return Ok(Outcome::Scoped); // it is, and nobody else ever knew of it
        }
        let here = self.here()?;
        let is_decided = self.directory().is_decided(&here, entry.table.uid, scope);
        if entry.replicated && abandon.is_empty() && is_decided {
            return Ok(Outcome::Scoped); // nothing to decide, and nothing to compete with
        }
        gate::admit_scope(&entry.table.name.owner, scope, abandon, self.directory())?;
        if *scope == Scope::Local {
            // Nobody else would keep it, and there may be nothing here to keep.
            entry.takes_reads()?;
            if entry.standing != Standing::In {
                return Err(Refusal::TableNotReady.into());
            }
        }
        let table = if entry.replicated { entry.table.uid } else { self.share(&entry)? };
        self.decide_scope(table, scope, abandon)?;
        if entry.is_in_file() {
            self.execute(
                "UPDATE tables SET scope = ?2, replicated = 1 WHERE id = ?1",
                params![entry.table.id.0, scope.to_string()],
            )?;
        }
        self.refresh(table);
        let name = &entry.table.name;
        let shown = self.directory().show(name);
        self.note_of(name, "scope_changed", format!("scope of {shown} is {scope}, by {caller}"))?;
        Ok(Outcome::Scoped)
    }

    /// Makes a table that was only ever here one that others may have replicas of.
    pub(super) fn share(&mut self, entry: &Entry) -> Result<TableUid, CommandError> {
        let mut shared = Entry::clone(entry);
        shared.replicated = true;
        // A replica of this file may have the table too, and it may be shared there: that is another one.
        shared.table.uid = TableUid(self.draw_id());
        self.execute(
            "UPDATE tables SET uid = ?2 WHERE id = ?1",
            params![shared.table.id.0, shared.table.uid.0],
        )?;
        self.share_grants(&shared)?;
        self.catalog_mut().insert(Entry::clone(&shared));
        self.found_copy(&shared)?;
        self.share_rows(&shared)?;
        Ok(shared.table.uid)
    }

    /// Moves the grants on a table into the directory, before its rows may leave: there a bare uid
    /// is qualified with this node, as others have users of the same number.
    fn share_grants(&mut self, entry: &Entry) -> Result<(), CommandError> {
        let here = self.here()?;
        for (principal, rights) in entry.table.acl.iter() {
            let principal = principal.clone().qualified(&here);
            let rows = self.directory().grant(&here, entry.table.uid, &principal, rights)?;
            self.write(rows)?;
        }
        self.execute("DELETE FROM grants WHERE table_id = ?1", [entry.table.id.0])?;
        Ok(())
    }

    /// Changes the rights on a table that are kept in the directory.
    pub(super) fn change_rights(
        &mut self,
        entry: &Entry,
        granting: &Granting,
        decide: impl FnOnce(
            &Directory,
            &NodeName,
            TableUid,
            &Principal,
            Permissions,
        ) -> Result<Vec<Row>, Refusal>,
    ) -> Result<(), CommandError> {
        let here = self.here()?;
        let principal = granting.principal.clone().qualified(&here);
        let rows = decide(self.directory(), &here, entry.table.uid, &principal, granting.rights)?;
        self.write(rows)?;
        self.refresh(entry.table.uid);
        Ok(())
    }

    /// Decides where a table may be, and which replicas are not to be waited for any more.
    pub(super) fn decide_scope(
        &mut self,
        table: TableUid,
        scope: &Scope,
        abandon: &BTreeSet<NodeName>,
    ) -> Result<(), CommandError> {
        let here = self.here()?;
        let now_ms = self.wall_ms;
        let row = self.directory().decide_scope(&here, table, scope.clone(), abandon, now_ms)?;
        self.write(vec![row])
    }

    /// Says that a table is gone for good, to all that may have replicas.
    pub(super) fn declare_dropped(&mut self, table: TableUid) -> Result<(), CommandError> {
        let by = self.here()?;
        self.write(vec![Row::Dropped(DroppedRow { table, by })])
    }

    /// Puts a node out of the mesh with the database that it has.
    pub(super) fn remove_node(
        &mut self,
        caller: &Caller,
        node: &NodeName,
    ) -> Result<Outcome, CommandError> {
        let here = self.here()?;
        let rows = self.directory().remove_node(&here, node, self.wall_ms)?;
        self.write(rows)?;
        self.adopt_all_of(node)?;
        let text = format!("{node} was removed from the mesh, by {caller}");
        self.note(&Event { uid: None, kind: "node_removed", text })?;
        Ok(Outcome::Removed)
    }

    /// Settles a name that several identities have on one of them.
    pub(super) fn settle_name(
        &mut self,
        caller: &Caller,
        name: &IdentityName,
        keep: IdentityId,
    ) -> Result<Outcome, CommandError> {
        let here = self.here()?;
        let row = self.directory().settle_name(&here, name, keep, self.wall_ms)?;
        self.write(vec![row])?;
        let text = format!("the name @{name} is that of identity {keep}, by {caller}");
        self.note(&Event { uid: None, kind: "identity_resolved", text })?;
        Ok(Outcome::Settled)
    }

    /// Takes the name of a federated table into use: answers the table's lasting id.
    pub(super) fn found(
        &mut self,
        caller: &Caller,
        owner: IdentityId,
        name: &TableName,
    ) -> Result<TableUid, CommandError> {
        let signer = self.signer()?;
        if self.directory().identity_of_caller(caller) != Some(owner) {
            return Err(Refusal::AccessDenied.into());
        }
        let row = self.directory().take_name(signer.node(), owner, name)?;
        let uid = TableUid::of_federated(signer.mesh(), owner, name, row.generation);
        self.write(vec![Row::Name(row)])?;
        Ok(uid)
    }

    /// Gives up the name of a federated table: the next one of that name is another table.
    pub(super) fn give_up_name(
        &mut self,
        owner: IdentityId,
        name: &TableName,
    ) -> Result<(), CommandError> {
        let here = self.here()?;
        let row = self.directory().give_up_name(&here, owner, name)?;
        self.write(vec![row])
    }

    /// Signs rows and stores them.
    pub(super) fn write(&mut self, rows: Vec<Row>) -> Result<(), CommandError> {
        let signer = self.signer()?;
        for row in &rows {
            let (key, bytes) = (row.key(), row.encode());
            let (stamp, seq) = self.draw_after(key.as_bytes())?;
            let value = system::seal(signer.as_ref(), stamp, &key, &bytes);
            let is_newest = self.merge_system(key.as_bytes(), stamp, seq, &value)?;
            debug_assert!(is_newest || !Rule::OwnRowExceeded.holds(), "{key} goes back: {row:?}");
            if let Some(replica) = self.state.replicas.get_mut(system::UID) {
                replica.vector.raise(Dot { actor: stamp.actor, seq });
            }
        }
        self.settle(rows)
    }

    /// The stamp and number of a row of the directory: later than the row that it replaces, which was written here
    /// too, perhaps while the clock was ahead, or by this machine before it was restored. The clock does not follow.
    pub(super) fn draw_after(&mut self, key: &[u8]) -> Result<(Stamp, u64), StoreError> {
        let (mut stamp, seq) = self.draw();
        if Rule::OwnRowExceeded.holds()
            && let Some(found) = self.find_row(system::NUMBER, key)?
        {
            stamp.hlc = stamp.hlc.max(found.stamp.hlc.next());
        }
        Ok((stamp, seq))
    }

    /// Who has used a token.
    fn user_of(&self, token: &TokenId) -> Result<Option<(NodeName, Uid)>, StoreError> {
        let used = self
            .cached("SELECT node, uid FROM used_tokens WHERE id = ?1")?
            .query_row([token.id], |row| Ok((row.get::<_, String>(0)?, Uid(row.get(1)?))))
            .optional()?;
        let named = used.map(|(node, uid)| NodeName::parse(&node).map(|node| (node, uid)));
        named.transpose().map_err(|_| StoreError::Corrupt("a used token names no node".into()))
    }

    fn use_up(&self, token: &TokenId, node: &NodeName, uid: Uid) -> Result<(), CommandError> {
        let now = i64::try_from(self.wall_ms).unwrap_or(i64::MAX);
        self.execute("DELETE FROM used_tokens WHERE expires_ms < ?1", [now])?;
        let kept: i64 =
            self.cached("SELECT count(*) FROM used_tokens")?.query_row([], |row| row.get(0))?;
        if kept >= USED_TOKENS {
            return Err(Refusal::DirectoryFull(Directory::MOST_ROWS).into());
        }
        self.execute(
            "INSERT INTO used_tokens (id, expires_ms, node, uid) VALUES (?1, ?2, ?3, ?4)",
            params![
                token.id,
                i64::try_from(token.expires_ms).unwrap_or(i64::MAX),
                node.as_str(),
                uid.0
            ],
        )?;
        Ok(())
    }

    pub(super) fn signer(&self) -> Result<Arc<dyn Signer>, Refusal> {
        self.state.signer.clone().ok_or(Refusal::MeshNotConfigured)
    }

    pub(super) fn here(&self) -> Result<NodeName, Refusal> {
        Ok(self.signer()?.node().clone())
    }

    pub(super) fn directory(&self) -> &Directory {
        self.state.catalog.directory()
    }

    fn directory_mut(&mut self) -> &mut Directory {
        self.catalog_mut().directory_mut()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use cortex_core::{
        directory::{GrantRow, NameRow, ReplicaRow, RevocationRow, ScopeRow, Seen, UnbindingRow},
        model::{ActorId, AttributeName, Hlc, Owner},
    };

    use super::super::{command::Command, database::Database, fake_signer::FakeSigner};
    use super::*;

    const OWNER: Uid = Uid(1000);
    const BOB: Principal = Principal::Uid(Uid(4242));

    fn joined(name: &str) -> Database {
        let drawn = Cell::new(0_u128);
        let mut database = Database::in_memory(move || {
            drawn.set(drawn.get() + 1);
            drawn.get().to_be_bytes()
        })
        .expect("a database");
        database.execute(&Command::Join(Arc::new(FakeSigner::of(name))), 1).expect("joined");
        database
    }

    /// Home, with a table that is everywhere.
    fn home() -> (Database, Arc<Entry>) {
        let mut home = joined("home");
        let name = TableName::parse("notes").expect("a name");
        let create = Command::CreateTable {
            caller: Caller::Local(OWNER),
            owner: Owner::Uid(OWNER),
            name: name.clone(),
            attributes: vec![AttributeName::parse("id").expect("a name")],
            scope: Scope::All,
        };
        home.execute(&create, 2).expect("made");
        let entry = home.catalog().find(&Owner::Uid(OWNER), name.as_str()).cloned();
        (home, entry.expect("it is there"))
    }

    fn grant_of(home: &Database) -> GrantRow {
        let here = NodeName::parse("home").expect("a name");
        let mut rows = home.catalog().directory().written_by(&here);
        let grant =
            rows.find_map(|row| if let Row::Grant(grant) = row { Some(grant) } else { None });
        grant.expect("a grant")
    }

    /// The row of a machine's own as it had signed it before it was restored.
    fn forgotten(row: Row) -> VerifiedRow {
        signed(row, 1, 99)
    }

    fn signed(row: Row, at_ms: u64, actor: u128) -> VerifiedRow {
        let stamp = Stamp { hlc: Hlc::from_unix_ms(at_ms), actor: ActorId(actor) };
        let key = row.key();
        let value = system::seal(&FakeSigner::of("home"), stamp, &key, &row.encode());
        VerifiedRow { sealed: SealedRow { key: key.into_bytes(), value, stamp, seq: 7 }, row }
    }

    /// holds K8: the grant was made after the restore, by a clock that is right, and does not know of the revocation.
    #[test]
    fn a_revocation_that_a_restored_machine_has_forgotten_counts_for_what_it_has_granted_since() {
        let (mut home, entry) = home();
        let rights = Permissions::READ;
        let caller = Caller::Local(OWNER);
        let granting = Granting { caller, entry, principal: BOB, rights };
        home.execute(&Command::Grant(granting), 10_000).expect("granted");
        let granted = grant_of(&home);
        assert!(granted.granted.is_some());
        let revocation = Row::Grant(GrantRow { granted: None, revoked: 3, ..granted });
        home.execute(&Command::Learn(vec![forgotten(revocation)]), 10_001).expect("learnt");
        let now = grant_of(&home);
        assert_eq!(now.revoked, 3, "it counts");
        let seen = now.granted.expect("the grant was not taken back");
        assert!(seen.values().all(|count| *count < 3), "which the grant has not seen: {seen:?}");
    }

    /// Of each kind that counts decisions: what home had signed, and what it signs after a restore that has put it
    /// back to before that.
    fn forgotten_and_signed_since() -> Vec<(Row, Row)> {
        let (table, node) = (TableUid([4; 16]), NodeName::parse("home").expect("a name"));
        let (identity, by) = (IdentityId([5; 16]), node.clone());
        let grant = |granted: Option<Seen>, revoked| {
            let (principal, right, by) = (Principal::Everyone, Permissions::READ, by.clone());
            Row::Grant(GrantRow { table, principal, right, by, granted, revoked })
        };
        let unbinding = |count| {
            let (node, uid, by) = (node.clone(), OWNER, by.clone());
            Row::Unbinding(UnbindingRow { identity, node, uid, by, count })
        };
        let revocation = |count| Row::Revocation(RevocationRow { identity, by: by.clone(), count });
        let name = |generation, dropped| {
            let (name, by) = (TableName::parse("notes").expect("a name"), by.clone());
            Row::Name(NameRow { owner: identity, name, by, generation, dropped })
        };
        let scope = |count| {
            let (by, scope, seen) = (by.clone(), Scope::All, Seen::new());
            let (epochs, off) = (Seen::new(), Seen::new());
            Row::Scope(ScopeRow { table, by, scope, count, seen, epochs, off })
        };
        let replica = |up, down, declines, database| {
            let node = node.clone();
            Row::Replica(ReplicaRow { table, node, database, up, down, declines })
        };
        vec![
            (grant(None, 7), grant(Some(Seen::new()), 0)),
            (grant(Some(Seen::from([(by.clone(), 7)])), 7), grant(None, 3)),
            (unbinding(7), unbinding(3)),
            (revocation(7), revocation(3)),
            (name(2, false), name(1, false)),
            (name(1, true), name(1, false)),
            (scope(7), scope(3)),
            (replica(1, 1, 0, [1; 16]), replica(1, 0, 0, [2; 16])),
            (replica(2, 1, 0, [1; 16]), replica(1, 1, 0, [2; 16])),
            (replica(1, 0, 1, [1; 16]), replica(1, 0, 0, [2; 16])),
            (replica(1, 0, 2, [1; 16]), replica(1, 0, 1, [2; 16])),
        ]
    }

    /// holds K8: a third node reads of the restored one before or after it reads what that one has forgotten; the row
    /// that was signed since has the later timestamp.
    #[test]
    fn what_a_restored_machine_has_forgotten_counts_whichever_version_arrives_first() {
        for (before, since) in forgotten_and_signed_since() {
            let arriving = [signed(before.clone(), 10, 99), signed(since.clone(), 20, 100)];
            let reversed = [arriving[1].clone(), arriving[0].clone()];
            for versions in [arriving, reversed] {
                let mut office = joined("office");
                for version in versions {
                    office.execute(&Command::Learn(vec![version]), 30).expect("learnt");
                }
                let here = NodeName::parse("home").expect("a name");
                let known: Vec<Row> = office.catalog().directory().written_by(&here).collect();
                assert_eq!(known, std::slice::from_ref(&before), "not {since:?}");
            }
        }
    }
}
