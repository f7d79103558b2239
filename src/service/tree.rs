//! Results with many fields, put together before they are encoded: what a method says stands in one place.
//! Lists that may be long are written piece by piece instead; see `listing`.

use cortex_core::wire::encode;

/// A value of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tree {
    Nil,
    Bool(bool),
    Number(u64),
    Text(String),
    /// A value that is encoded already.
    Encoded(Vec<u8>),
    List(Vec<Self>),
    Map(Vec<(&'static str, Self)>),
}

impl Tree {
    pub(super) fn map<const N: usize>(fields: [(&'static str, Self); N]) -> Self {
        Self::Map(fields.into())
    }

    pub(super) fn list(items: impl IntoIterator<Item = impl Into<Self>>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nil => encode::nil(out),
            Self::Bool(value) => encode::bool(out, *value),
            Self::Number(value) => encode::uint(out, *value),
            Self::Text(value) => encode::str(out, value),
            Self::Encoded(value) => out.extend_from_slice(value),
            Self::List(items) => {
                encode::array(out, items.len());
                items.iter().for_each(|item| item.write(out));
            }
            Self::Map(fields) => {
                encode::map(out, fields.len());
                for (name, value) in fields {
                    encode::str(out, name);
                    value.write(out);
                }
            }
        }
    }

    pub(super) fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

impl From<bool> for Tree {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Tree {
    fn from(value: u64) -> Self {
        Self::Number(value)
    }
}

impl From<&str> for Tree {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Tree {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl<T: Into<Self>> From<Option<T>> for Tree {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Nil, Into::into)
    }
}
