//! The commands about the mesh, by the real `cortex`: from nothing to two nodes, and every refusal on the way.
//! Leaves what certificates are good for to `pki`, and the mesh in service to the daemon's tests.

#[path = "mesh_cli/authority.rs"]
mod authority;
#[path = "mesh_cli/invitation.rs"]
mod invitation;
#[path = "mesh_cli/machine.rs"]
mod machine;
#[path = "support/tool.rs"]
#[expect(dead_code, reason = "each test uses its part of the tool's helpers")]
mod tool;
