//! A configuration file together with the fragments beside it, as one table.
//! Leaves what the keys mean to whoever asks for them: the daemon for all, clients for a path or two.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use toml::Table;

/// Reads a file, and after it the fragments in the directory beside it, `FILE.d/*.toml`, in the order
/// of their names: packages and tools add settings without editing the administrator's file. A later
/// one wins, key by key. The text of each must pass `check`.
///
/// # Errors
/// A text that names the file.
pub fn read(path: &Path, check: impl Fn(&str) -> Result<(), toml::de::Error>) -> Result<Table> {
    let read_one = |path: &Path| {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        let valid = || check(&text).and_then(|()| text.parse::<Table>());
        valid().with_context(|| format!("the configuration {} is not valid", path.display()))
    };
    let mut whole = read_one(path)?;
    for fragment in beside(path)? {
        merge(&mut whole, read_one(&fragment)?);
    }
    Ok(whole)
}

/// The fragments that belong to a file. Hidden ones are left out: editors keep theirs so.
fn beside(path: &Path) -> Result<Vec<PathBuf>> {
    let mut dir = path.as_os_str().to_owned();
    dir.push(".d");
    let dir = PathBuf::from(dir);
    let failed = || format!("cannot list the configuration {}", dir.display());
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.with_context(failed)?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(b".toml") && !bytes.starts_with(b".") {
            found.push(dir.join(name));
        }
    }
    found.sort();
    Ok(found)
}

/// Puts what `over` says over `under`. Sections are merged, everything else is replaced.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}
