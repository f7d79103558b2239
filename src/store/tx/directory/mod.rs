//! Commands on the directory: who is who, rights, scopes and owners of tables that may leave this machine.
//! What they come to is decided by `cortex_core::directory`; here its rows are signed, stored, and take effect.
//!
//! ```text
//!   signed, notices  <──  reconcile  <──  learn, scopes  <──  identities, membership, grants, tables, owners
//! ```

pub(crate) mod grants;
pub(crate) mod identities;
pub(crate) mod learn;
pub(crate) mod membership;
pub(crate) mod notices;
pub(crate) mod owners;
pub(crate) mod reconcile;
pub(crate) mod scopes;
pub(crate) mod signed;
pub(crate) mod tables;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;
