//! The sockets that systemd passes, by name (sd_listen_fds_with_names(3)).
//! Binding them ourselves, where none is passed, is `socket`'s and `peer`'s.

use std::{
    net::TcpListener,
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::net::UnixListener,
    },
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{getsockopt, sockopt::AcceptConn};

/// The names of the sockets: `FileDescriptorName=` in their socket units.
const CLIENTS: &str = "rpc";
const PEERS: &str = "peer";

/// The listening sockets that systemd has passed.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// For clients.
    pub(super) clients: Option<UnixListener>,
    /// For the other machines of the mesh.
    pub(super) peers: Option<TcpListener>,
}

impl Passed {
    /// Takes them, once in the life of the process. By name, never by position: the order differs between
    /// activations. Descriptors of other names are closed.
    ///
    /// # Errors
    /// If what was passed is no listening socket of its kind, or several carry the name.
    pub(super) fn take() -> Result<Self> {
        const TAKING: &str = "cannot take the sockets from systemd";
        // Names without sockets would be an error below. They are there where the variables were meant
        // for a parent of this process and inherited from it.
        if sd_notify::listen_fds().context(TAKING)?.len() == 0 {
            return Ok(Self::default());
        }
        let mut found = Vec::new();
        for (fd, name) in sd_notify::listen_fds_with_names().context(TAKING)? {
            #[expect(
                unsafe_code,
                reason = "systemd passes descriptors as bare numbers; LISTEN_PID was \
                checked to be ours, each number is adopted once, here, before anything else opens one"
            )]
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            found.push((name, fd));
        }
        let passed = Self {
            clients: only(&mut found, CLIENTS)?.map(clients).transpose()?,
            peers: only(&mut found, PEERS)?.map(peers).transpose()?,
        };
        for (name, _closed) in found {
            tracing::warn!(
                name,
                "systemd passed a socket of the unknown name {name}, it is closed"
            );
        }
        Ok(passed)
    }
}

/// Takes the one of a name out of those that were passed.
fn only(found: &mut Vec<(String, OwnedFd)>, name: &str) -> Result<Option<OwnedFd>> {
    let mut named: Vec<_> = found.extract_if(.., |(its, _)| its == name).collect();
    ensure!(named.len() <= 1, "systemd passed {} sockets named {name}", named.len());
    Ok(named.pop().map(|(_, fd)| fd))
}

fn clients(fd: OwnedFd) -> Result<UnixListener> {
    let listener = UnixListener::from(fd);
    listener.local_addr().context("the socket that systemd passed is no Unix socket")?;
    listener.set_nonblocking(true).context("cannot use the socket that systemd passed")?;
    Ok(listener)
}

fn peers(fd: OwnedFd) -> Result<TcpListener> {
    let listener = TcpListener::from(fd);
    listener
        .local_addr()
        .context("the socket that systemd passed for the mesh is no TCP socket")?;
    let listens = getsockopt(&listener, AcceptConn)
        .context("cannot use the socket that systemd passed for the mesh")?;
    ensure!(listens, "the socket that systemd passed for the mesh does not listen");
    Ok(listener)
}
