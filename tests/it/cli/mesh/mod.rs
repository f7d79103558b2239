//! The commands about the mesh, by the real `cortex`: from nothing to two nodes, and every refusal on the way.
//! Leaves what certificates are good for to `pki`, and the mesh in service to the daemon's tests.

mod authority;
mod invitation;
mod machine;

use crate::support::tool;
