//! A request of the one request path, and what it will be answered with.
//! Carrying it out is `dispatcher`'s.

use std::marker::PhantomData;

use bytes::Bytes;
use cortex_core::{
    api::{self, Response},
    wire::Method,
};

/// A method and its encoded parameters.
#[derive(Clone, Debug)]
pub(super) struct Request<R> {
    pub(super) method: Method,
    /// True where a table is looked for by a name of the caller's, and reading it is enough.
    pub(super) looks_up: bool,
    pub(super) params: Bytes,
    response: PhantomData<fn() -> R>,
}

impl<R: Response> Request<R> {
    pub(super) fn of<'r, T: api::Request<'r, Response = R>>(request: &T) -> Self {
        let mut params = Vec::new();
        request.write(&mut params);
        let params = params.into();
        Self { method: T::METHOD, looks_up: false, params, response: PhantomData }
    }

    /// The same of a table that need not be there, for which reading it is enough.
    pub(super) fn looking_up<'r, T: api::Request<'r, Response = R>>(request: &T) -> Self {
        Self { looks_up: true, ..Self::of(request) }
    }
}
