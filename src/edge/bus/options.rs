//! The options at the end of every method's arguments: room for what later versions add.
//! What an option means is its method's.

use std::collections::HashMap;

use zbus::OwnedVariant;

use super::error::{Error, Result};

/// `a{sv}`
pub(super) type Options = HashMap<String, OwnedVariant>;

/// Refuses every option: whoever sets one counts on what it does.
pub(super) fn none(options: &Options) -> Result<()> {
    options.keys().next().map_or(Ok(()), |name| Err(unknown(name)))
}

/// The text of the one option that a method knows, if it was given.
pub(super) fn only_text<'o>(options: &'o Options, known: &str) -> Result<Option<&'o str>> {
    if let Some(name) = options.keys().find(|name| *name != known) {
        return Err(unknown(name));
    }
    let text = options.get(known).map(<&str>::try_from).transpose();
    text.map_err(|_| Error::invalid_args(format!("the option {known} is a string")))
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
