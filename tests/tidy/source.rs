//! The files of the repository, and what a Rust file names: every path in it, with its line.
//! Leaves what may be named where to the rules.

use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A text file, by its path from the repository's top.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "rs")
    }

    pub(crate) fn is_below(&self, directory: &str) -> bool {
        self.path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Every path of identifiers in the file, a single identifier too, with `{…}` after `::` multiplied out.
    /// Comments and literals name nothing.
    pub(crate) fn names(&self) -> Vec<Name> {
        let tokens: TokenStream =
            self.text.parse().unwrap_or_else(|error| panic!("{} is no Rust: {error}", self.path));
        let mut names = Vec::new();
        collect(tokens, &[], &mut names);
        names
    }
}

/// A path such as `std::time::Instant`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

impl Name {
    pub(crate) fn begins_with(&self, path: &str) -> bool {
        let mut segments = self.segments.iter();
        path.split("::").all(|wanted| segments.next().is_some_and(|segment| segment == wanted))
    }
}

fn collect(tokens: TokenStream, prefix: &[String], names: &mut Vec<Name>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => collect(group.stream(), &[], names),
            // In a group the prefix belongs to what was imported, not to the name that it is given.
            TokenTree::Ident(ident) if ident == "as" && !prefix.is_empty() => {
                tokens.next();
            }
            TokenTree::Ident(ident) => {
                let line = ident.span().start().line;
                let mut segments = prefix.to_vec();
                segments.push(ident.to_string());
                let mut multiplied = false;
                while followed_by_colons(&mut tokens) {
                    match tokens.peek() {
                        Some(TokenTree::Ident(next)) => segments.push(next.to_string()),
                        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                            collect(group.stream(), &segments, names);
                            multiplied = true;
                        }
                        _ => break,
                    }
                    tokens.next();
                }
                if !multiplied {
                    names.push(Name { segments, line });
                }
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// Takes `::`, if that is what comes next.
fn followed_by_colons(tokens: &mut std::iter::Peekable<impl Iterator<Item = TokenTree>>) -> bool {
    let is_colon = |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ':');
    let is_joint = |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.spacing() == proc_macro2::Spacing::Joint);
    if !tokens.peek().is_some_and(|token| is_colon(token) && is_joint(token)) {
        return false;
    }
    tokens.next();
    tokens.next_if(is_colon).is_some()
}

/// All text files below `top`, except what `.gitignore` names by its full path.
pub(crate) fn files(top: &Path) -> Vec<File> {
    let ignored = ignored(top);
    let mut files = Vec::new();
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(top.join(&directory)).expect("list a directory") {
            let entry = entry.expect("list a directory");
            let name = entry.file_name().into_string().expect("names are UTF-8");
            let path =
                if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
            let kind = entry.file_type().expect("it is there");
            if name == ".git" || ignored.contains(&path) {
                continue;
            }
            if kind.is_dir() {
                directories.push(path);
            } else if let Ok(text) = fs::read_to_string(entry.path()) {
                files.push(File { path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// The paths that `.gitignore` names from the top: what is built.
pub(crate) fn ignored(top: &Path) -> Vec<String> {
    let text = fs::read_to_string(top.join(".gitignore")).expect("read .gitignore");
    text.lines().filter_map(|line| line.strip_prefix('/')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(String, usize)> {
        let file = File { path: "made_up.rs".into(), text: text.into() };
        file.names().into_iter().map(|name| (name.segments.join("::"), name.line)).collect()
    }

    #[test]
    fn paths_are_found_wherever_they_stand_and_groups_are_multiplied_out() {
        let text =
            "use a::{b, c::{self, d as e}};\n// f::g\nfn h() { \"i::j\"; k!(l::m::<n::O>()); }";
        let found = names(text);
        for expected in [("a::b", 1), ("a::c::self", 1), ("a::c::d", 1), ("l::m", 3), ("n::O", 3)] {
            assert!(
                found.contains(&(expected.0.to_owned(), expected.1)),
                "{expected:?}: {found:?}"
            );
        }
        assert!(
            !found.iter().any(|(name, _)| name.contains('f') && name.contains('g')),
            "a comment"
        );
        assert!(!found.iter().any(|(name, _)| name.starts_with('i')), "a literal");
        assert!(!found.iter().any(|(name, _)| name.contains("::e")), "a name of this file's");
    }
}
