//! Commands on the directory: who is who, and rows of all that is decided for every node.
//! What they come to is decided by `cortex_core::directory`; here its rows are signed, stored, and take effect.
//!
//! ```text
//!   signed, notices  <──  reconcile  <──  learn, membership  <──  identities          (and tables, above)
//! ```

pub(crate) mod identities;
pub(crate) mod learn;
pub(crate) mod membership;
pub(crate) mod notices;
pub(crate) mod reconcile;
pub(crate) mod signed;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;
