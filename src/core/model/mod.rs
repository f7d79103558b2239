//! The nouns that every other module speaks in.
//! Rules about them live beside this module: `gate`, `replication`, `clock`.

pub mod acl;
pub mod caller;
mod hex;
pub mod identity;
pub mod limits;
pub mod mesh;
pub mod name;
pub mod record;
pub mod refusal;
pub mod scope;
pub mod signer;
pub mod stamp;
pub mod table;
pub mod usage;

pub use acl::{Acl, Permissions, Principal};
pub use caller::{Caller, NodeName, Uid};
pub use identity::{IdentityId, IdentityName};
pub use limits::Limits;
pub use mesh::MeshId;
pub use name::{AttributeName, Owner, QualifiedName, TableName, TableRef};
pub use record::{Key, Pattern};
pub use refusal::Refusal;
pub use scope::Scope;
pub use signer::{KeyHash, NotSigned, Signer};
pub use stamp::{ActorId, Hlc, Stamp};
pub use table::{Table, TableId, TableUid};
pub use usage::UsageDelta;
