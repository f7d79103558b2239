//! Commands on tables: made, dropped, kept away from this machine, and whose they are, where, with which rights.
//! What that means for tables that may leave this machine is decided by `cortex_core::directory`, and takes effect in
//! `directory::reconcile`.

pub(crate) mod grants;
pub(crate) mod lifecycle;
pub(crate) mod owners;
pub(crate) mod scopes;
