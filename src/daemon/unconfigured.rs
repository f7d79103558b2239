//! What a daemon does for clients that systemd has let in while its settings are wrong: it closes their
//! connections and lingers for a moment before it ends. A service that ends at once is started anew by the
//! next connection, reaches systemd's start limit within a second, and takes the socket unit down with it:
//! `systemctl start` is then refused although the settings are right again.

use std::{
    io::ErrorKind,
    os::{fd::AsFd, unix::net::UnixListener},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::activation::Passed;
use crate::sys::clock;

/// Five starts within ten seconds are the limit (DefaultStartLimitBurst= of systemd-system.conf(5)). With
/// this between them there are at most four.
const LINGER: Duration = Duration::from_millis(2600);

/// Closes what connects to the socket that systemd has passed, for a while. Without such a socket nobody
/// would start the daemon again, so it returns at once.
pub(super) fn reject_clients() {
    let Ok(Passed { clients: Some(listener), .. }) = Passed::take() else {
        return;
    };
    let end = clock::monotonic() + LINGER;
    while let Some(left) = end.checked_duration_since(clock::monotonic()).filter(|d| !d.is_zero()) {
        close_one(&listener, left);
    }
}

/// Closes the next connection, if there is one in time. The client sees an error at once instead of waiting.
fn close_one(listener: &UnixListener, within: Duration) {
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::ZERO);
    let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ready, timeout).is_err() {
        return;
    }
    match listener.accept() {
        Ok((_closed, _)) => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        // Out of descriptors, say: not to be tried again at full speed.
        Err(_) => std::thread::sleep(Duration::from_millis(50)),
    }
}
