//! Names as people write and are shown them, from and to what they mean.
//! A name is an attribute: what it means may change, what it names does not.

use super::Directory;
use crate::model::{
    Caller, IdentityId, IdentityName, NodeName, Owner, Principal, QualifiedName, Refusal, TableRef,
};

/// Hexadecimal digits of an identity's id that tell it from others of its name, at least.
const TELLING_DIGITS: usize = 4;

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
            (TableRef::Of(uid, name), _) => Ok((Owner::Uid(uid), name)),
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
                // Nobody of that name has a table: as for any that is absent.
                let who = match self.find_for(who, caller) {
                    Err(Refusal::UnknownIdentity) => return Err(Refusal::AccessDenied),
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
        let (name, digits) = match written.split_once('~') {
            Some((name, digits)) if digits.len() >= TELLING_DIGITS => (name, digits),
            Some(_) => return Err(Refusal::UnknownIdentity),
            None => (written, ""),
        };
        let name = IdentityName::parse(name).map_err(|_| Refusal::UnknownIdentity)?;
        let named = self.by_name.get(&name).into_iter().flatten();
        let mut meant = named.filter(|id| id.to_string().starts_with(digits));
        match (meant.next(), meant.next()) {
            (Some(id), None) => Ok(*id),
            (Some(_), Some(_)) => Err(Refusal::IdentityContested),
            (None, _) => Err(Refusal::UnknownIdentity),
        }
    }

    /// The same for a caller: whoever is one of two of that name may go on calling themselves by it.
    ///
    /// # Errors
    /// As [`Directory::find`].
    pub fn find_for(&self, written: &str, caller: &Caller) -> Result<IdentityId, Refusal> {
        match self.find(written) {
            Err(Refusal::IdentityContested) => {
                let own = self.identity_of_caller(caller);
                let own = own.filter(|id| {
                    self.identity(*id).is_some_and(|row| row.name.as_str() == written)
                });
                own.ok_or(Refusal::IdentityContested)
            }
            found => found,
        }
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

    /// What an identity is called: by its name, and where that means two, with digits of its id.
    #[must_use]
    pub fn show_identity(&self, id: IdentityId) -> String {
        let Some(row) = self.identities.get(&id) else {
            return id.to_string();
        };
        let digits = id.to_string();
        let others =
            self.by_name.get(&row.name).into_iter().flatten().filter(|other| **other != id);
        let needed = others.map(|other| common_prefix(&other.to_string(), &digits) + 1).max();
        match needed {
            Some(needed) => format!("{}~{}", row.name, &digits[..needed.max(TELLING_DIGITS)]),
            // Nobody is this identity any more: somebody else may have its name one day.
            None if self.identity(id).is_none() => {
                format!("{}~{}", row.name, &digits[..TELLING_DIGITS])
            }
            None => row.name.to_string(),
        }
    }

    /// Whose namespace, for people.
    #[must_use]
    pub fn show_owner(&self, owner: &Owner) -> String {
        match owner {
            Owner::Identity(id) => format!("@{}", self.show_identity(*id)),
            Owner::Uid(_) | Owner::Remote(..) => owner.to_string(),
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
