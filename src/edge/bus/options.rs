//! The options at the end of every method's arguments: room for what later versions add.
//! What an option means is its method's.

use std::collections::HashMap;

use zbus::OwnedVariant;

use super::error::{Error, Result};

/// `a{sv}`
pub(super) type Options = HashMap<String, OwnedVariant>;

/// Refuses every option: a caller that sets one counts on its effect.
pub(super) fn none(options: &Options) -> Result<()> {
    options.keys().next().map_or(Ok(()), |name| Err(unknown(name)))
}

/// Refuses every option that a method does not know.
pub(super) fn only(options: &Options, known: &[&str]) -> Result<()> {
    let other = options.keys().find(|name| !known.contains(&name.as_str()));
    other.map_or(Ok(()), |name| Err(unknown(name)))
}

/// The text of the one option that a method knows, if it was given.
pub(super) fn only_text<'o>(options: &'o Options, known: &str) -> Result<Option<&'o str>> {
    only(options, &[known])?;
    text(options, known)
}

/// An option of type `s`.
pub(super) fn text<'o>(options: &'o Options, name: &str) -> Result<Option<&'o str>> {
    let text = options.get(name).map(<&str>::try_from).transpose();
    text.map_err(|_| Error::invalid_args(format!("the option {name} is a string")))
}

/// An option of type `u` that is a uid.
pub(super) fn uid(options: &Options, name: &str) -> Result<Option<u32>> {
    let uid = options.get(name).map(u32::try_from).transpose();
    uid.map_err(|_| Error::invalid_args(format!("the option {name} is of type u")))
}

/// An option of type `b`; false where it was not given.
pub(super) fn flag(options: &Options, name: &str) -> Result<bool> {
    let flag = options.get(name).map(bool::try_from).transpose();
    let flag = flag.map_err(|_| Error::invalid_args(format!("the option {name} is of type b")))?;
    Ok(flag.unwrap_or(false))
}

/// An option of type `t`.
pub(super) fn count(options: &Options, name: &str) -> Result<Option<u64>> {
    let count = options.get(name).map(u64::try_from).transpose();
    count.map_err(|_| Error::invalid_args(format!("the option {name} is of type t")))
}

fn unknown(name: &str) -> Error {
    Error::invalid_args(format!("unknown option: {name}"))
}

#[cfg(test)]
mod tests {
    use zbus::Str;

    use super::*;

    #[test]
    fn an_option_that_is_not_known_is_refused() {
        let options =
            |name: &str| Options::from([(name.to_owned(), Str::from_static("local").into())]);
        assert_eq!(none(&Options::new()), Ok(()));
        assert!(none(&options("scope")).is_err());
        assert_eq!(only_text(&options("scope"), "scope"), Ok(Some("local")));
        assert_eq!(only_text(&Options::new(), "scope"), Ok(None));
        assert!(only_text(&options("scop"), "scope").is_err());
        assert!(only_text(&Options::from([("scope".to_owned(), 7_u32.into())]), "scope").is_err());
    }
}
