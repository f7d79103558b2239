//! One parameter of a request: how it is read and written, and what it is where the list ends before it.
//! Which parameters a method takes is each request's, which is declared by `request!`, and its options by `options!`.

use serde::{Deserialize, Deserializer, Serialize};

use crate::wire::{Head, Reader, encode};

/// A parameter that is written.
pub trait WriteParam {
    /// True for what need not be written where nothing comes after it.
    fn is_absent(&self) -> bool {
        false
    }

    /// Appends it.
    fn write(&self, out: &mut Vec<u8>);
}

/// A parameter that is read.
pub trait Param<'a>: WriteParam + Sized {
    /// What it is where it was left out; none where it must be there.
    #[must_use]
    fn absent() -> Option<Self> {
        None
    }

    /// Reads it from its encoding; none where that is something else.
    fn read(encoded: &'a [u8]) -> Option<Self>;
}

/// The map of options at the end of a request's parameters: all of them may be left out.
pub trait Options: Serialize + Default + PartialEq {}

/// One MessagePack value as it came, or as it is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a>(pub &'a [u8]);

impl WriteParam for Raw<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0);
    }
}

impl<'a> Param<'a> for Raw<'a> {
    fn read(encoded: &'a [u8]) -> Option<Self> {
        Some(Self(encoded))
    }
}

impl WriteParam for &str {
    fn write(&self, out: &mut Vec<u8>) {
        encode::str(out, self);
    }
}

impl<'a> Param<'a> for &'a str {
    fn read(encoded: &'a [u8]) -> Option<Self> {
        Reader::new(encoded).text()
    }
}

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bin<'a>(pub &'a [u8]);

impl WriteParam for Bin<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        encode::bin(out, self.0);
    }
}

impl<'a> Param<'a> for Bin<'a> {
    fn read(encoded: &'a [u8]) -> Option<Self> {
        let bytes = Reader::new(encoded).bin()?;
        Some(Self(bytes))
    }
}

/// Names that are separated by commas, or a list of names: a scope, or permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextOrList<'a> {
    /// `home,office`
    Text(&'a str),
    /// `["home", "office"]`
    List(Vec<&'a str>),
    /// What is read where the text is no UTF-8, or something in the list is no text.
    Invalid,
}

impl WriteParam for TextOrList<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => encode::str(out, text),
            Self::List(words) => encode::strings(out, words.iter().copied()),
            Self::Invalid => encode::array(out, 0),
        }
    }
}

impl<'a> Param<'a> for TextOrList<'a> {
    fn read(encoded: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(encoded);
        let head = reader.head()?;
        if let Head::Str(text) = head {
            return Some(std::str::from_utf8(text).map_or(Self::Invalid, Self::Text));
        }
        let Head::Array(count) = head else {
            return None;
        };
        let words: Option<Vec<_>> = (0..count).map(|_| reader.text()).collect();
        Some(words.map_or(Self::Invalid, Self::List))
    }
}

/// Names of attributes. What is none where they are read is no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes<'a>(pub Vec<Option<&'a str>>);

impl<'a> FromIterator<&'a str> for Attributes<'a> {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        Self(names.into_iter().map(Some).collect())
    }
}

impl WriteParam for Attributes<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        encode::array(out, self.0.len());
        self.0.iter().for_each(|name| name.write(out));
    }
}

impl<'a> Param<'a> for Attributes<'a> {
    fn read(encoded: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(encoded);
        let count = reader.array().filter(|count| *count > 0)?;
        let name = |_| Some(Reader::new(reader.raw()?).text());
        (0..count).map(name).collect::<Option<_>>().map(Self)
    }
}

impl WriteParam for i64 {
    fn write(&self, out: &mut Vec<u8>) {
        encode::int(out, *self);
    }
}

impl<'a> Param<'a> for i64 {
    fn read(encoded: &'a [u8]) -> Option<Self> {
        let number = Reader::new(encoded).int()?;
        Self::try_from(number).ok()
    }
}

impl WriteParam for u32 {
    fn write(&self, out: &mut Vec<u8>) {
        encode::uint(out, (*self).into());
    }
}

impl<'a> Param<'a> for u32 {
    fn read(encoded: &'a [u8]) -> Option<Self> {
        i64::read(encoded).and_then(|number| number.try_into().ok())
    }
}

impl<T: WriteParam> WriteParam for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.write(out),
            None => encode::nil(out),
        }
    }
}

/// Nil is as good as nothing: only so can what comes after it be given alone.
impl<'a, T: Param<'a>> Param<'a> for Option<T> {
    fn absent() -> Option<Self> {
        Some(None)
    }

    fn read(encoded: &'a [u8]) -> Option<Self> {
        if Reader::new(encoded).head()? == Head::Nil {
            return Some(None);
        }
        T::read(encoded).map(Some)
    }
}

impl<T: Options> WriteParam for T {
    fn is_absent(&self) -> bool {
        *self == Self::default()
    }

    fn write(&self, out: &mut Vec<u8>) {
        super::write_named(self, out);
    }
}

impl<'a, T: Options + Deserialize<'a>> Param<'a> for T {
    fn absent() -> Option<Self> {
        Some(Self::default())
    }

    fn read(encoded: &'a [u8]) -> Option<Self> {
        // serde would take a list of the values for a map without names.
        Reader::new(encoded).map()?;
        rmp_serde::from_slice(encoded).ok()
    }
}

/// Nil says of an option what leaving it out says.
pub(super) fn nil_is_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The parameters of a request, read from front to back.
pub(super) struct List<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> List<'a> {
    pub(super) fn read(params: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(params);
        let left = reader.array()?;
        Some(Self { reader, left })
    }

    pub(super) fn next<T: Param<'a>>(&mut self) -> Option<T> {
        let Some(left) = self.left.checked_sub(1) else {
            return T::absent();
        };
        self.left = left;
        T::read(self.reader.raw()?)
    }

    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }
}

/// Appends the parameters up to the last that says something.
pub(super) fn write_list(params: &[&dyn WriteParam], out: &mut Vec<u8>) {
    let count = params.iter().rposition(|param| !param.is_absent()).map_or(0, |last| last + 1);
    encode::array(out, count);
    params[..count].iter().for_each(|param| param.write(out));
}

/// Declares a request: its parameters in their order.
macro_rules! request {
    ($(#[$meta:meta])* $name:ident $(<$life:lifetime>)? = $method:ident -> $response:ty {
        $($(#[$about:meta])* $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name $(<$life>)? {
            $($(#[$about])* pub $field: $type,)*
        }

        $crate::api::param::implement_request!($name $(<$life>)? = $method -> $response { $($field)* });
    };
}

macro_rules! implement_request {
    ($name:ident = $method:ident -> $response:ty { $($field:ident)* }) => {
        impl<'a> $crate::api::Request<'a> for $name {
            $crate::api::param::request_body!('a $method -> $response { $($field)* });
        }
    };
    ($name:ident<$life:lifetime> = $method:ident -> $response:ty { $($field:ident)* }) => {
        impl<$life> $crate::api::Request<$life> for $name<$life> {
            $crate::api::param::request_body!($life $method -> $response { $($field)* });
        }
    };
}

macro_rules! request_body {
    ($life:lifetime $method:ident -> $response:ty { $($field:ident)* }) => {
        const METHOD: $crate::wire::Method = $crate::wire::Method::$method;
        type Response = $response;

        fn read(params: &$life [u8]) -> Option<Self> {
            #[allow(unused_mut, reason = "there may be no parameters")]
            let mut list = $crate::api::param::List::read(params)?;
            let request = Self { $($field: list.next()?,)* };
            list.is_over().then_some(request)
        }

        fn write(&self, out: &mut Vec<u8>) {
            $crate::api::param::write_list(&[$(&self.$field),*], out);
        }
    };
}

/// Declares a map of options.
macro_rules! options {
    ($(#[$meta:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[$about])*
                #[serde(
                    skip_serializing_if = "crate::api::param::is_default",
                    deserialize_with = "crate::api::param::nil_is_default"
                )]
                pub $field: $type,
            )*
        }

        impl $crate::api::param::Options for $name {}
    };
}

pub(super) use {implement_request, options, request, request_body};
