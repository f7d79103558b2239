//! Tables made, found and dropped, in the writer's transaction. Their rows are `rows` and `apply_batch`, their replicas
//! `epoch`; what of the dropped is left goes here by and by.

use std::{collections::BTreeSet, sync::Arc};

use cortex_core::model::{
    Acl, AttributeName, Caller, Hlc, Owner, Permissions, QualifiedName, Refusal, Scope, Table,
    TableId, TableUid,
};
use rusqlite::{OptionalExtension, params};

use super::{
    apply::Tx,
    catalog::Entry,
    command::Outcome,
    error::{CommandError, StoreError},
};

/// Rows of dropped tables removed in one transaction, and bytes of them from which it is enough: a
/// fraction of a millisecond, so that clients' writes in the same batch do not wait.
const PURGE_ROWS: u32 = 256;
const PURGE_BYTES: u64 = 256 << 10;

impl Tx<'_> {
    pub(super) fn create_table(
        &mut self,
        caller: &Caller,
        name: QualifiedName,
        attributes: &[AttributeName],
        scope: &Scope,
    ) -> Result<Outcome, CommandError> {
        if self.state.catalog.find(&name.owner, name.name.as_str()).is_some() {
            return Err(Refusal::AlreadyExists.into());
        }
        let owned = self.state.catalog.namespace(&name.owner).map_or(0, |n| n.tables().len());
        if owned >= self.limits.tables_per_uid {
            return Err(Refusal::TooManyTables(self.limits.tables_per_uid).into());
        }
        let (uid, replicated) = match &name.owner {
            Owner::Uid(_) => (TableUid(self.draw_id()), *scope != Scope::Local),
            Owner::Identity(id) => (self.found(caller, *id, &name.name)?, true),
            Owner::Remote(..) => return Err(Refusal::AccessDenied.into()),
        };
        let created = self.draw_stamp().hlc;
        let table = Table {
            id: TableId(0), // drawn by the file
            uid,
            name,
            attributes: attributes.to_vec(),
            scope: scope.clone(),
            contested: false,
            acl: Acl::default(),
        };
        let entry = self.insert_row_of(table, created, replicated)?;
        let name = &entry.table.name;
        let shown = self.state.catalog.show(name);
        self.note_of(name, "table_created", format!("table {shown} was created"))?;
        if replicated {
            self.found_copy(&entry)?;
            self.decide_scope(uid, scope, &BTreeSet::new())?;
        }
        Ok(Outcome::Created)
    }

    /// A table that others have told of. Its replica was begun before.
    pub(super) fn insert_table(
        &mut self,
        table: Table,
        created: Hlc,
    ) -> Result<Arc<Entry>, CommandError> {
        let uid = table.uid;
        let entry = self.insert_row_of(table, created, true)?;
        if let Some(replica) = self.state.replicas.get_mut(uid) {
            replica.table = Some(entry.table.id);
        }
        self.refresh(uid);
        let entry = self.state.catalog.by_uid(uid).cloned();
        Ok(entry.ok_or(Refusal::AccessDenied)?)
    }

    fn insert_row_of(
        &mut self,
        mut table: Table,
        created: Hlc,
        replicated: bool,
    ) -> Result<Arc<Entry>, CommandError> {
        let listed: Vec<_> = table.attributes.iter().map(AttributeName::as_str).collect();
        self.execute(
            "INSERT INTO tables (uid, owner, name, attributes, scope, replicated, created_hlc,
             checksummed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1)",
            params![
                table.uid.0,
                table.name.owner.to_string(),
                table.name.name.as_str(),
                listed.join(","),
                table.scope.to_string(),
                replicated,
                created.to_i64()
            ],
        )?;
        table.id = TableId(self.conn.last_insert_rowid());
        let entry = Arc::new(Entry::new(table, created, replicated));
        self.catalog_mut().insert(Entry::clone(&entry));
        Ok(entry)
    }

    /// Brings what the catalog says of a table up to what the directory and its replica say.
    pub(super) fn refresh(&mut self, table: TableUid) {
        let Some(entry) = self.state.catalog.by_uid(table) else {
            return;
        };
        let (entry, ready) = (Arc::clone(entry), self.is_ready(table));
        self.catalog_mut().refresh(&entry, ready);
    }

    fn is_ready(&self, table: TableUid) -> bool {
        self.state.replicas.get(table).is_none_or(|replica| replica.ready)
    }

    /// Takes the table out of sight at once. Its rows are removed by and by: a transaction over
    /// millions of them would hold up every other write.
    pub(super) fn drop_table(
        &mut self,
        caller: &Caller,
        entry: &Entry,
    ) -> Result<Outcome, CommandError> {
        // There may be nothing of it here, or anywhere: the name is to be free again all the same.
        let entry = self.admit_anywhere(caller, entry, Permissions::ADMIN)?;
        let directory = self.state.catalog.directory();
        if let Owner::Identity(owner) = entry.table.name.owner
            && directory.transferred(entry.table.uid).is_none()
        {
            self.give_up_name(owner, &entry.table.name.name)?;
        }
        if entry.replicated {
            self.declare_dropped(entry.table.uid)?;
        }
        let name = &entry.table.name;
        let shown = self.state.catalog.show(name);
        self.note_of(name, "table_dropped", format!("table {shown} was dropped by {caller}"))?;
        if self.state.catalog.current(&entry).is_some() {
            self.discard_rows(&entry)?;
        }
        Ok(Outcome::Dropped)
    }

    /// Removes some rows of a dropped table, and the table once it has none; tells of the replicas of which
    /// nothing is left. True where there is more to do.
    pub(super) fn purge(&mut self) -> Result<bool, CommandError> {
        let told = self.tell_departures()?;
        let dropped = self
            .cached("SELECT id FROM tables WHERE dropped = 1 LIMIT 1")?
            .query_row([], |row| row.get::<_, i64>(0))
            .optional()?;
        let Some(table) = dropped else {
            return Ok(told || self.state.departures.hurry);
        };
        let rows = self.some_rows_of(table)?;
        for (row, context) in &rows {
            self.execute("DELETE FROM records WHERE id = ?1", [row])?;
            self.count_use(*context, -1);
        }
        if rows.is_empty() && !self.purge_change_log(table)? {
            self.table_is_empty(table)?;
            self.damage.forget(TableId(table));
        }
        Ok(true)
    }

    /// As many rows of a table as are removed at once, with their contexts; none where it has none.
    fn some_rows_of(&self, table: i64) -> Result<Vec<(i64, Option<i64>)>, StoreError> {
        let mut statement = self.cached(
            "SELECT id, length(value), context FROM records WHERE table_id = ?1 LIMIT ?2",
        )?;
        let mut found = statement.query(params![table, PURGE_ROWS])?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while bytes < PURGE_BYTES
            && let Some(row) = found.next()?
        {
            rows.push((row.get(0)?, row.get(2)?));
            bytes += u64::from(row.get::<_, Option<u32>>(1)?.unwrap_or(0));
        }
        Ok(rows)
    }
}
