//! Commands that nobody asks for: audits of rows, and the removal of what is left of tables.

pub(crate) mod audit;
pub(crate) mod purge;
