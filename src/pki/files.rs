//! Files of keys and certificates, written so that each is there whole or not at all.
//! Leaves what is in them to `authority`, and who shall own them to the callers.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::sys::random;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner: for keys, mode 0600.
    Owner,
    /// Everybody: mode 0644.
    Everybody,
}

/// What to do about a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfExists {
    /// Fail with [`io::ErrorKind::AlreadyExists`].
    Keep,
    /// Put the new one in its place.
    Replace,
}

/// Uid and gid.
pub type Owner = (u32, u32);

/// Writes a file: under another name first, made durable, then renamed. No reader ever sees half of it, and a
/// power cut leaves the old one or the new one.
///
/// # Errors
/// Those of the file system; then there is nothing new.
pub fn write(
    path: &Path,
    bytes: &[u8],
    readers: Readers,
    present: IfExists,
    owner: Option<Owner>,
) -> io::Result<()> {
    let unfinished = beside(path)?;
    let placed = fill(&unfinished, bytes, readers, owner).and_then(|()| match present {
        IfExists::Replace => fs::rename(&unfinished, path),
        // A link, unlike a rename, never replaces.
        IfExists::Keep => {
            fs::hard_link(&unfinished, path).and_then(|()| fs::remove_file(&unfinished))
        }
    });
    if placed.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&unfinished);
    }
    placed?;
    sync_directory(path)
}

fn fill(path: &Path, bytes: &[u8], readers: Readers, owner: Option<Owner>) -> io::Result<()> {
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::Everybody => 0o644,
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The process may have a umask under which nobody but it could read anything.
    file.set_permissions(Permissions::from_mode(mode))?;
    if let Some((uid, gid)) = owner {
        fchown(&file, Some(uid), Some(gid))?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a directory that only its owner may enter, with those above it, unless it is there.
///
/// # Errors
/// Those of the file system.
pub fn private_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let unique = u128::from_be_bytes(random::id());
    Ok(path.with_file_name(format!(".{}.{unique:032x}", name.to_string_lossy())))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_owners_alone_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().expect("make a directory");
        let path = dir.path().join("node.key");
        write(&path, b"one", Readers::Owner, IfExists::Keep, None).expect("write");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }

    #[test]
    fn what_is_there_is_kept_unless_it_shall_be_replaced() {
        let dir = tempfile::tempdir().expect("make a directory");
        let path = dir.path().join("ca.crt");
        let put =
            |text: &str, present| write(&path, text.as_bytes(), Readers::Everybody, present, None);
        put("one", IfExists::Keep).expect("write");
        let refused = put("two", IfExists::Keep).expect_err("it is there");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).expect("read"), "one");
        put("two", IfExists::Replace).expect("replace");
        assert_eq!(fs::read_to_string(&path).expect("read"), "two");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }
}
