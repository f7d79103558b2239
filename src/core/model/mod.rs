//! The nouns that every other module speaks in.
//! Rules about them live beside this module: `gate`, `merge`, `clock`.

pub mod acl;
pub mod caller;
mod hex;
pub mod limits;
pub mod mesh;
pub mod name;
pub mod record;
pub mod refusal;
pub mod scope;
pub mod stamp;
pub mod table;

pub use acl::{Acl, Permissions, Principal};
pub use caller::{Caller, NodeName, Uid};
pub use limits::Limits;
pub use mesh::MeshId;
pub use name::{AttributeName, QualifiedName, TableName, TableRef};
pub use record::{Key, Pattern};
pub use refusal::Refusal;
pub use scope::Scope;
pub use stamp::{Hlc, Incarnation, Stamp};
pub use table::{Table, TableId, TableUid};
