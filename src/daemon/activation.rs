//! The sockets that systemd hands over, by name (sd_listen_fds_with_names(3)).
//! Binding one ourselves, where none is handed over, is `socket`'s.

use std::os::{
    fd::{FromRawFd, OwnedFd},
    unix::net::UnixListener,
};

use anyhow::{Context as _, Result, ensure};

/// The name of the client socket: `FileDescriptorName=` in its socket unit.
const CLIENT_SOCKET: &str = "rpc";

/// The listening socket for clients, if systemd has passed one. By name, never by position: the
/// order differs between activations. Descriptors of other names are closed.
///
/// # Errors
/// If what was passed is no listening Unix socket, or several carry the name.
pub(super) fn client_socket() -> Result<Option<UnixListener>> {
    const TAKING: &str = "cannot take the sockets from systemd";
    // Names without sockets would be an error below. They are there where the variables were meant
    // for a parent of this process and inherited from it.
    if sd_notify::listen_fds().context(TAKING)?.len() == 0 {
        return Ok(None);
    }
    let passed = sd_notify::listen_fds_with_names().context(TAKING)?;
    let mut found = Vec::new();
    for (fd, name) in passed {
        #[expect(
            unsafe_code,
            reason = "systemd passes descriptors as bare numbers; LISTEN_PID was \
            checked to be ours, each number is adopted once, here, before anything else opens one"
        )]
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if name == CLIENT_SOCKET {
            found.push(fd);
        } else {
            tracing::warn!(name, "systemd passed a socket of an unknown name, it is closed");
        }
    }
    ensure!(found.len() <= 1, "systemd passed {} sockets named {CLIENT_SOCKET}", found.len());
    let Some(fd) = found.pop() else {
        return Ok(None);
    };
    let listener = UnixListener::from(fd);
    listener.local_addr().context("the socket that systemd passed is no Unix socket")?;
    listener.set_nonblocking(true).context("cannot use the socket that systemd passed")?;
    Ok(Some(listener))
}
