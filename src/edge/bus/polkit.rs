//! polkit: whether somebody who may not do a thing by themselves may do it as an administrator.
//! What is asked for, and what the answer leads to, is `dispatcher`'s.
//!
//! A yes must be said. No answer, an error, or no polkit on the bus at all are a no.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use cortex_core::model::Uid;
use tracing::{debug, warn};
use zbus::message::Flags;
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

use super::{
    dispatcher::Incoming,
    error::{Error, Result},
};

/// Questions of one uid that may be open. An open one may wait for somebody to type a password, and
/// nobody answers more than one dialogue at a time.
const OPEN_PER_UID: usize = 4;

/// What polkit is asked about; its rules are in `dist/polkit-1/actions/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Reload the settings, move the log into the database.
    Manage,
    /// Copy everything that is stored.
    Backup,
    /// See, drop and grant rights on the tables of others.
    ManageTables,
    /// Register, pass on and revoke the identities of others.
    ManageIdentities,
    /// Put a node out of the mesh.
    ManageMesh,
}

impl Action {
    pub(super) fn id(self) -> &'static str {
        match self {
            Self::Manage => "org.cortexd.cortex1.manage",
            Self::Backup => "org.cortexd.cortex1.backup",
            Self::ManageTables => "org.cortexd.cortex1.manage-tables",
            Self::ManageIdentities => "org.cortexd.cortex1.manage-identities",
            Self::ManageMesh => "org.cortexd.cortex1.manage-mesh",
        }
    }
}

/// Asks polkit. One per daemon.
#[derive(Debug, Default)]
pub(super) struct Polkit {
    absence_logged: AtomicBool,
    /// Locked for a look-up, before and after each question.
    open: Mutex<HashMap<Uid, usize>>,
}

impl Polkit {
    /// Lets pass whom polkit authorises for the action.
    pub(super) async fn check(&self, from: Incoming<'_>, uid: Uid, action: Action) -> Result<()> {
        let _open = self.open(uid)?;
        let may_ask = from.header.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH);
        let answer = match ask(from, action, may_ask).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.refused(&error)),
        };
        if answer.is_authorized {
            Ok(())
        } else if answer.is_challenge && !may_ask {
            Err(Error::interaction_required())
        } else {
            debug!(%uid, action = action.id(), "polkit has not authorised a request");
            Err(Error::access_denied("access_denied"))
        }
    }

    fn open(&self, uid: Uid) -> Result<Open<'_>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(uid).or_default();
        if *count >= OPEN_PER_UID {
            return Err(Error::limits_exceeded("too many requests wait for authorisation"));
        }
        *count += 1;
        Ok(Open { polkit: self, uid })
    }

    /// The caller's error where polkit gave no answer; logged once.
    fn refused(&self, error: &zbus::Error) -> Error {
        if !is_absence(error) {
            warn!(%error, "polkit gave no answer, and a request was refused: {error}");
        } else if !self.absence_logged.swap(true, Relaxed) {
            warn!("there is no polkit on the message bus: only root may manage the daemon there");
        }
        Error::access_denied("access_denied")
    }
}

async fn ask(
    from: Incoming<'_>,
    action: Action,
    may_ask: bool,
) -> zbus::Result<zbus_polkit::policykit1::AuthorizationResult> {
    // By its name on the bus: the caller's process cannot be looked at from inside the sandbox.
    let subject = Subject::new_for_message_header(from.header)
        .map_err(|error| zbus::Error::Failure(error.to_string()))?;
    let flags = if may_ask {
        CheckAuthorizationFlags::ALLOW_USER_INTERACTION
    } else {
        CheckAuthorizationFlags::empty()
    };
    // No details: the one who is asked for a password may be somebody who must not learn of a table.
    let authority = AuthorityProxy::new(from.connection).await?;
    authority.check_authorization(&subject, action.id(), &HashMap::new(), flags, "").await
}

fn is_absence(error: &zbus::Error) -> bool {
    use zbus::fdo::Error as Fdo;
    let zbus::Error::FDO(error) = error else {
        return false;
    };
    matches!(
        **error,
        Fdo::ServiceUnknown(_) | Fdo::NameHasNoOwner(_) | Fdo::SpawnServiceNotFound(_)
    )
}

/// A question that waits for its answer. Applied back when dropped.
#[derive(Debug)]
struct Open<'a> {
    polkit: &'a Polkit,
    uid: Uid,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut open = self.polkit.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.uid) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                open.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_with_its_questions_open_leaves_others_room() {
        let polkit = Polkit::default();
        let mut open: Vec<_> = (0..OPEN_PER_UID).map(|_| polkit.open(Uid(1))).collect();
        assert!(open.iter().all(Result::is_ok));
        assert!(polkit.open(Uid(1)).is_err(), "its own bound");
        assert!(polkit.open(Uid(2)).is_ok());
        open.pop();
        assert!(polkit.open(Uid(1)).is_ok(), "one was answered");
    }
}
