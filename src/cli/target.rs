//! A file that a command writes: it appears under its name only when it is complete and on disk.
//! What is written to it is the commands' own.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// A file that is being written. Dropped before it is complete, it leaves what was there as it was.
pub(crate) struct Target {
    pub(crate) file: File,
    /// The file beside the target and the target, if there is anything to rename.
    rename: Option<(PathBuf, PathBuf)>,
    is_output: bool,
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
        match own_descriptor(path) {
            Some(1) => return Self::in_place(io::stdout().as_fd().try_clone_to_owned()?.into()),
            Some(2) => return Self::in_place(io::stderr().as_fd().try_clone_to_owned()?.into()),
            Some(number) if fs::metadata(path)?.is_file() => {
                return Err(io::Error::other(format!(
                    "it is descriptor {number}, whose file would be replaced; leave the option out and use >&{number}"
                )));
            }
            Some(_) | None => {}
        }
        refuse_planted(path)?;
        // Opened as the shell's > would, so that the kernel judges whose files and links may be written through.
        let existing = match OpenOptions::new().write(true).open(path) {
            Ok(file) => Some((file.metadata()?, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match existing {
            Some((meta, file)) if !meta.is_file() => {
                // A device or a pipe is written to, and stays what it is to everybody else: neither
                // replacing it by a file nor closing it to others is ever what was meant.
                Self::in_place(file)
            }
            Some((meta, _)) if is_standard_output(&meta) => {
                // Under another name: a file that takes its place would be without what others print.
                Self::in_place(io::stdout().as_fd().try_clone_to_owned()?.into())
            }
            // Through a link, the file that it names is replaced, and the link stays.
            Some((meta, _)) => Self::beside(resolved(path, &meta)?, Some(&meta), mode),
            None => Self::beside(path.to_path_buf(), None, mode),
        }
    }

    fn in_place(file: File) -> io::Result<Self> {
        let is_output = is_standard_output(&file.metadata()?);
        Ok(Self { file, rename: None, is_output })
    }

    /// A file beside `path`, which takes the place of the one there, if any, as what it is.
    fn beside(path: PathBuf, existing: Option<&Metadata>, mode: Option<u32>) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let beside = path.with_file_name(partial_name(name));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        if mode.is_some() || existing.is_some() {
            // What is in it is nobody else's to read before it has its owner and mode.
            options.mode(PRIVATE);
        }
        let file = options.open(&beside)?;
        let target = Self { file, rename: Some((beside, path)), is_output: false };
        if let (None, Some(meta)) = (mode, existing) {
            target.belong_as(meta)?;
        }
        Ok(target)
    }

    /// Gives the file the owner and the mode of another.
    fn belong_as(&self, other: &Metadata) -> io::Result<()> {
        let own = self.file.metadata()?;
        if (own.uid(), own.gid()) != (other.uid(), other.gid()) {
            fchown(&self.file, Some(other.uid()), Some(other.gid())).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!(
                        "it belongs to uid {}, gid {}, and would be yours once replaced; write to another file, or through the shell with >",
                        other.uid(),
                        other.gid()
                    ),
                )
            })?;
        }
        // After the owner, whose change clears bits of the mode.
        self.file.set_permissions(other.permissions())
    }

    /// Whether this is standard output, where nothing else is to be printed then.
    pub(crate) fn is_output(&self) -> bool {
        self.is_output
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

/// A hidden name for what is not complete, no longer than a name may be.
fn partial_name(of: &OsStr) -> OsString {
    /// Bytes of a file's name on Linux.
    const LONGEST: usize = 255;
    let suffix = format!(".{}.partial", std::process::id());
    let room = LONGEST - 1 - suffix.len();
    let kept = &of.as_bytes()[..of.len().min(room)];
    OsString::from_vec([b".", kept, suffix.as_bytes()].concat())
}

/// Links that the kernel follows in one path.
const MOST_LINKS: usize = 40;

/// The parent directory of a path, without links.
fn parent_of(path: &Path) -> io::Result<PathBuf> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::canonicalize(parent.unwrap_or(Path::new(".")))
}

/// Refuses what another user has put in the way, in a directory where everybody may: a link would have the file that
/// it names replaced, and a file would be handed to its owner. The kernel refuses both to the shell's `>` where
/// `fs.protected_symlinks` and `fs.protected_regular` are set, but only to who would make the file.
fn refuse_planted(path: &Path) -> io::Result<()> {
    const STICKY: u32 = 0o1000;
    const EVERYBODY_WRITES: u32 = 0o002;
    let own = nix::unistd::geteuid().as_raw();
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        // What is not there is reported when it is opened.
        let (Ok(meta), Ok(parent)) = (fs::symlink_metadata(&path), parent_of(&path)) else {
            return Ok(());
        };
        let directory = fs::metadata(&parent)?;
        let is_open = directory.mode() & STICKY != 0 && directory.mode() & EVERYBODY_WRITES != 0;
        if is_open && ![own, directory.uid()].contains(&meta.uid()) {
            let what = if meta.is_symlink() { "a link" } else { "a file" };
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "{} is {what} of uid {}, in a directory where everybody may put one; remove it, or name a file elsewhere",
                    path.display(),
                    meta.uid()
                ),
            ));
        }
        if !meta.is_symlink() {
            return Ok(());
        }
        path = parent.join(fs::read_link(&path)?);
    }
    Ok(())
}

/// The path without links of a file that was opened by one with links.
fn resolved(path: &Path, opened: &Metadata) -> io::Result<PathBuf> {
    let resolved = fs::canonicalize(path)?;
    let there = fs::symlink_metadata(&resolved)?;
    if (there.dev(), there.ino()) == (opened.dev(), opened.ino()) {
        Ok(resolved)
    } else {
        Err(io::Error::other("another file was put in its place meanwhile"))
    }
}

/// The descriptor of this process that a path such as /dev/stdout, /dev/fd/3 or /proc/self/fd/3 leads to. Opening
/// such a path again would begin at the start of the file, and replacing it would take the file away from those
/// who write to the descriptor too.
fn own_descriptor(path: &Path) -> Option<u32> {
    let own = [PathBuf::from(format!("/proc/{}/fd", std::process::id())), "/proc/self/fd".into()];
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        let parent = parent_of(&path).ok()?;
        if own.contains(&parent) {
            return path.file_name()?.to_str()?.parse().ok();
        }
        path = parent.join(fs::read_link(&path).ok()?);
    }
    None
}

fn is_standard_output(meta: &Metadata) -> bool {
    let output = nix::sys::stat::fstat(io::stdout());
    meta.is_file()
        && output.is_ok_and(|output| (output.st_dev, output.st_ino) == (meta.dev(), meta.ino()))
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
    fn a_replaced_file_keeps_its_owner_and_mode() {
        use std::os::unix::fs::{PermissionsExt, chown};
        if !nix::unistd::geteuid().is_root() {
            return; // nobody else may give files away
        }
        let dir = tempfile::tempdir().expect("make a directory");
        let path = dir.path().join("users.ndjson");
        fs::write(&path, "old").expect("write");
        chown(&path, Some(1234), Some(2345)).expect("give it away");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("a mode");
        Target::open(&path).expect("open").complete().expect("complete");
        let meta = fs::metadata(&path).expect("it is there");
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (1234, 2345, 0o640));
    }

    #[test]
    fn what_another_user_has_put_in_the_way_is_not_written_through() {
        use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
        if !nix::unistd::geteuid().is_root() {
            return; // nobody else may give files away
        }
        let dir = tempfile::tempdir().expect("make a directory");
        let (open, shut) = (dir.path().join("open"), dir.path().join("shut"));
        for (dir, mode) in [(&open, 0o1777), (&shut, 0o755)] {
            fs::create_dir(dir).expect("make a directory");
            fs::set_permissions(dir, PermissionsExt::from_mode(mode)).expect("a mode");
        }
        let precious = dir.path().join("precious");
        fs::write(&precious, "old").expect("write");
        let refused = |path: &Path| {
            let error = Target::open(path).map(|_| ()).expect_err("it is another's");
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
            let private = Target::open_private(path).map(|_| ()).expect_err("it is another's");
            assert_eq!(private.kind(), io::ErrorKind::PermissionDenied, "{private}");
            assert_eq!(fs::read_to_string(&precious).expect("read"), "old");
            error.to_string()
        };
        let planted = |name: &str, to: &Path| {
            let link = open.join(name);
            symlink(to, &link).expect("a link");
            lchown(&link, Some(1234), Some(1234)).expect("give it away");
            link
        };
        let link = planted("link", &precious);
        assert!(refused(&link).contains("is a link of uid 1234"));
        refused(&planted("to-nothing", &dir.path().join("absent")));
        let own = open.join("own");
        symlink(&link, &own).expect("a link");
        refused(&own);
        let file = open.join("file");
        fs::write(&file, "old").expect("write");
        chown(&file, Some(1234), Some(1234)).expect("give it away");
        assert!(refused(&file).contains("is a file of uid 1234"));

        let elsewhere = shut.join("link");
        symlink(&precious, &elsewhere).expect("a link");
        lchown(&elsewhere, Some(1234), Some(1234)).expect("give it away");
        Target::open(&elsewhere).expect("nobody could plant it").complete().expect("complete");
        assert_eq!(fs::read_to_string(&precious).expect("read"), "");
        let meta = fs::metadata(&precious).expect("it is there");
        assert!(resolved(&file, &meta).is_err(), "another file");
        assert_eq!(resolved(&elsewhere, &meta).expect("the same"), precious);
    }

    #[test]
    fn a_path_that_leads_to_a_descriptor_is_that_descriptor() {
        for (path, number) in [
            ("/dev/stdout", Some(1)),
            ("/dev/fd/1", Some(1)),
            ("/proc/self/fd/1", Some(1)),
            ("/dev/stderr", Some(2)),
            ("/dev/null", None),
            ("/tmp", None),
            ("1", None),
        ] {
            assert_eq!(own_descriptor(Path::new(path)), number, "{path}");
        }
    }

    #[test]
    fn the_name_of_what_is_not_complete_is_no_longer_than_a_name_may_be() {
        let longest = OsString::from("x".repeat(255));
        assert!(partial_name(&longest).len() <= 255);
        assert_eq!(partial_name(OsStr::new("a")).as_bytes()[..2], *b".a");
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
