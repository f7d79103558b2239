//! Reads the parameters of a request, and says what was expected where they have another shape.
//! What the parameters mean is left to the methods.

use bytes::Bytes;
use cortex_core::{
    model::Refusal,
    wire::{Head, Method, Reader},
};

/// The parameters of one request, read from front to back.
#[derive(Debug)]
pub(super) struct Params<'a> {
    method: Method,
    all: &'a Bytes,
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Params<'a> {
    pub(super) fn new(method: Method, all: &'a Bytes) -> Self {
        let mut reader = Reader::new(all);
        let left = match reader.head() {
            Some(Head::Array(count)) => count,
            _ => 0,
        };
        Self { method, all, reader, left }
    }

    /// What to answer where the parameters do not fit.
    pub(super) fn invalid(&self) -> Refusal {
        Refusal::InvalidParams(self.method.expects())
    }

    /// Refuses any number of parameters but this.
    pub(super) fn count(self, wanted: usize) -> Result<Self, Refusal> {
        self.between(wanted, wanted)
    }

    pub(super) fn between(self, least: usize, most: usize) -> Result<Self, Refusal> {
        if (least..=most).contains(&self.left) { Ok(self) } else { Err(self.invalid()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// The next parameter, encoded.
    pub(super) fn raw(&mut self) -> Result<&'a [u8], Refusal> {
        self.left = self.left.checked_sub(1).ok_or_else(|| self.invalid())?;
        self.reader.raw().ok_or_else(|| self.invalid())
    }

    /// The next parameter, encoded, if there is one.
    pub(super) fn optional(&mut self) -> Result<Option<&'a [u8]>, Refusal> {
        if self.is_empty() { Ok(None) } else { self.raw().map(Some) }
    }

    /// The next parameter as a share of the request's bytes.
    pub(super) fn bytes(&mut self) -> Result<Bytes, Refusal> {
        let raw = self.raw()?;
        Ok(self.all.slice_ref(raw))
    }

    /// The next parameter, a string.
    pub(super) fn text(&mut self) -> Result<&'a str, Refusal> {
        let raw = self.raw()?;
        Reader::new(raw).text().ok_or_else(|| self.invalid())
    }
}

/// Reads a map of options with plain values; none where it is something else, or where an option is refused.
pub(super) fn each_option<'a>(
    encoded: &'a [u8],
    mut option: impl FnMut(&'a str, Head<'a>) -> Option<()>,
) -> Option<()> {
    let mut reader = Reader::new(encoded);
    let Some(Head::Map(count)) = reader.head() else {
        return None;
    };
    (0..count).try_for_each(|_| {
        let (name, value) = (reader.text()?, reader.head()?);
        option(name, value)
    })
}
