//! What programs ask of the daemon, and what it answers: one request and one response type for each method.
//! Judging a request and finding its answer is the service's; connections, the client's and the edge's.
//!
//! ```text
//!   client: Request ──write──> params ──> daemon: Request::read ──> service
//!   client: Response <──read── result <── daemon: Response::write <────┘
//! ```
//!
//! A request is a list of parameters in their order, at the end of which may stand a map of options. A response
//! is a map of named fields, or a list of such, in the order in which they are declared here. Who reads one passes
//! over fields that it does not know: a later version adds some. An option that the daemon does not know it
//! refuses: who sets one counts on what it does.
//!
//! Times are in milliseconds since 1970, and named `…_ms`, unless they say otherwise. What is `None` stands as nil.
//! Records stay the MessagePack bytes as which they came ([`Raw`], [`RawValue`]), and are never encoded anew.
//!
//! Every request may fail with a text; which ones there are is [`crate::model::Refusal`].

mod comparison;
mod conflicts;
mod daemon;
mod grants;
mod identities;
mod mesh;
mod named;
mod param;
mod peers;
mod records;
mod replica;
mod sync;
mod tables;

pub use comparison::*;
pub use conflicts::*;
pub use daemon::*;
pub use grants::*;
pub use identities::*;
pub use mesh::*;
pub use named::Named;
pub use param::{Attributes, Bin, Options, Param, Raw, TextOrList, WriteParam};
pub use peers::*;
pub use records::*;
pub use replica::*;
pub use sync::*;
pub use tables::*;

use serde::{Serialize, de::DeserializeOwned};

use crate::{model::Refusal, wire::Method};

/// The parameters of one method.
pub trait Request<'a>: Sized {
    /// Which one.
    const METHOD: Method;
    /// What it answers.
    type Response: Response;

    /// Reads the encoded array of parameters. None where they have another shape than the method takes.
    fn read(params: &'a [u8]) -> Option<Self>;

    /// Appends the encoded array of parameters.
    fn write(&self, out: &mut Vec<u8>);

    /// What is answered to parameters of another shape.
    #[must_use]
    fn invalid() -> Refusal {
        Refusal::InvalidParams(Self::METHOD.expects())
    }
}

/// What a method answers.
pub trait Response: Sized + Send + 'static {
    /// Reads the encoded result.
    ///
    /// # Errors
    /// [`Malformed`] where it has another shape.
    fn read(result: &[u8]) -> Result<Self, Malformed>;

    /// Appends the encoded result.
    fn write(&self, out: &mut Vec<u8>);
}

/// A result has another shape than the method's, or is no MessagePack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the result has another shape than expected: {0}")]
pub struct Malformed(pub Box<str>);

impl<T: Serialize + DeserializeOwned + Send + 'static> Response for T {
    fn read(result: &[u8]) -> Result<Self, Malformed> {
        rmp_serde::from_slice(result).map_err(|error| Malformed(error.to_string().into()))
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_named(self, out);
    }
}

/// A value as MessagePack, fields by their names: a record, a pattern or a key.
#[must_use]
pub fn encoded(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    write_named(value, &mut out);
    out
}

fn write_named(value: &impl Serialize, out: &mut Vec<u8>) {
    rmp_serde::encode::write_named(out, value)
        .expect("a Vec takes every write, and the length of every list and map is known");
}

#[cfg(test)]
mod tests;
