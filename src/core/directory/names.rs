//! Names as people write and are shown them, from and to what they mean.
//! A name is an attribute: what it means may change, what it names does not.
//!
//! Two sides of a partition may register the same name. Then it means neither of the two to anybody
//! else, until an operator has resolved which one keeps it: the other is known by the beginning of its
//! id from then on, `alice~3f2a`. Nobody gains what is the other's by that: rights and ownership are
//! the ids'.

use std::collections::BTreeSet;

use super::{
    Decision, Directory, NameResolutionRow, Row, Seen, decide::next_count, join, latest, note,
};
use crate::model::{
    Caller, IdentityId, IdentityName, NodeName, Owner, Principal, QualifiedName, Refusal, TableRef,
};

/// Hexadecimal digits of an identity's id that distinguish it from others of its name, at least.
const DISTINGUISHING_DIGITS: usize = 4;

/// Identities that one resolution may list: what a row has room for, and more than there are machines.
const OTHERS_AT_ONCE: usize = 256;

impl Decision for NameResolutionRow {
    fn count(&self) -> u64 {
        self.count
    }

    fn seen(&self) -> &Seen {
        &self.seen
    }
}

impl Directory {
    /// The namespace and short name that a written name means for a caller.
    ///
    /// # Errors
    /// [`Refusal::AccessDenied`] where it means none, [`Refusal::IdentityContested`] where it means
    /// two.
    pub fn resolve<'a>(
        &self,
        written: TableRef<'a>,
        caller: &Caller,
    ) -> Result<(Owner, &'a str), Refusal> {
        match (written, caller) {
            (TableRef::Own(name), Caller::Local(uid)) => Ok((Owner::Uid(*uid), name)),
            (TableRef::Own(_), Caller::Peer { .. }) => Err(Refusal::AccessDenied),
            // The store knows its name.
            (TableRef::Id(_), _) => Err(Refusal::AccessDenied),
            (TableRef::Uid(uid, name), _) => Ok((Owner::Uid(uid), name)),
            (TableRef::Remote { uid, node, name }, _) => {
                if self.here().is_some_and(|here| here.as_str() == node) {
                    return Ok((Owner::Uid(uid), name));
                }
                let node = NodeName::parse(node).map_err(|_| Refusal::AccessDenied)?;
                Ok((Owner::Remote(uid, node), name))
            }
            (TableRef::Federated { identity: None, name }, _) => {
                let own = self.identity_of_caller(caller).ok_or(Refusal::AccessDenied)?;
                Ok((Owner::Identity(own), name))
            }
            (TableRef::Federated { identity: Some(who), name }, _) => {
                // Nobody of that name has a table, unless somebody had who is nobody any more: else it is as
                // for any that is absent.
                let who = match self.find_for(who, caller) {
                    Err(Refusal::UnknownIdentity) => self.find_departed(who, name)?,
                    found => found?,
                };
                Ok((Owner::Identity(who), name))
            }
        }
    }

    /// The identity that a written name means: `alice`, or `alice~3f2a` with the beginning of its id.
    ///
    /// # Errors
    /// [`Refusal::UnknownIdentity`] or [`Refusal::IdentityContested`].
    pub fn find(&self, written: &str) -> Result<IdentityId, Refusal> {
        let mut meant = self.meant_by(written)?.into_iter();
        match (meant.next(), meant.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => Err(Refusal::IdentityContested),
            (None, _) => Err(Refusal::UnknownIdentity),
        }
    }

    /// The same for a caller: each of two identities of that name may go on using it for itself.
    ///
    /// # Errors
    /// As [`Directory::find`].
    pub fn find_for(&self, written: &str, caller: &Caller) -> Result<IdentityId, Refusal> {
        match self.find(written) {
            Err(Refusal::IdentityContested) if !written.contains('~') => {
                let own = self.identity_of_caller(caller).ok_or(Refusal::IdentityContested)?;
                let is_meant = self.meant_by(written)?.contains(&own);
                is_meant.then_some(own).ok_or(Refusal::IdentityContested)
            }
            found => found,
        }
    }

    /// Every identity that a written name may mean.
    fn meant_by(&self, written: &str) -> Result<Vec<IdentityId>, Refusal> {
        let parse = |name| IdentityName::parse(name).map_err(|_| Refusal::UnknownIdentity);
        match written.split_once('~') {
            Some((name, digits)) if digits.len() >= DISTINGUISHING_DIGITS => {
                let named = self.by_name.get(&parse(name)?).into_iter().flatten().copied();
                Ok(named.filter(|id| id.to_string().starts_with(digits)).collect())
            }
            Some(_) => Err(Refusal::UnknownIdentity),
            None => Ok(self.bearers(&parse(written)?).collect()),
        }
    }

    /// The identities that somebody is and that go by the bare name: one, or those that contest it.
    pub fn bearers(&self, name: &IdentityName) -> impl Iterator<Item = IdentityId> {
        let without_it = self.without_their_name(name);
        let named = self.by_name.get(name).into_iter().flatten().copied();
        named.filter(move |id| !without_it.contains(id))
    }

    /// The identities that have lost their name to another. Where operators have resolved it to
    /// different ones without knowing of each other, none has.
    fn without_their_name(&self, name: &IdentityName) -> BTreeSet<IdentityId> {
        let Some(name_resolutions) = self.name_resolutions.get(name) else {
            return BTreeSet::new();
        };
        let name_resolutions = latest(name_resolutions);
        let kept: BTreeSet<IdentityId> = name_resolutions.iter().map(|row| row.keep).collect();
        if kept.len() > 1 {
            return BTreeSet::new();
        }
        name_resolutions
            .iter()
            .flat_map(|row| &row.among)
            .filter(|id| !kept.contains(id))
            .copied()
            .collect()
    }

    /// Resolves a name to one of  its identities. The others that are known here are known by the
    /// beginning of their ids from then on; one that is not known here contests it still.
    ///
    /// # Errors
    /// [`Refusal::UnknownIdentity`] where nobody of that name is that identity,
    /// [`Refusal::DirectoryFull`].
    pub fn resolve_name(
        &self,
        here: &NodeName,
        name: &IdentityName,
        keep: IdentityId,
        now_ms: u64,
    ) -> Result<Row, Refusal> {
        let Some(named) = self.by_name.get(name).filter(|named| named.contains(&keep)) else {
            return Err(Refusal::UnknownIdentity);
        };
        let mut seen = Seen::new();
        for row in self.name_resolutions.get(name).into_iter().flat_map(|rows| rows.values()) {
            note(&mut seen, &row.by, row.count);
            join(&mut seen, &row.seen);
        }
        self.check_room(1)?;
        let others = named.iter().copied().filter(|id| *id != keep).take(OTHERS_AT_ONCE - 1);
        let among = others.chain([keep]).collect();
        let count = next_count(seen.get(here).copied(), now_ms);
        let (name, by) = (name.clone(), here.clone());
        Ok(Row::NameResolution(NameResolutionRow { name, keep, among, by, count, seen }))
    }

    /// The principal that a written one means: `uid:N`, `uid:N@node`, `@alice` or `*`.
    ///
    /// # Errors
    /// [`Refusal::InvalidIdentity`], [`Refusal::UnknownIdentity`] or [`Refusal::IdentityContested`].
    pub fn principal(&self, written: &str) -> Result<Principal, Refusal> {
        match written.strip_prefix('@') {
            Some(name) => self.find(name).map(Principal::Identity),
            None => Principal::parse(written),
        }
    }

    /// What an identity is called: by its name, and where that does not mean it and it alone, with
    /// digits of its id.
    #[must_use]
    pub fn show_identity(&self, id: IdentityId) -> String {
        let Some(row) = self.identities.get(&id) else {
            return id.to_string();
        };
        if self.bearers(&row.name).eq([id]) {
            return row.name.to_string();
        }
        // Nobody may be this identity any more: somebody else may have its name one day.
        let digits = id.to_string();
        let named = self.by_name.get(&row.name).into_iter().flatten();
        let others = named.filter(|other| **other != id);
        let shared = others.map(|other| common_prefix(&other.to_string(), &digits)).max();
        let needed = shared.map_or(0, |shared| shared + 1).max(DISTINGUISHING_DIGITS);
        format!("{}~{}", row.name, &digits[..needed])
    }

    /// Whose namespace, for people.
    #[must_use]
    pub fn show_owner(&self, owner: &Owner) -> String {
        match owner {
            Owner::Identity(id) => format!("@{}", self.show_identity(*id)),
            Owner::Uid(_) | Owner::Remote(..) => owner.to_string(),
        }
    }

    /// The owner of a table as a grant would name them: `uid:1000`, `@alice`.
    #[must_use]
    pub fn show_owner_as_principal(&self, owner: &Owner) -> String {
        match owner {
            Owner::Identity(_) => self.show_owner(owner),
            Owner::Uid(_) | Owner::Remote(..) => format!("uid:{}", self.show_owner(owner)),
        }
    }

    /// A table's full name, for people: `1000:users`, `@alice:notes`.
    #[must_use]
    pub fn show(&self, name: &QualifiedName) -> String {
        format!("{}:{}", self.show_owner(&name.owner), name.name)
    }

    /// A principal, for people: a uid of this machine without its name.
    #[must_use]
    pub fn show_principal(&self, principal: &Principal) -> String {
        match principal {
            Principal::Identity(id) => format!("@{}", self.show_identity(*id)),
            Principal::UidAt(uid, node) if Some(node) == self.here() => format!("uid:{uid}"),
            Principal::Everyone | Principal::Uid(_) | Principal::UidAt(..) => principal.to_string(),
        }
    }
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}
