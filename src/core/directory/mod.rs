//! Who is who in the mesh, which federated tables there are, and where tables may be.
//! The rows are kept by the store; what they mean together is computed here, the same on every node.
//!
//! ```text
//!   rows, in any order ──> Directory ──> who is (node, uid)?  what is @alice?  who may?  where?
//!   a wish ──> decide ──> rows to write, or a refusal
//! ```
//!
//! Rights, bindings and scopes are never decided by clocks. A decision says which others it had
//! seen; of decisions that had not seen each other the narrower counts. So a revocation is never
//! undone by a grant that did not know of it, and no order of arrival makes a difference.

mod decide;
mod fields;
mod members;
mod names;
mod owners;
mod restored;
mod row;
mod scopes;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

pub use restored::Progress;
pub use row::{
    BindingRow, Database, DroppedRow, GrantRow, IdentityRow, NameResolutionRow, NameRow, NodeRow,
    RemovalRow, ReplicaRow, RevocationRow, Row, ScopeRow, SealedRow, Seen, TokenId, TransferRow,
    UNKNOWN_DATABASE, UnbindingRow, adopted_part, signed_part,
};
pub use scopes::{Standing, Whereabouts};

use crate::model::{
    Acl, Caller, IdentityId, IdentityName, MeshId, NodeName, Permissions, Principal, TableName,
    TableUid, Uid,
};

/// A principal and the bit of one right.
type Right = (Principal, u8);

/// What is said of one table or name. Shared by the versions of a directory in which it is the same: each commit
/// that changes a row makes a version, and thousands of tables that it does not concern are not copied for it.
type Of<K, V> = Arc<BTreeMap<K, V>>;

/// The rows of the system table, and what they mean together.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    here: Option<NodeName>,
    nodes: BTreeMap<NodeName, NodeRow>,
    /// By database: of which machine, and by whom it was removed.
    removals: BTreeMap<Database, BTreeSet<(NodeName, NodeName)>>,
    identities: BTreeMap<IdentityId, IdentityRow>,
    bindings: BTreeMap<(NodeName, Uid), BindingRow>,
    /// By identity and account: of each node, how often it has revoked.
    unbindings: BTreeMap<(IdentityId, NodeName, Uid), Seen>,
    /// By identity: of each node, how often it has revoked all of its bindings.
    revocations: BTreeMap<IdentityId, Seen>,
    grants: HashMap<TableUid, Of<Right, BTreeMap<NodeName, GrantRow>>>,
    names: BTreeMap<(IdentityId, TableName), Of<NodeName, NameRow>>,
    scopes: BTreeMap<TableUid, Of<NodeName, ScopeRow>>,
    replicas: HashMap<TableUid, Of<NodeName, ReplicaRow>>,
    name_resolutions: BTreeMap<IdentityName, BTreeMap<NodeName, NameResolutionRow>>,
    /// By table: who has dropped it.
    dropped: HashMap<TableUid, BTreeSet<NodeName>>,
    transfers: HashMap<TableUid, BTreeMap<NodeName, TransferRow>>,
    mesh: Option<MeshId>,
    /// Computed from transfers: the tables that were transferred to identities, by their names.
    received: BTreeMap<(IdentityId, TableName), TableUid>,
    /// Computed: the identities of a name that nobody is any more.
    departed: BTreeMap<IdentityName, BTreeSet<IdentityId>>,
    /// Computed for that mesh: the name of each federated table that there is, or was last.
    named: HashMap<TableUid, (IdentityId, TableName)>,
    rows: usize,
    /// Computed from bindings and unbindings: who is who.
    accounts: BTreeMap<NodeName, BTreeMap<Uid, IdentityId>>,
    /// Computed: the identities of a name that somebody is.
    by_name: BTreeMap<IdentityName, BTreeSet<IdentityId>>,
}

/// A federated table's name, as the rows of all nodes together have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its number; the first is 1.
    pub number: u64,
    /// True where there is no such table any more.
    pub dropped: bool,
}

impl Directory {
    /// Rows that are kept at most: some tens of megabytes.
    pub const MOST_ROWS: usize = 100_000;

    /// Of these, the rows that only decisions may add which take something away: who has filled the rest keeps nobody
    /// from revoking a right, a mapping or a machine.
    pub(super) const RESERVED_ROWS: usize = 20_000;

    /// An empty directory on a node of that name; none where there has never been a mesh.
    #[must_use]
    pub fn new(here: Option<NodeName>) -> Self {
        Self { here, ..Self::default() }
    }

    /// This node's name.
    #[must_use]
    pub fn here(&self) -> Option<&NodeName> {
        self.here.as_ref()
    }

    /// Gives this node its name.
    pub fn set_here(&mut self, here: NodeName) {
        self.here = Some(here);
    }

    /// Says which mesh this is, so that [`Directory::owner_of`] need not search.
    pub fn set_mesh(&mut self, mesh: MeshId) {
        if self.mesh == Some(mesh) {
            return;
        }
        self.mesh = Some(mesh);
        let named =
            self.tables_named(mesh).map(|(table, owner, name, _)| (table, (owner, name.clone())));
        self.named = named.collect();
    }

    /// Takes a row in, in the place of an older version of it. Rows may come in any order; where
    /// they come together, [`Extend::extend`] works out who is who once for all of them.
    pub fn insert(&mut self, row: Row) {
        self.extend([row]);
    }

    /// Puts a row in its place. True where who is who may be another after it.
    fn place(&mut self, row: Row) -> bool {
        let says_who = match row {
            Row::Node(_)
            | Row::Identity(_)
            | Row::Binding(_)
            | Row::Unbinding(_)
            | Row::Revocation(_)
            | Row::Removal(_) => true,
            Row::Grant(_)
            | Row::Name(_)
            | Row::Scope(_)
            | Row::Replica(_)
            | Row::NameResolution(_)
            | Row::Dropped(_)
            | Row::Transfer(_) => false,
        };
        let new = match row {
            Row::Node(row) => self.nodes.insert(row.node.clone(), row).is_none(),
            Row::Removal(row) => {
                self.removals.entry(row.database).or_default().insert((row.node, row.by))
            }
            Row::Identity(row) => self.identities.insert(row.id, row).is_none(),
            Row::Binding(row) => self.bindings.insert((row.node.clone(), row.uid), row).is_none(),
            Row::Unbinding(row) => {
                let account = (row.identity, row.node, row.uid);
                let counts = self.unbindings.entry(account).or_default();
                counts.insert(row.by, row.count).is_none()
            }
            Row::Revocation(row) => {
                let counts = self.revocations.entry(row.identity).or_default();
                counts.insert(row.by, row.count).is_none()
            }
            Row::Grant(row) => {
                let of_table = Arc::make_mut(self.grants.entry(row.table).or_default());
                let right = (row.principal.clone(), row.right.bits());
                of_table.entry(right).or_default().insert(row.by.clone(), row).is_none()
            }
            Row::Name(row) => self.place_name(row),
            Row::Scope(row) => {
                let decisions = Arc::make_mut(self.scopes.entry(row.table).or_default());
                decisions.insert(row.by.clone(), row).is_none()
            }
            Row::Replica(row) => {
                let replicas = Arc::make_mut(self.replicas.entry(row.table).or_default());
                replicas.insert(row.node.clone(), row).is_none()
            }
            Row::NameResolution(row) => {
                let decisions = self.name_resolutions.entry(row.name.clone()).or_default();
                decisions.insert(row.by.clone(), row).is_none()
            }
            Row::Dropped(row) => self.dropped.entry(row.table).or_default().insert(row.by),
            Row::Transfer(row) => {
                let decisions = self.transfers.entry(row.table).or_default();
                decisions.insert(row.by.clone(), row).is_none()
            }
        };
        self.rows += usize::from(new);
        says_who
    }

    fn place_name(&mut self, row: NameRow) -> bool {
        let (owner, name) = (row.owner, row.name.clone());
        let before = self.generation(owner, &name);
        let by_node = Arc::make_mut(self.names.entry((owner, name.clone())).or_default());
        let new = by_node.insert(row.by.clone(), row).is_none();
        let now = self.generation(owner, &name);
        if let Some(mesh) = self.mesh
            && before.map(|before| before.number) != now.map(|now| now.number)
        {
            let table =
                |known: Generation| TableUid::of_federated(mesh, owner, &name, known.number);
            before.map(table).and_then(|table| self.named.remove(&table));
            if let Some(table) = now.map(table) {
                self.named.insert(table, (owner, name));
            }
        }
        new
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// True where there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Every row that one node has written.
    pub fn written_by<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = Row> + 'a {
        self.all().filter(move |row| row.writer() == node)
    }

    /// What another node needs to know of an identity: who it is, where, and who says so.
    #[must_use]
    pub fn about(&self, identity: IdentityId) -> Vec<Row> {
        let concerns = |row: &Row| match row {
            Row::Identity(row) => row.id == identity,
            Row::Binding(row) => row.identity == identity,
            Row::Unbinding(row) => row.identity == identity,
            Row::Revocation(row) => row.identity == identity,
            Row::NameResolution(row) => row.among.contains(&identity),
            Row::Removal(removal) => {
                let of_it = |row: &&BindingRow| row.identity == identity;
                self.bindings.values().filter(of_it).any(|row| row.node == removal.node)
            }
            Row::Node(_)
            | Row::Grant(_)
            | Row::Name(_)
            | Row::Scope(_)
            | Row::Replica(_)
            | Row::Dropped(_)
            | Row::Transfer(_) => false,
        };
        let rows: Vec<Row> = self.all().filter(concerns).collect();
        let writers: BTreeSet<_> = rows.iter().map(|row| row.writer().clone()).collect();
        let nodes = writers.iter().filter_map(|node| self.nodes.get(node).cloned());
        nodes.map(Row::Node).chain(rows).collect()
    }

    fn all(&self) -> impl Iterator<Item = Row> + '_ {
        let unbindings = self.unbindings.iter().flat_map(|((identity, node, uid), counts)| {
            counts.iter().map(move |(by, count)| {
                Row::Unbinding(UnbindingRow {
                    identity: *identity,
                    node: node.clone(),
                    uid: *uid,
                    by: by.clone(),
                    count: *count,
                })
            })
        });
        let revocations = self.revocations.iter().flat_map(|(identity, counts)| {
            counts.iter().map(move |(by, count)| {
                let (identity, by, count) = (*identity, by.clone(), *count);
                Row::Revocation(RevocationRow { identity, by, count })
            })
        });
        let removals = self.removals.iter().flat_map(|(database, by_node)| {
            by_node.iter().map(move |(node, by)| {
                let (node, by) = (node.clone(), by.clone());
                Row::Removal(RemovalRow { node, database: *database, by })
            })
        });
        let grants = self.grants.values().flat_map(|of| of.values()).flat_map(BTreeMap::values);
        (self.nodes.values().cloned().map(Row::Node))
            .chain(self.identities.values().cloned().map(Row::Identity))
            .chain(self.bindings.values().cloned().map(Row::Binding))
            .chain(unbindings)
            .chain(revocations)
            .chain(removals)
            .chain(grants.cloned().map(Row::Grant))
            .chain(self.names.values().flat_map(|of| of.values()).cloned().map(Row::Name))
            .chain(self.scopes.values().flat_map(|of| of.values()).cloned().map(Row::Scope))
            .chain(self.replicas.values().flat_map(|of| of.values()).cloned().map(Row::Replica))
            .chain(
                self.name_resolutions
                    .values()
                    .flat_map(BTreeMap::values)
                    .cloned()
                    .map(Row::NameResolution),
            )
            .chain(self.dropped.iter().flat_map(|(table, by_node)| {
                let row = |by: &NodeName| DroppedRow { table: *table, by: by.clone() };
                by_node.iter().map(move |by| Row::Dropped(row(by)))
            }))
            .chain(self.transfers.values().flat_map(BTreeMap::values).cloned().map(Row::Transfer))
    }

    /// Who a uid of a machine is.
    #[must_use]
    pub fn identity_of(&self, node: &NodeName, uid: Uid) -> Option<IdentityId> {
        self.accounts.get(node)?.get(&uid).copied()
    }

    /// Who a caller is. Root is nobody in particular, here and anywhere.
    #[must_use]
    pub fn identity_of_caller(&self, caller: &Caller) -> Option<IdentityId> {
        match caller {
            Caller::Local(uid) => self.identity_of(self.here.as_ref()?, *uid),
            Caller::Peer { node, uid: Some(uid) } => self.identity_of(node, *uid),
            Caller::Peer { uid: None, .. } => None,
        }
    }

    /// The uid that an identity has on a machine.
    #[must_use]
    pub fn uid_on(&self, node: &NodeName, identity: IdentityId) -> Option<Uid> {
        let accounts = self.accounts.get(node)?.iter();
        accounts.filter(|(_, who)| **who == identity).map(|(uid, _)| *uid).next()
    }

    /// The uid that an identity has on this machine.
    #[must_use]
    pub fn uid_here(&self, identity: IdentityId) -> Option<Uid> {
        self.uid_on(self.here.as_ref()?, identity)
    }

    /// What is known of an identity that somebody is.
    #[must_use]
    pub fn identity(&self, id: IdentityId) -> Option<&IdentityRow> {
        let row = self.identities.get(&id)?;
        self.by_name.get(&row.name)?.contains(&id).then_some(row)
    }

    /// The identities that somebody is, by name.
    pub fn identities(&self) -> impl Iterator<Item = &IdentityRow> {
        self.by_name.values().flatten().filter_map(|id| self.identities.get(id))
    }

    /// The accounts of an identity: on which machine, which uid.
    pub fn accounts(&self, identity: IdentityId) -> impl Iterator<Item = (&NodeName, Uid)> {
        self.accounts.iter().flat_map(move |(node, accounts)| {
            let own = accounts.iter().filter(move |(_, who)| **who == identity);
            own.map(move |(uid, _)| (node, *uid))
        })
    }

    /// Who besides the owner has which rights on a table whose rights are kept here.
    #[must_use]
    pub fn acl(&self, table: TableUid) -> Acl {
        let mut acl = Acl::default();
        for ((principal, right), by_node) in
            self.grants.get(&table).into_iter().flat_map(|of| of.iter())
        {
            let revoked: Seen = by_node.iter().map(|(by, row)| (by.clone(), row.revoked)).collect();
            let granted = by_node.values().filter_map(|row| row.granted.as_ref());
            if granted.into_iter().any(|seen| covers(seen, &revoked)) {
                // A list that is over the bound, by grants on several nodes, is cut.
                let _over_the_bound = acl.grant(principal.clone(), Permissions::from_bits(*right));
            }
        }
        acl
    }

    /// The generation of a federated table's name; none where it was never used.
    #[must_use]
    pub fn generation(&self, owner: IdentityId, name: &TableName) -> Option<Generation> {
        let by_node = self.names.get(&(owner, name.clone()))?;
        let newest = by_node.values().map(|row| (row.generation, row.dropped)).max();
        newest.map(|(number, dropped)| Generation { number, dropped })
    }

    /// The lasting id of the federated table of that name; none where there is none now. One that the owner has
    /// made comes before one that was transferred to them.
    #[must_use]
    pub fn federated(&self, owner: IdentityId, name: &TableName) -> Option<TableUid> {
        let made = self.generation(owner, name).filter(|known| !known.dropped).and_then(|known| {
            let table = TableUid::of_federated(self.mesh?, owner, name, known.number);
            (!self.is_dropped(table)).then_some(table)
        });
        made.or_else(|| self.received(owner, name))
    }

    /// The tables whose name a row about names may change: the one that has it, and the one that the row gives it
    /// to. None where it is not known which mesh this is.
    #[must_use]
    pub fn tables_concerned(&self, row: &NameRow) -> Option<BTreeSet<TableUid>> {
        let mesh = self.mesh?;
        let known = self.generation(row.owner, &row.name).map(|known| known.number);
        let numbers = known.into_iter().chain([row.generation]);
        Some(
            numbers
                .map(|number| TableUid::of_federated(mesh, row.owner, &row.name, number))
                .collect(),
        )
    }

    /// The names of the federated tables that an identity has, wherever they are.
    pub fn names_of(&self, owner: IdentityId) -> impl Iterator<Item = &TableName> {
        let made = self.names.keys().filter(move |(of, _)| *of == owner).map(|(_, name)| name);
        let made: BTreeSet<&TableName> = made.chain(self.names_received(owner)).collect();
        made.into_iter().filter(move |name| self.federated(owner, name).is_some())
    }

    /// Whose federated table that is, what it is called, and which of that name it is; none where no
    /// name is known for it, or where there has been another table of the name since.
    #[must_use]
    pub fn owner_of(
        &self,
        mesh: MeshId,
        table: TableUid,
    ) -> Option<(IdentityId, TableName, Generation)> {
        if self.mesh == Some(mesh) {
            let (owner, name) = self.named.get(&table)?;
            return Some((*owner, name.clone(), self.generation(*owner, name)?));
        }
        let mut named = self.tables_named(mesh);
        let (_, owner, name, generation) = named.find(|(named, ..)| *named == table)?;
        Some((owner, name.clone(), generation))
    }

    /// The newest table of every name.
    fn tables_named(
        &self,
        mesh: MeshId,
    ) -> impl Iterator<Item = (TableUid, IdentityId, &TableName, Generation)> {
        self.names.keys().filter_map(move |(owner, name)| {
            let generation = self.generation(*owner, name)?;
            let table = TableUid::of_federated(mesh, *owner, name, generation.number);
            Some((table, *owner, name, generation))
        })
    }

    /// Computes who is who, and who is called what.
    fn recount(&mut self) {
        let mut accounts: BTreeMap<NodeName, BTreeMap<Uid, IdentityId>> = BTreeMap::new();
        let mut by_name: BTreeMap<IdentityName, BTreeSet<IdentityId>> = BTreeMap::new();
        for row in self.bindings.values() {
            let Some(identity) = self.identities.get(&row.identity).filter(|_| self.stands(row))
            else {
                continue;
            };
            accounts.entry(row.node.clone()).or_default().insert(row.uid, row.identity);
            by_name.entry(identity.name.clone()).or_default().insert(row.identity);
        }
        (self.accounts, self.by_name) = (accounts, by_name);
        self.recount_departed();
    }

    /// True where nobody has revoked a binding, or all who have were known when it was made, and
    /// where its machine is still the one that it was made on.
    fn stands(&self, row: &BindingRow) -> bool {
        !self.is_put_out(&row.node) && !self.is_removed(&row.database) && self.is_unrevoked(row)
    }

    fn is_unrevoked(&self, row: &BindingRow) -> bool {
        let account = (row.identity, row.node.clone(), row.uid);
        let of_account = self.unbindings.get(&account);
        let of_identity = self.revocations.get(&row.identity);
        of_account.is_none_or(|revoked| covers(&row.seen, revoked))
            && of_identity.is_none_or(|revoked| covers(&row.seen_revocations, revoked))
    }
}

impl Extend<Row> for Directory {
    fn extend<I: IntoIterator<Item = Row>>(&mut self, rows: I) {
        let (mut says_who, mut says_whose) = (false, false);
        for row in rows {
            says_whose |= self.says_whose(&row);
            says_who |= self.place(row);
        }
        if says_who {
            self.recount();
        }
        if says_whose {
            self.recount_received();
        }
    }
}

/// True where every count was seen.
fn covers(seen: &Seen, counts: &Seen) -> bool {
    counts.iter().all(|(by, count)| seen.get(by).copied().unwrap_or(0) >= *count)
}

/// Raises a count to what another has seen.
fn note(seen: &mut Seen, by: &NodeName, count: u64) {
    let known = seen.entry(by.clone()).or_default();
    *known = count.max(*known);
}

/// Raises every count to what another has seen.
fn join(seen: &mut Seen, other: &Seen) {
    other.iter().for_each(|(by, count)| note(seen, by, *count));
}

/// What one node has decided about a thing, in the place of the decisions that it had seen.
trait Decision {
    fn count(&self) -> u64;
    fn seen(&self) -> &Seen;
}

/// The decisions that no other has replaced.
fn latest<D: Decision>(decisions: &BTreeMap<NodeName, D>) -> Vec<&D> {
    let replaced = |by: &NodeName, decision: &D| {
        let others = decisions.iter().filter(|(other, _)| *other != by);
        others
            .into_iter()
            .any(|(_, other)| other.seen().get(by).is_some_and(|seen| *seen >= decision.count()))
    };
    let latest: Vec<&D> =
        decisions.iter().filter(|(by, one)| !replaced(by, one)).map(|(_, one)| one).collect();
    if latest.is_empty() {
        // Each claims to replace the other, which only a false one can: none does.
        return decisions.values().collect();
    }
    latest
}

#[cfg(test)]
mod tests;
