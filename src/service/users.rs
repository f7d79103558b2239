//! The users of this machine, as the name service knows them (getpwuid_r(3), getpwnam_r(3)).
//! Asking may take long where users are kept elsewhere: not for a thread that serves connections.

use cortex_core::model::Uid;
use nix::unistd::{self, User};

/// The login name of a uid.
pub(super) fn login_of(uid: Uid) -> Option<String> {
    let user = User::from_uid(unistd::Uid::from_raw(uid.0)).ok().flatten();
    user.map(|user| user.name)
}

/// The uid of a login name.
pub(super) fn uid_of(login: &str) -> Option<Uid> {
    User::from_name(login).ok().flatten().map(|user| Uid(user.uid.as_raw()))
}
