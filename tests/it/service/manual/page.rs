//! A manual page as its mdoc source (mdoc(7)): read, cut into sections and items, given to mandoc(1).
//! What must stand in it is left to the others.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct Page {
    path: PathBuf,
    source: String,
}

/// The head of a list's item, and what stands under it up to the next item or the end of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Page {
    pub(crate) fn read(name: &str) -> Self {
        Self::at(directory().join(name))
    }

    /// Every page there is.
    pub(crate) fn all() -> Vec<Self> {
        let entries = fs::read_dir(directory()).expect("man/ is there");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths.into_iter().map(Self::at).collect()
    }

    fn at(path: PathBuf) -> Self {
        let source =
            fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { path, source }
    }

    pub(crate) fn name(&self) -> String {
        self.path.file_name().expect("a file").to_string_lossy().into_owned()
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// What mandoc has to say about the page; empty if nothing.
    pub(crate) fn lint(&self) -> String {
        let lint =
            Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&self.path).output();
        let output = match lint {
            Ok(output) => output,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                panic!("mandoc is not installed, the pages cannot be checked: apt install mandoc")
            }
            Err(error) => panic!("mandoc cannot be run: {error}"),
        };
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(output.status.success(), said.is_empty(), "{}: {said}", output.status);
        said
    }

    /// The source of a section, `.Sh TITLE`.
    pub(crate) fn section(&self, title: &str) -> &str {
        let head = format!("\n.Sh {title}\n");
        let start = self.source.find(&head);
        let start = start.unwrap_or_else(|| panic!("{} has no section {title}", self.name()));
        let rest = &self.source[start + head.len()..];
        rest.find("\n.Sh ").map_or(rest, |end| &rest[..=end])
    }

    /// The literal displays of a section, such as examples.
    pub(crate) fn displays(&self, section: &str) -> Vec<String> {
        let displays = self.section(section).split("\n.Bd -literal -offset indent\n").skip(1);
        displays
            .map(|display| display.split_once("\n.Ed").expect("it ends").0)
            .map(|display| display.replace("\\e", "\\"))
            .collect()
    }
}

/// The items of a piece of source whose head begins so.
pub(crate) fn items(source: &str, beginning: &str) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let mut inside = false;
    for line in source.lines() {
        if line.starts_with(beginning) {
            items.push(Item { head: line.to_owned(), body: String::new() });
            inside = true;
        } else if line.starts_with(".Ss ") {
            inside = false;
        } else if let (true, Some(item)) = (inside, items.last_mut()) {
            item.body.push_str(line);
            item.body.push('\n');
        }
    }
    items
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("man")
}
