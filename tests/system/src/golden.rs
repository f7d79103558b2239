//! What a command says, compared with a file in `golden/`.
//! What is another thing in each run (serials, times, names on the bus), or means nothing (the numbers of
//! tables), is made the same first.
//!
//! `SYSTEM_TESTS_GOLDEN=write make system` writes the files anew; what it has changed, `git diff` shows.

use std::{env, fs, path::Path};

/// Holds a text to the file of that name.
///
/// # Panics
/// If they differ, or if the file cannot be read or written.
#[track_caller]
pub fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    let text = steady(text.trim_end()) + "\n";
    if env::var("SYSTEM_TESTS_GOLDEN").is_ok_and(|mode| mode == "write") {
        fs::write(&path, &text).expect("write the golden file");
        return;
    }
    let golden = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: SYSTEM_TESTS_GOLDEN=write", path.display()));
    assert!(text == golden, "{} says:\n{golden}\nnow it is:\n{text}", path.display());
}

/// The text without what is another thing in each run, or with each version of the tool.
fn steady(text: &str) -> String {
    let is_digit = |c: char| c.is_ascii_digit();
    let text = replace_after(text, ":1.", is_digit, "N");
    let text = replace_after(&text, "Cookie=", is_digit, "N");
    // The daemon has tables of its own; how many, is nobody's business here.
    let text = replace_after(&text, "/table/", is_digit, "N");
    let text = replace_after(&text, "Timestamp=\"", |c| c != '"', "TIME");
    // Debian 13's busctl puts a blank between the branches of a tree and its leaves.
    let text = text.replace("─/", "─ /");
    // It stands in a column, with blanks up to the next one.
    let version = format!("\"{}\"", env!("CARGO_PKG_VERSION"));
    replace_after(&text.replace(&version, "VERSION"), "VERSION", |c| c == ' ', " ")
}

/// Puts `with` in the place of what follows each `before` and is part of a value.
fn replace_after(
    text: &str,
    before: &str,
    is_part: impl Fn(char) -> bool + Copy,
    with: &str,
) -> String {
    let mut pieces = text.split(before);
    let mut replaced = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        replaced.push_str(before);
        replaced.push_str(with);
        replaced.push_str(piece.trim_start_matches(is_part));
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_made_the_same() {
        let first = "Cookie=7  ReplyCookie=12  Timestamp=\"Sat 10:00\"\n  Sender=:1.7";
        let second = "Cookie=8  ReplyCookie=3  Timestamp=\"Sun 9:00\"\n  Sender=:1.23";
        assert_eq!(steady(first), steady(second));
        assert_ne!(steady("Path=/job/1"), steady("Path=/job/2"));
    }
}
