//! A request of the one request path, built from the arguments of a D-Bus method.
//! Carrying it out is `dispatcher`'s, reading the result `values`'s.

use bytes::Bytes;
use cortex_core::{
    model::Uid,
    wire::{Method, encode},
};

/// A method and its parameters.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    /// True where a table is looked for by a name of the caller's, and reading it is enough.
    pub(super) looks_up: bool,
    count: usize,
    params: Vec<u8>,
}

/// A value of a map.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field<'a> {
    Text(&'a str),
    Number(u64),
}

impl From<Uid> for Field<'_> {
    fn from(uid: Uid) -> Self {
        Self::Number(uid.0.into())
    }
}

impl Request {
    pub(super) fn new(method: Method) -> Self {
        Self { method, looks_up: false, count: 0, params: Vec::new() }
    }

    /// A request about the table of that name, which need not be there, for which reading it is enough.
    pub(super) fn looking_up(method: Method, table: &str) -> Self {
        Self { looks_up: true, ..Self::new(method).text(table) }
    }

    /// Adds a string.
    pub(super) fn text(mut self, text: &str) -> Self {
        self.count += 1;
        encode::str(&mut self.params, text);
        self
    }

    /// Adds a list of strings.
    pub(super) fn texts(mut self, texts: &[String]) -> Self {
        self.count += 1;
        encode::strings(&mut self.params, texts.iter().map(String::as_str));
        self
    }

    /// Adds a map of numbers.
    pub(super) fn numbers(mut self, numbers: &[(&str, u64)]) -> Self {
        self.count += 1;
        encode::map(&mut self.params, numbers.len());
        for (name, number) in numbers {
            encode::str(&mut self.params, name);
            encode::uint(&mut self.params, *number);
        }
        self
    }

    /// Adds a number.
    pub(super) fn number(mut self, number: u64) -> Self {
        self.count += 1;
        encode::uint(&mut self.params, number);
        self
    }

    /// Adds a map of texts and numbers.
    pub(super) fn fields(mut self, fields: &[(&str, Field<'_>)]) -> Self {
        self.count += 1;
        encode::map(&mut self.params, fields.len());
        for (name, field) in fields {
            encode::str(&mut self.params, name);
            match field {
                Field::Text(text) => encode::str(&mut self.params, text),
                Field::Number(number) => encode::uint(&mut self.params, *number),
            }
        }
        self
    }

    /// Adds `{name: true}`.
    pub(super) fn flag(self, name: &str) -> Self {
        self.flags(&[name])
    }

    /// The same of several names.
    pub(super) fn flags(mut self, names: &[&str]) -> Self {
        self.count += 1;
        encode::map(&mut self.params, names.len());
        for name in names {
            encode::str(&mut self.params, name);
            encode::bool(&mut self.params, true);
        }
        self
    }

    /// The encoded array of parameters.
    pub(super) fn params(&self) -> Bytes {
        let mut whole = Vec::with_capacity(self.params.len() + 5);
        encode::array(&mut whole, self.count);
        whole.extend_from_slice(&self.params);
        whole.into()
    }
}
