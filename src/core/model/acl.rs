//! Rights on a table: which there are, who holds them, and how both are written.
//! Whether a request passes is decided in `gate`.

use std::{collections::BTreeMap, fmt};

use super::{IdentityId, Limits, NodeName, Refusal, Uid, name::parse_uid};

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u8);

impl Permissions {
    /// No right at all.
    pub const NONE: Self = Self(0);
    /// get, match, all, keys, watch.
    pub const READ: Self = Self(1);
    /// put, delete.
    pub const WRITE: Self = Self(2);
    /// grant, revoke, drop, scope.
    pub const ADMIN: Self = Self(4);

    /// Every right: the owner's.
    pub const ALL: Self = Self(7);

    const NAMES: [(&str, Self); 3] =
        [("read", Self::READ), ("write", Self::WRITE), ("admin", Self::ADMIN)];

    /// Reads `read`, `write` or `admin`.
    ///
    /// # Errors
    /// [`Refusal::InvalidPermissions`] for any other word.
    pub fn parse_name(word: &str) -> Result<Self, Refusal> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == word.trim());
        named.map(|(_, permission)| *permission).ok_or(Refusal::InvalidPermissions)
    }

    /// Reads words separated by commas.
    ///
    /// # Errors
    /// [`Refusal::InvalidPermissions`] for an unknown or empty word.
    pub fn parse_list(text: &str) -> Result<Self, Refusal> {
        text.split(',').try_fold(Self::NONE, |all, word| Ok(all.union(Self::parse_name(word)?)))
    }

    /// The rights in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The rights in `self` and not in `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// True where every right of `other` is here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True where there is no right.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The words of the rights, in the order read, write, admin.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(_, p)| self.contains(*p)).map(|(name, _)| *name)
    }

    /// Each right by itself.
    pub fn each(self) -> impl Iterator<Item = Self> {
        Self::NAMES.into_iter().map(|(_, right)| right).filter(move |right| self.contains(*right))
    }

    /// As a column value.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// From a column value; unknown bits are dropped.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }
}

/// Somebody who can hold a right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// `*`: every caller, of this machine or not.
    Everyone,
    /// `uid:1000`: that uid of this machine, on a table whose data stays here.
    Uid(Uid),
    /// `uid:1000@home`: that uid of that machine.
    UidAt(Uid, NodeName),
    /// `@` and the id of a federated identity. People write and are shown its name, which
    /// `directory` knows.
    Identity(IdentityId),
}

impl Principal {
    /// Reads what [`Principal`] is shown as. The name of an identity is for `directory` to look up.
    ///
    /// # Errors
    /// [`Refusal::InvalidIdentity`] for anything else.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        Self::read(text).ok_or(Refusal::InvalidIdentity)
    }

    fn read(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Everyone);
        }
        if let Some(id) = text.strip_prefix('@') {
            return IdentityId::parse(id).map(Self::Identity);
        }
        let account = text.strip_prefix("uid:")?;
        match account.split_once('@') {
            Some((uid, node)) => Some(Self::UidAt(parse_uid(uid)?, NodeName::parse(node).ok()?)),
            None => parse_uid(account).map(Self::Uid),
        }
    }

    /// The principal as it can stand on a table whose rows leave this machine: a bare uid is
    /// qualified with the machine where it was named.
    #[must_use]
    pub fn qualified(self, here: &NodeName) -> Self {
        match self {
            Self::Uid(uid) => Self::UidAt(uid, here.clone()),
            Self::Everyone | Self::UidAt(..) | Self::Identity(_) => self,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("*"),
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::UidAt(uid, node) => write!(f, "uid:{uid}@{node}"),
            Self::Identity(id) => write!(f, "@{id}"),
        }
    }
}

/// Who besides the owner holds which rights on one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl(BTreeMap<Principal, Permissions>);

impl Acl {
    /// Adds rights to what the principal has.
    ///
    /// # Errors
    /// [`Refusal::TooManyGrants`] where the list is full; the list is then unchanged.
    pub fn grant(&mut self, principal: Principal, rights: Permissions) -> Result<(), Refusal> {
        let full = self.0.len() >= Limits::GRANTS_PER_TABLE && !self.0.contains_key(&principal);
        if full {
            return Err(Refusal::TooManyGrants);
        }
        let held = self.0.entry(principal).or_default();
        *held = held.union(rights);
        Ok(())
    }

    /// Takes rights away; a principal without any leaves the list.
    pub fn revoke(&mut self, principal: Principal, rights: Permissions) {
        let left = self.held_by(&principal).minus(rights);
        if left.is_empty() {
            self.0.remove(&principal);
        } else {
            self.0.insert(principal, left);
        }
    }

    /// The rights granted to exactly this principal.
    #[must_use]
    pub fn held_by(&self, principal: &Principal) -> Permissions {
        self.0.get(principal).copied().unwrap_or_default()
    }

    /// Every grant, in the order of the principals.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Principal, Permissions)> + '_ {
        self.0.iter().map(|(principal, rights)| (principal, *rights))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_read_back_as_they_are_shown() {
        let rights = Permissions::parse_list("write, read").expect("two words");
        assert_eq!(rights.names().collect::<Vec<_>>(), ["read", "write"]);
        for bad in ["", "reed", "read,", "READ"] {
            assert_eq!(Permissions::parse_list(bad), Err(Refusal::InvalidPermissions), "{bad:?}");
        }
    }

    #[test]
    fn principals_read_back_as_they_are_shown() {
        let id = "@000102030405060708090a0b0c0d0e0f";
        for text in ["*", "uid:0", "uid:1000", "uid:1000@home", id] {
            assert_eq!(Principal::parse(text).expect(text).to_string(), text);
        }
        for bad in ["", "uid:", "uid:01", "uid:x", "1000", "@alice", "**", "uid:7@", "uid:7@A"] {
            assert_eq!(Principal::parse(bad), Err(Refusal::InvalidIdentity), "{bad:?}");
        }
    }

    #[test]
    fn a_revoked_right_is_gone_and_the_others_stay() {
        let mut acl = Acl::default();
        let bob = Principal::Uid(Uid(7));
        acl.grant(bob.clone(), Permissions::READ.union(Permissions::WRITE)).expect("room");
        acl.revoke(bob.clone(), Permissions::WRITE);
        assert_eq!(acl.held_by(&bob), Permissions::READ);
        acl.revoke(bob, Permissions::READ);
        assert_eq!(acl.iter().count(), 0);
    }

    #[test]
    fn a_full_list_takes_more_rights_but_no_more_principals() {
        let mut acl = Acl::default();
        for n in 0..Limits::GRANTS_PER_TABLE {
            let uid = Uid(u32::try_from(n).expect("a small bound"));
            acl.grant(Principal::Uid(uid), Permissions::READ).expect("room");
        }
        assert_eq!(acl.grant(Principal::Everyone, Permissions::READ), Err(Refusal::TooManyGrants));
        assert_eq!(acl.grant(Principal::Uid(Uid(0)), Permissions::ADMIN), Ok(()));
    }
}
