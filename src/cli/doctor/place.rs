//! What stat(2) answers for a path, as a value that a test can make up.
//! Leaves to the areas what it should be.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Bits of a mode that permissions are made of.
const PERMISSIONS: u32 = 0o7777;

/// Write bits of group and others.
pub(super) const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A path, looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathState {
    Absent,
    /// This user may not look.
    Hidden,
    /// Looking failed in some other way.
    Failed(String),
    Exists(Meta),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) kind: Kind,
    pub(super) uid: u32,
    pub(super) mode: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    Socket,
    Other,
}

impl PathState {
    pub(super) fn look(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(meta) => Self::Exists(Meta {
                kind: kind(meta.file_type()),
                uid: meta.uid(),
                mode: meta.mode() & PERMISSIONS,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Absent,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Self::Hidden,
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

fn kind(of: fs::FileType) -> Kind {
    if of.is_dir() {
        Kind::Directory
    } else if of.is_file() {
        Kind::File
    } else if of.is_socket() {
        Kind::Socket
    } else {
        Kind::Other
    }
}

/// A user for people to read: by name where there is one.
pub(super) fn user(uid: u32) -> String {
    name(uid).unwrap_or_else(|| format!("uid {uid}"))
}

/// A user as chown(1) takes it.
pub(super) fn owner(uid: u32) -> String {
    name(uid).unwrap_or_else(|| uid.to_string())
}

fn name(uid: u32) -> Option<String> {
    nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name)
}
