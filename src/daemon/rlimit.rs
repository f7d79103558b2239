//! The process's own bounds on open files.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft bound on open files to the hard one: the default of 1,024 is fewer than the
/// connections that the settings allow.
pub(super) fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the bound on open files: {error}");
    }
}
