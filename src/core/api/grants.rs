//! Access control lists: who may do what to a table.
//! What a right allows is `crate::gate`'s.

use serde::{Deserialize, Serialize};

use super::param::{TextOrList, request};

request! {
    /// Gives rights: `granted`.
    AclGrant<'a> = AclGrant -> String {
        /// To whom: `uid:N`, `@name`, or `*` for everybody.
        identity: &'a str,
        /// On which table.
        table: &'a str,
        /// Which: `read`, `write`, `admin`.
        permissions: TextOrList<'a>,
    }
}

request! {
    /// Takes rights away: `revoked`.
    AclRevoke<'a> = AclRevoke -> String {
        /// From whom: `uid:N`, `@name`, or `*` for everybody.
        identity: &'a str,
        /// On which table.
        table: &'a str,
        /// Which: `read`, `write`, `admin`.
        permissions: TextOrList<'a>,
    }
}

request! {
    /// Who holds which rights on the caller's tables.
    AclList = AclList -> Vec<TableGrant> {}
}

/// Rights that somebody holds on a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who: `uid:N`, `@name` or `*`.
    pub identity: String,
    /// `read`, `write`, `admin`.
    pub permissions: Vec<String>,
}

/// The same, of one table among several. The owner's own rights are among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableGrant {
    /// Who: `uid:N`, `@name` or `*`.
    pub identity: String,
    /// The table's full name.
    pub table: String,
    /// `read`, `write`, `admin`.
    pub permissions: Vec<String>,
}
