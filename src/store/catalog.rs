//! Which tables there are, and who is who, in memory: read by every request, changed by the writer alone.
//! The file is the truth; this is what it said after the last commit.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use cortex_core::{
    directory::{Directory, Standing},
    model::{
        Acl, AttributeName, Hlc, Owner, Permissions, Principal, QualifiedName, Refusal, Scope,
        Table, TableId, TableName, TableUid, Uid, UsageDelta,
    },
};
use cortex_mutant::mutant;
use rusqlite::{Connection, Row};

use super::{error::StoreError, system};

/// How much is stored: of one table, or of all tables of one owner.
#[derive(Debug, Default)]
pub struct Usage {
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Usage {
    /// Live records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.load(Relaxed)
    }

    /// Bytes of their keys and values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Both totals, as the difference to nothing.
    pub(super) fn total(&self) -> UsageDelta {
        UsageDelta { records: self.records().cast_signed(), bytes: self.bytes().cast_signed() }
    }

    /// Adds a committed difference. Only the writer calls it, so load and store need not be one step.
    pub(super) fn add(&self, delta: UsageDelta) {
        self.records.store(self.records().saturating_add_signed(delta.records), Relaxed);
        self.bytes.store(self.bytes().saturating_add_signed(delta.bytes), Relaxed);
    }
}

/// A table and how much it holds.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its metadata.
    pub table: Table,
    /// True once rows may have left this machine. Its grants are then rows of the directory.
    pub replicated: bool,
    /// When it was created.
    pub created: Hlc,
    /// Whether this machine may have it.
    pub standing: Standing,
    /// True where all of it is here.
    pub ready: bool,
    /// Shared by every version of the entry.
    pub usage: Arc<Usage>,
}

/// In the place of the number of a table of which nothing is in the file: numbers begin with 0.
const NOT_IN_FILE: TableId = TableId(-1);

impl Entry {
    /// True where the file has the table. The directory knows of others too.
    #[must_use]
    pub fn is_in_file(&self) -> bool {
        self.table.id != NOT_IN_FILE
    }

    /// A table as it is at first: here, and whole.
    #[must_use]
    pub fn new(table: Table, created: Hlc, replicated: bool) -> Self {
        let usage = Arc::default();
        Self { table, replicated, created, standing: Standing::In, ready: true, usage }
    }

    /// Refuses what needs the table's rows where they are not all here.
    ///
    /// # Errors
    /// [`Refusal::NotHere`], [`Refusal::TableNotReady`].
    pub fn takes_reads(&self) -> Result<(), Refusal> {
        self.rows_are_here(self.ready)
    }

    /// Refuses writes where this machine may not make any.
    ///
    /// # Errors
    /// As [`Entry::takes_reads`], and [`Refusal::ScopeContested`].
    pub fn takes_writes(&self) -> Result<(), Refusal> {
        self.rows_are_here(self.is_filled())?;
        if self.is_contested() { Err(Refusal::ScopeContested) } else { Ok(()) }
    }

    fn rows_are_here(&self, is_filled: bool) -> Result<(), Refusal> {
        match (self.standing, is_filled) {
            (Standing::Out, _) => Err(Refusal::NotHere),
            (Standing::In | Standing::Frozen, false) => Err(Refusal::TableNotReady),
            (Standing::In | Standing::Frozen, true) => Ok(()),
        }
    }

    /// True where a write has seen whatever it replaces.
    #[mutant(FillingTakesNoWrites => true)]
    fn is_filled(&self) -> bool {
        self.ready
    }

    #[mutant(FrozenTakesNoWrites => false)]
    fn is_contested(&self) -> bool {
        self.standing == Standing::Frozen
    }
}

/// The tables of one owner.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    tables: BTreeMap<TableName, Arc<Entry>>,
    /// Over all its tables.
    pub usage: Arc<Usage>,
}

impl Namespace {
    /// Its tables by name.
    pub fn tables(&self) -> impl ExactSizeIterator<Item = &Arc<Entry>> {
        self.tables.values()
    }
}

/// Every table, as of one commit.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    owners: HashMap<Owner, Arc<Namespace>>,
    /// The names of tables that others may have replicas of.
    shared: Arc<BTreeMap<TableUid, QualifiedName>>,
    tables: usize,
    directory: Arc<Directory>,
}

impl Catalog {
    /// The table of that name.
    #[must_use]
    pub fn find(&self, owner: &Owner, name: &str) -> Option<&Arc<Entry>> {
        self.owners.get(owner)?.tables.get(name)
    }

    /// A federated table that there is, by what the directory says, and of which nothing is in the file: neither
    /// its attributes are known nor a record.
    #[must_use]
    pub fn find_elsewhere(&self, owner: &Owner, name: &str) -> Option<Arc<Entry>> {
        let Owner::Identity(id) = owner else {
            return None;
        };
        let name = TableName::parse(name).ok()?;
        let uid = self.directory.federated(*id, &name)?;
        if self.find(owner, name.as_str()).is_some() {
            return None;
        }
        let table = Table {
            id: NOT_IN_FILE,
            uid,
            name: QualifiedName { owner: owner.clone(), name },
            attributes: Vec::new(),
            scope: Scope::Local,
            contested: false,
            acl: Acl::default(),
        };
        let mut entry = Entry::new(table, Hlc::default(), true);
        (entry.standing, entry.ready) = (Standing::Out, false);
        consult(&self.directory, &mut entry);
        Some(Arc::new(entry))
    }

    /// Who is who, and where tables may be.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The name of a table, for people.
    #[must_use]
    pub fn show(&self, name: &QualifiedName) -> String {
        self.directory.show(name)
    }

    /// The uid of this machine that an owner is, if they are one.
    #[must_use]
    pub fn uid_here(&self, owner: &Owner) -> Option<Uid> {
        match owner {
            Owner::Uid(uid) => Some(*uid),
            Owner::Remote(..) => None,
            Owner::Identity(id) => self.directory.uid_here(*id),
        }
    }

    /// The entry as it is now of a table that was looked up earlier; none if it was dropped since.
    #[must_use]
    pub fn current(&self, entry: &Entry) -> Option<&Arc<Entry>> {
        let name = &entry.table.name;
        let now = self.find(&name.owner, name.name.as_str())?;
        let is_same = if entry.is_in_file() {
            now.table.id == entry.table.id
        } else {
            now.table.uid == entry.table.uid // it has come since
        };
        is_same.then_some(now)
    }

    /// A table that others may have replicas of, by its lasting id.
    #[must_use]
    pub fn by_uid(&self, table: TableUid) -> Option<&Arc<Entry>> {
        let name = self.shared.get(&table)?;
        self.find(&name.owner, name.name.as_str())
    }

    /// A table by its lasting id, whether or not others may have replicas and whether or not anything of it is here.
    /// Looks at all tables where none of those is shared.
    #[must_use]
    pub fn find_by_id(&self, table: TableUid) -> Option<Arc<Entry>> {
        if let Some(entry) = self.by_uid(table) {
            return Some(Arc::clone(entry));
        }
        if let Some(name) = self.directory.name_of_table(table) {
            let entry = self.find_elsewhere(&name.owner, name.name.as_str());
            return entry.filter(|entry| entry.table.uid == table);
        }
        let mut all = self.owners.values().flat_map(|namespace| namespace.tables());
        all.find(|entry| entry.table.uid == table).cloned()
    }

    /// The tables of one owner; none for one who has none.
    #[must_use]
    pub fn namespace(&self, owner: &Owner) -> Option<&Namespace> {
        self.owners.get(owner).map(Arc::as_ref)
    }

    /// Every owner with their tables, in no order.
    pub fn namespaces(&self) -> impl Iterator<Item = (&Owner, &Namespace)> {
        self.owners.iter().map(|(owner, namespace)| (owner, namespace.as_ref()))
    }

    /// The name of a table known by its id. Looks at all of them.
    #[must_use]
    pub fn name_of(&self, id: TableId) -> Option<&QualifiedName> {
        let mut entries = self.owners.values().flat_map(|namespace| namespace.tables());
        entries.find(|entry| entry.table.id == id).map(|entry| &entry.table.name)
    }

    /// The table of that number in the file.
    #[must_use]
    pub fn by_id(&self, id: TableId) -> Option<&Arc<Entry>> {
        let mut entries = self.owners.values().flat_map(|namespace| namespace.tables());
        entries.find(|entry| entry.table.id == id)
    }

    /// How many tables there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables
    }

    /// True where there is no table.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables == 0
    }

    pub(super) fn directory_mut(&mut self) -> &mut Directory {
        Arc::make_mut(&mut self.directory)
    }

    /// Brings a table's scope and grants up to what the directory says of them.
    pub(super) fn refresh(&mut self, entry: &Entry, ready: bool) {
        let mut entry = entry.clone();
        entry.ready = ready;
        consult(&self.directory, &mut entry);
        self.insert(entry);
    }

    /// Adds a table, or puts a changed one in the place of what it was.
    pub(super) fn insert(&mut self, entry: Entry) {
        let name = entry.table.name.clone();
        if entry.replicated && self.shared.get(&entry.table.uid) != Some(&name) {
            Arc::make_mut(&mut self.shared).insert(entry.table.uid, name.clone());
        }
        let namespace = Arc::make_mut(self.owners.entry(name.owner).or_default());
        if namespace.tables.insert(name.name, Arc::new(entry)).is_none() {
            self.tables += 1;
        }
    }

    pub(super) fn remove(&mut self, name: &QualifiedName) {
        // An owner without tables stays: what they hold of the quota is counted here.
        let Some(namespace) = self.owners.get_mut(&name.owner).map(Arc::make_mut) else {
            return;
        };
        if let Some(removed) = namespace.tables.remove(&name.name) {
            self.tables -= 1;
            if removed.replicated {
                Arc::make_mut(&mut self.shared).remove(&removed.table.uid);
            }
        }
    }

    /// Reads the catalog from the file.
    pub(super) fn load(conn: &Connection) -> Result<Self, StoreError> {
        let directory = Arc::new(system::load(conn)?);
        let mut catalog = Self { directory, ..Self::default() };
        let mut acls = load_grants(conn)?;
        let mut statement = conn.prepare(
            "SELECT t.id, t.uid, owner, name, attributes, scope, replicated, records, bytes,
             created_hlc, ifnull(ready, 1)
             FROM tables t LEFT JOIN replicas r ON r.uid = t.uid
             WHERE dropped = 0 AND t.id <> ?1",
        )?;
        let mut rows = statement.query([system::NUMBER.0])?;
        while let Some(row) = rows.next()? {
            let mut entry = entry_from(row)?;
            entry.ready = row.get(10)?;
            entry.table.acl = acls.remove(&entry.table.id).unwrap_or_default();
            consult(&catalog.directory, &mut entry);
            let (owner, usage) = (entry.table.name.owner.clone(), Arc::clone(&entry.usage));
            catalog.insert(entry);
            if let Some(namespace) = catalog.namespace(&owner) {
                namespace.usage.add(usage.total());
            }
        }
        Ok(catalog)
    }
}

/// What the directory says of a table that may leave this machine.
fn consult(directory: &Directory, entry: &mut Entry) {
    if !entry.replicated {
        return;
    }
    entry.table.acl = directory.acl(entry.table.uid);
    if let Some(here) = directory.here() {
        entry.standing = directory.standing(entry.table.uid, here);
    }
    if let Some(decided) = directory.whereabouts(entry.table.uid) {
        (entry.table.scope, entry.table.contested) = (decided.scope, decided.contested);
    }
}

fn load_grants(conn: &Connection) -> Result<HashMap<TableId, Acl>, StoreError> {
    let mut acls: HashMap<TableId, Acl> = HashMap::new();
    let mut statement = conn.prepare("SELECT table_id, principal, rights FROM grants")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let principal =
            Principal::parse(row.get_ref(1)?.as_str().map_err(damaged)?).map_err(damaged)?;
        let acl = acls.entry(TableId(row.get(0)?)).or_default();
        acl.grant(principal, Permissions::from_bits(row.get(2)?)).map_err(damaged)?;
    }
    Ok(acls)
}

pub(super) fn entry_from(row: &Row<'_>) -> Result<Entry, StoreError> {
    let text = |index: usize| row.get_ref(index)?.as_str().map_err(damaged);
    let attributes = text(4)?.split(',').map(AttributeName::parse).collect::<Result<Vec<_>, _>>();
    let usage = Usage::default();
    usage.add(UsageDelta { records: row.get(7)?, bytes: row.get(8)? });
    Ok(Entry {
        table: Table {
            id: TableId(row.get(0)?),
            uid: TableUid(row.get(1)?),
            name: QualifiedName {
                owner: Owner::parse(text(2)?).ok_or_else(|| damaged("an owner"))?,
                name: TableName::parse(text(3)?).map_err(damaged)?,
            },
            attributes: attributes.map_err(damaged)?,
            scope: Scope::parse(text(5)?).map_err(damaged)?,
            contested: false,
            acl: Acl::default(),
        },
        replicated: row.get(6)?,
        created: Hlc::from_i64(row.get(9)?),
        standing: Standing::In,
        ready: true,
        usage: Arc::new(usage),
    })
}

/// A column that holds what this version could not have written.
fn damaged(what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("the table of tables holds what cannot stand there: {what}"))
}
