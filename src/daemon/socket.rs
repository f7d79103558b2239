//! The socket that clients connect to: taken from systemd, or bound where the settings say.
//! Accepting on it is the edge's.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::fd::AsRawFd,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener as StdUnixListener,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use tokio::net::{UnixListener, UnixStream};

/// Everybody may connect: who they are, the kernel says.
const MODE: u32 = 0o666;

/// Bytes of a path that a Unix socket can be bound to, by which clients reach it: the kernel keeps 108, and ends
/// them with a NUL.
const LONGEST_PATH: usize = 107;

/// A listening socket.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of a socket that we bound and will remove; none for systemd's.
    bound: Option<(u64, u64)>,
}

impl Socket {
    /// Takes the socket that systemd has passed, or binds one at `path`, in the place of one that nobody serves.
    ///
    /// # Errors
    /// If somebody serves it already, or it cannot be bound.
    pub(super) async fn open(path: &Path, passed: Option<StdUnixListener>) -> Result<Self> {
        if let Some(listener) = passed {
            let address = listener.local_addr()?;
            let path = address.as_pathname().unwrap_or(path).to_owned();
            let listener = UnixListener::from_std(listener)?;
            return Ok(Self { listener, path, bound: None });
        }
        refuse_if_served(path).await?;
        let listener =
            bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        let meta = fs::symlink_metadata(path)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(Self { listener, path: path.to_owned(), bound: Some((meta.dev(), meta.ino())) })
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Stops listening.
    pub(super) fn close(self) {
        drop(self);
    }
}

impl Drop for Socket {
    /// Removes the socket if it is still the one that we bound; also where the start fails later on.
    fn drop(&mut self) {
        let still_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| Some((meta.dev(), meta.ino())) == self.bound);
        if still_ours {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

/// Refuses a path where somebody listens, or where something else is.
pub(super) async fn refuse_if_served(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            bail!(
                "{} is there and is no socket; move it away or choose another --socket",
                path.display()
            )
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot look at {}", path.display()));
        }
    }
    match UnixStream::connect(path).await {
        Ok(_) => bail!("another daemon already listens on {}", path.display()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()), // a stale one
        Err(error) => {
            Err(error).with_context(|| format!("cannot tell whether {} is in use", path.display()))
        }
    }
}

/// Binds under a temporary name and renames: a client that finds the socket finds it with its mode, and
/// a stale one is replaced in one step.
fn bind(path: &Path) -> Result<StdUnixListener> {
    let length = path.as_os_str().len();
    if length > LONGEST_PATH {
        bail!(
            "its path has {length} bytes, and that of a socket at most {LONGEST_PATH}; choose another --socket"
        );
    }
    if let Some(dir) = path.parent() {
        make_directory(dir)?;
    }
    let directory = File::open(
        path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")),
    )?;
    let temporary = temporary_name(path, &directory);
    let _absent = fs::remove_file(&temporary);
    let listener = StdUnixListener::bind(&temporary)?;
    let put_in_place = || -> io::Result<()> {
        fs::set_permissions(&temporary, Permissions::from_mode(MODE))?;
        fs::rename(&temporary, path)
    };
    if let Err(error) = put_in_place() {
        let _gone = fs::remove_file(&temporary);
        return Err(error.into());
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A name beside `path` for a socket, no longer than one may be. Where the directory leaves no room, the way to it
/// through its descriptor is short.
fn temporary_name(path: &Path, directory: &File) -> PathBuf {
    let pid = std::process::id();
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{pid}"));
    if beside.len() <= LONGEST_PATH {
        return PathBuf::from(beside);
    }
    PathBuf::from(format!("/proc/self/fd/{}/.cortex.{pid}", directory.as_raw_fd()))
}

/// Makes the socket's directory if it is absent: open to all, since the socket is. One that is
/// there must not belong to another user, who could then put a socket of their own in its place,
/// whatever its mode: where it is sticky, its owner is the one who may remove all the same.
fn make_directory(dir: &Path) -> Result<()> {
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
    nix::sys::stat::umask(old);
    made.with_context(|| format!("cannot make the directory {}", dir.display()))?;
    let owner = fs::metadata(dir)?.uid();
    let own = nix::unistd::geteuid().as_raw();
    if owner != own && owner != 0 {
        bail!(
            "the directory {} belongs to uid {owner}, who could put another socket there; choose another --socket",
            dir.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_bound_up_to_the_last_byte_that_the_kernel_takes() {
        let directory = tempfile::tempdir().expect("a directory");
        for length in [20 + directory.path().as_os_str().len(), 100, 104, 105, 106, 107] {
            let name = "y".repeat(length - directory.path().as_os_str().len() - 1);
            let path = directory.path().join(name);
            assert_eq!(path.as_os_str().len(), length);
            let _listener = bind(&path).expect("it is bound");
            std::os::unix::net::UnixStream::connect(&path).expect("clients reach it");
            let mode = fs::metadata(&path).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, MODE, "{length}");
        }
        let left = fs::read_dir(directory.path()).expect("a list").count();
        assert_eq!(left, 6, "nothing else is left");
        let too_long =
            directory.path().join("y".repeat(108 - directory.path().as_os_str().len() - 1));
        let error = bind(&too_long).expect_err("too long").to_string();
        assert!(error.contains("108 bytes") && error.contains("107"), "{error}");
    }

    /// The longest directory leaves room for a name of one byte.
    #[test]
    fn a_name_of_one_byte_in_a_long_directory_is_bound() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("d".repeat(105 - root.path().as_os_str().len() - 1));
        fs::create_dir(&directory).expect("a directory");
        let path = directory.join("s");
        assert_eq!(path.as_os_str().len(), LONGEST_PATH);
        let _listener = bind(&path).expect("it is bound");
        std::os::unix::net::UnixStream::connect(&path).expect("clients reach it");
    }
}
