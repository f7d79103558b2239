//! Names of tables and attributes, as callers write them and as the store knows them.
//! Which table a written name means for a caller is decided in `directory`; whether they may touch it, in `gate`.

use std::{borrow::Borrow, fmt};

use super::{IdentityId, Limits, NodeName, Refusal, TableUid, Uid};

/// Takes `^[a-zA-Z_][a-zA-Z0-9_]*$` up to the bound, the rule for tables and attributes alike.
fn identifier(text: &str, invalid: impl FnOnce() -> Refusal) -> Result<Box<str>, Refusal> {
    let mut bytes = text.bytes();
    let head = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !head || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(invalid());
    }
    if text.len() > Limits::NAME_BYTES {
        return Err(Refusal::NameTooLong);
    }
    Ok(text.into())
}

/// The short name of a table: `users`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName(Box<str>);

impl TableName {
    /// Takes an identifier of at most [`Limits::NAME_BYTES`].
    ///
    /// # Errors
    /// [`Refusal::InvalidTableName`] or [`Refusal::NameTooLong`].
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        identifier(text, || Refusal::InvalidTableName).map(Self)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TableName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of one declared field of a table's records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeName(Box<str>);

impl AttributeName {
    /// Takes an identifier of at most [`Limits::NAME_BYTES`].
    ///
    /// # Errors
    /// [`Refusal::InvalidAttributeName`] or [`Refusal::NameTooLong`].
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        identifier(text, || Refusal::InvalidAttributeName(text.into())).map(Self)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AttributeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A uid of this machine: `1000`.
    Uid(Uid),
    /// A uid of another machine, whose table is held here too: `1000@home`.
    Remote(Uid, NodeName),
    /// A federated identity: `@` and its id. People are shown its name, which `directory` knows.
    Identity(IdentityId),
}

impl Owner {
    /// Reads what [`Owner`] is shown as; none for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(id) = text.strip_prefix('@') {
            return IdentityId::parse(id).map(Self::Identity);
        }
        match text.split_once('@') {
            Some((uid, node)) => Some(Self::Remote(parse_uid(uid)?, NodeName::parse(node).ok()?)),
            None => parse_uid(text).map(Self::Uid),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => uid.fmt(f),
            Self::Remote(uid, node) => write!(f, "{uid}@{node}"),
            Self::Identity(id) => write!(f, "@{id}"),
        }
    }
}

/// A table's full name: whose namespace, and which table in it. Shown as `1000:users`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QualifiedName {
    /// Whose namespace holds the table.
    pub owner: Owner,
    /// The name within that namespace.
    pub name: TableName,
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.owner, self.name)
    }
}

/// A table's name as a caller wrote it, not yet looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableRef<'a> {
    /// `users`: in the caller's own namespace.
    Own(&'a str),
    /// `1000:users`: in the namespace of that uid of this machine.
    Uid(Uid, &'a str),
    /// `1000@home:users`: in the namespace of that uid of another machine.
    Remote {
        /// The uid on that machine.
        uid: Uid,
        /// That machine's name.
        node: &'a str,
        /// The name within the namespace.
        name: &'a str,
    },
    /// `id:` and 32 hexadecimal digits: the table of that lasting id, whatever it is called and whosever it is.
    Id(TableUid),
    /// `@notes`, `@alice:notes`: in the namespace of a federated identity.
    Federated {
        /// The identity's name; none stands for the caller's own.
        identity: Option<&'a str>,
        /// The name within its namespace.
        name: &'a str,
    },
}

impl<'a> TableRef<'a> {
    /// Reads a written name. The parts are not checked to be identifiers: a name that cannot
    /// exist is simply not found, exactly as one that does not.
    ///
    /// # Errors
    /// [`Refusal::InvalidTableName`] where the part before the colon is no owner.
    pub fn parse(text: &'a str) -> Result<Self, Refusal> {
        if let Some(federated) = text.strip_prefix('@') {
            let (identity, name) = match federated.split_once(':') {
                Some((identity, name)) => (Some(identity), name),
                None => (None, federated),
            };
            return Ok(Self::Federated { identity, name });
        }
        let Some((owner, name)) = text.split_once(':') else {
            return Ok(Self::Own(text));
        };
        if owner == "id" {
            return TableUid::parse(name).map(Self::Id).ok_or(Refusal::InvalidTableName);
        }
        let uid = |text| parse_uid(text).ok_or(Refusal::InvalidTableName);
        Ok(match owner.split_once('@') {
            Some((owner, node)) => Self::Remote { uid: uid(owner)?, node, name },
            None => Self::Uid(uid(owner)?, name),
        })
    }
}

/// Reads a uid in plain decimal: no sign, no leading zeros, so that each uid has one spelling.
#[must_use]
pub fn parse_uid(text: &str) -> Option<Uid> {
    let canonical =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    canonical.then(|| text.parse().ok().map(Uid)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_taken_and_nothing_else() {
        for good in ["a", "_", "A9_", "snake_case"] {
            assert!(TableName::parse(good).is_ok(), "{good:?}");
        }
        for bad in ["", "9a", "a-b", "a b", "a:b", "é", "a.b"] {
            assert_eq!(TableName::parse(bad), Err(Refusal::InvalidTableName), "{bad:?}");
            assert_eq!(
                AttributeName::parse(bad),
                Err(Refusal::InvalidAttributeName(bad.into())),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_name_over_the_bound_is_refused_as_too_long() {
        let longest = "x".repeat(Limits::NAME_BYTES);
        assert!(TableName::parse(&longest).is_ok());
        assert_eq!(TableName::parse(&(longest + "x")), Err(Refusal::NameTooLong));
    }

    #[test]
    fn a_written_name_says_whose_namespace_it_means() {
        let read = |text| TableRef::parse(text).expect("a name");
        assert_eq!(read("users"), TableRef::Own("users"));
        assert_eq!(read("1000:users"), TableRef::Uid(Uid(1000), "users"));
        let remote = TableRef::Remote { uid: Uid(1000), node: "home", name: "users" };
        assert_eq!(read("1000@home:users"), remote);
        assert_eq!(read("@notes"), TableRef::Federated { identity: None, name: "notes" });
        let alices = TableRef::Federated { identity: Some("alice"), name: "notes" };
        assert_eq!(read("@alice:notes"), alices);
        let id = "id:000102030405060708090a0b0c0d0e0f";
        assert!(matches!(read(id), TableRef::Id(uid) if format!("id:{uid}") == id));
        for bad in ["x:users", ":users", "01:users", "x@home:users", "id:users", "id:00", "id:"] {
            assert_eq!(TableRef::parse(bad), Err(Refusal::InvalidTableName), "{bad:?}");
        }
    }

    #[test]
    fn an_owner_reads_back_as_it_is_shown() {
        for text in ["0", "1000", "1000@home", "@000102030405060708090a0b0c0d0e0f"] {
            assert_eq!(Owner::parse(text).expect(text).to_string(), text);
        }
        for bad in ["", "@", "@alice", "1000@", "1000@Home", "x", "-1"] {
            assert_eq!(Owner::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_uid_has_one_spelling() {
        for bad in ["", "01", "+1", "-1", " 1", "4294967296", "x"] {
            assert_eq!(parse_uid(bad), None, "{bad:?}");
        }
        assert_eq!(parse_uid("4294967295"), Some(Uid(u32::MAX)));
    }
}
