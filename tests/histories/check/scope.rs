//! Scope: the files of a node that was never in a table's scope hold nothing of the table's rows.
//! Each table's values carry a mark of their own, which is looked for byte by byte.

use std::{fs, io, path::Path};

/// The files below a directory that hold a mark, and how often.
pub(crate) fn find_mark(directory: &Path, mark: &str) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(find_mark(&path, mark)?);
            continue;
        }
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            // Temporary files go away while it is looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let hits = String::from_utf8_lossy(&bytes).matches(mark).count();
        if hits > 0 {
            found.push(format!("{} holds {mark} {hits} times", path.display()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_in_any_file_is_found() {
        let directory = tempfile::tempdir().expect("make a directory");
        fs::create_dir(directory.path().join("deep")).expect("make another");
        fs::write(directory.path().join("deep/file"), b"\x00mark.1.\xff\x00mark.1.")
            .expect("write");
        let found = find_mark(directory.path(), "mark.1.").expect("readable");
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("holds mark.1. 2 times"), "{found:?}");
        assert_eq!(find_mark(directory.path(), "mark.2.").expect("readable"), Vec::<String>::new());
    }
}
