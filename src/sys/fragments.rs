//! Configuration fragments: a configuration file and the drop-ins beside it, merged into one table, with the
//! file and line that each key comes from.
//! Leaves what the keys mean to its callers: the daemon for all, clients for a path or two.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use toml::{
    Table,
    de::{DeTable, DeValue},
};

/// Where a key was set last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file or fragment.
    pub file: PathBuf,
    /// The line of the key, from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// By key, dotted (`limits.connections`): where it was set. Sections have no entry of their own.
pub type Origins = BTreeMap<String, Origin>;

/// A configuration file and its fragments.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// What they say together.
    pub table: Table,
    /// Which of them says it.
    pub origins: Origins,
}

/// Reads a file, and after it the fragments in the directory beside it, `FILE.d/*.toml`, in the order
/// of their names: packages and tools add settings without editing the administrator's file. A later
/// one wins, key by key. The text of each must pass `check`.
///
/// # Errors
/// A text that names the file.
pub fn read(path: &Path, check: impl Fn(&str) -> Result<(), toml::de::Error>) -> Result<Merged> {
    let mut merged = Merged::default();
    for file in [path.to_owned()].into_iter().chain(beside(path)?) {
        let text = fs::read_to_string(&file)
            .with_context(|| format!("cannot read the configuration {}", file.display()))?;
        // Editors of other systems put one at the front; it means nothing.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let table = check(text)
            .and_then(|()| {
                note_origins(&mut merged.origins, &file, text)?;
                text.parse::<Table>()
            })
            .with_context(|| format!("the configuration {} is not valid", file.display()))?;
        merge(&mut merged.table, table);
    }
    Ok(merged)
}

/// Notes where each key of a file stands, in the place of where earlier files have it.
fn note_origins(origins: &mut Origins, file: &Path, text: &str) -> Result<(), toml::de::Error> {
    let line_of = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    let document = DeTable::parse(text)?;
    let mut waiting = vec![(String::new(), document.get_ref())];
    while let Some((prefix, table)) = waiting.pop() {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            if let DeValue::Table(inner) = value.get_ref() {
                waiting.push((format!("{name}."), inner));
                continue;
            }
            let line = line_of(key.span().start);
            origins.insert(name, Origin { file: file.to_owned(), line });
        }
    }
    Ok(())
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
