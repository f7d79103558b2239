//! What the commands about the mesh print, and what their failures become.
//! Leaves the form to `output`.

use std::io;
use std::path::Path;

use cortex_core::model::NodeName;
use rmpv::Value;

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::json::packed;
use crate::pki::{Error, IssueError};
use crate::sys::clock;

/// Prints one object.
pub(super) fn print(context: &Context, fields: Vec<(&str, Value)>) -> Result<(), Failure> {
    print_value(context, &object(fields))
}

pub(super) fn print_value(context: &Context, value: &Value) -> Result<(), Failure> {
    context.printer().value(&packed(value))
}

pub(super) fn object(fields: Vec<(&str, Value)>) -> Value {
    Value::Map(fields.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

pub(super) fn path(path: &Path) -> Value {
    path.to_string_lossy().into_owned().into()
}

/// The wall clock, in seconds.
pub(super) fn now() -> u64 {
    clock::wall_ms() / 1000
}

/// A node's name as an argument.
pub(super) fn node_name(text: &str) -> Result<NodeName, String> {
    NodeName::parse(text)
        .map_err(|_| "a node's name is made of a-z, 0-9 and inner hyphens, at most 63".to_owned())
}

/// A failure to do something with a file.
pub(super) fn io_failure(attempt: &str, path: &Path, error: &io::Error) -> Failure {
    let exit = exit_of(error);
    let message = format!("cannot {attempt} {}: {error}", path.display());
    let failure = Failure::new(exit, message);
    if exit == Exit::Denied { failure.hint(AS_ROOT) } else { failure }
}

const AS_ROOT: &str = "The machine's mesh is root's business: sudo cortex mesh …";

fn exit_of(error: &io::Error) -> Exit {
    let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
    if is_denied { Exit::Denied } else { Exit::Failed }
}

impl From<IssueError> for Failure {
    fn from(error: IssueError) -> Self {
        let message = error.to_string();
        let failed = |exit| Self::new(exit, message.clone());
        match error {
            IssueError::Exists(_) => failed(Exit::Failed).hint(
                "To begin a new mesh, for which every node needs a new certificate: --force",
            ),
            IssueError::Absent(_) => failed(Exit::NotFound)
                .hint("Make one: cortex mesh init-ca. If it is elsewhere: --ca-dir DIR"),
            IssueError::Duplicate { node, .. } => failed(Exit::Failed).hint(format!(
                "If the node is lost: cortex mesh revoke-certificate {node}. To make it anew for the same key: cortex mesh renew {node}"
            )),
            IssueError::NodeIsHost { node, other } => failed(Exit::Failed).hint(format!(
                "Choose another name. To have this one: cortex mesh add-node --force {other} HOST, then revoke the certificate with the host {node} by its serial number"
            )),
            IssueError::Unknown(_) => failed(Exit::NotFound).hint("What there is: cortex mesh certificates"),
            IssueError::Io { error, .. } if exit_of(&error) == Exit::Denied => failed(Exit::Denied).hint(AS_ROOT),
            IssueError::Unusable { .. }
            | IssueError::Name(_)
            | IssueError::Host(_)
            | IssueError::HostIsNode(_)
            | IssueError::Request(_)
            | IssueError::Unverified(_)
            | IssueError::Crypto(_)
            | IssueError::Io { .. } => failed(Exit::Failed),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}
