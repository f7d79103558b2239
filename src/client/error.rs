//! What can go wrong between a client and the daemon, one variant per thing a caller may do about it.
//! Leaves exit codes and advice to the command line.

use std::io;
use std::path::{Path, PathBuf};

use cortex_core::api::Malformed;
use cortex_core::wire::OutOfBounds;
use nix::errno::Errno;

/// Why a call has no result. After anything but `Refused` and `OutOfBounds` the connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no daemon: no socket at the path, or nobody behind it.
    #[error("nothing listens on {}", socket.display())]
    NotRunning {
        /// Its path.
        socket: PathBuf,
    },

    /// The file permissions of the socket keep this user out.
    #[error("no permission to connect to {}", socket.display())]
    NoPermission {
        /// Its path.
        socket: PathBuf,
    },

    /// The path is longer than that of any socket.
    #[error("{} has {} bytes, and the path of a socket at most 107", socket.display(), socket.as_os_str().len())]
    PathTooLong {
        /// It.
        socket: PathBuf,
    },

    /// Connecting failed in some other way.
    #[error("connecting to {}", socket.display())]
    Connect {
        /// The path of the socket.
        socket: PathBuf,
        /// In which.
        #[source]
        source: io::Error,
    },

    /// The daemon was silent for as long as the client's timeout. What was asked may still happen.
    #[error("the daemon did not answer in time")]
    Timeout,

    /// The daemon refused; the text is its own, and nothing has changed.
    #[error("{0}")]
    Refused(String),

    /// The request is larger or nested more deeply than the daemon takes; it was not sent.
    #[error(transparent)]
    OutOfBounds(OutOfBounds),

    /// The daemon hung up. What was asked and not answered may still have happened.
    #[error("the daemon closed the connection")]
    Closed,

    /// What came is not what the protocol says.
    #[error("unexpected answer: {0}")]
    Protocol(String),

    /// The connection failed in some other way.
    #[error("talking to the daemon")]
    Io(#[source] io::Error),
}

impl Error {
    pub(super) fn connecting(path: &Path, errno: Errno) -> Self {
        let socket = path.to_path_buf();
        if matches!(errno, Errno::ENOENT | Errno::ECONNREFUSED) {
            Self::NotRunning { socket }
        } else if matches!(errno, Errno::EACCES | Errno::EPERM) {
            Self::NoPermission { socket }
        } else if errno == Errno::ENAMETOOLONG {
            Self::PathTooLong { socket }
        } else if errno == Errno::EAGAIN {
            Self::Timeout
        } else {
            Self::Connect { socket, source: errno.into() }
        }
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol(malformed.to_string())
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if means_closed(&error) {
            Self::Closed
        } else if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            Self::Timeout
        } else if error.kind() == io::ErrorKind::InvalidData {
            Self::Protocol(error.to_string())
        } else {
            Self::Io(error)
        }
    }
}

/// Whether the other side is gone, as opposed to slow or broken.
pub(super) fn means_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}
