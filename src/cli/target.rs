//! A file that a command writes: it appears under its name only when it is complete and on disk.
//! What is written to it is the commands' own.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that is being written. Dropped before it is complete, it leaves what was there as it was.
pub(crate) struct Target {
    pub(crate) file: File,
    /// The file beside the target and the target, if there is anything to rename.
    rename: Option<(PathBuf, PathBuf)>,
}

/// The mode of what is nobody else's to read.
const PRIVATE: u32 = 0o600;

impl Target {
    /// A file that others may read as far as they may read the one that it replaces.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::open_with_mode(path, None)
    }

    /// A file that only its owner may read, from the moment in which it is made.
    pub(crate) fn open_private(path: &Path) -> io::Result<Self> {
        Self::open_with_mode(path, Some(PRIVATE))
    }

    fn open_with_mode(path: &Path, mode: Option<u32>) -> io::Result<Self> {
        let existing = fs::metadata(path).ok();
        if existing.as_ref().is_some_and(|meta| !meta.is_file()) {
            // A device or a pipe is written to, and stays what it is to everybody else: neither
            // replacing it by a file nor closing it to others is ever what was meant.
            return Ok(Self { file: OpenOptions::new().write(true).open(path)?, rename: None });
        }
        // Through a link, the file that it names is replaced, and the link stays.
        let path = if existing.is_some() { fs::canonicalize(path)? } else { path.to_path_buf() };
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let beside = path.with_file_name(format!(
            ".{}.{}.partial",
            name.to_string_lossy(),
            std::process::id()
        ));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        if let Some(mode) = mode {
            options.mode(mode);
        }
        let target = Self { file: options.open(&beside)?, rename: Some((beside, path)) };
        if let (None, Some(meta)) = (mode, existing) {
            // What only its owner may read stays so.
            target.file.set_permissions(meta.permissions())?;
        }
        Ok(target)
    }

    /// Makes the file durable, and then the one that goes by its name.
    pub(crate) fn complete(mut self) -> io::Result<()> {
        let Some((beside, path)) = &self.rename else {
            return Ok(());
        };
        self.file.sync_all()?;
        fs::rename(beside, path)?;
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
            .to_path_buf();
        self.rename = None;
        File::open(directory)?.sync_all()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((beside, _)) = &self.rename {
            // It is in nobody's way if it stays.
            let _ = fs::remove_file(beside);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_is_not_complete_leaves_what_was_there() {
        let dir = tempfile::tempdir().expect("make a directory");
        let path = dir.path().join("users.ndjson");
        fs::write(&path, "old").expect("write");
        let mut target = Target::open(&path).expect("open");
        target.file.write_all(b"new").expect("write");
        drop(target);
        assert_eq!(fs::read_to_string(&path).expect("read"), "old");

        let mut target = Target::open(&path).expect("open");
        target.file.write_all(b"new").expect("write");
        target.complete().expect("complete");
        assert_eq!(fs::read_to_string(&path).expect("read"), "new");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_replaced_file_is_as_private_as_it_was() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("make a directory");
        let path = dir.path().join("users.ndjson");
        fs::write(&path, "old").expect("write");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("make it private");
        Target::open(&path).expect("open").complete().expect("complete");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    }
}
