//! What a command ends with when it does not succeed: exit status, one line of what, one line of what to do.
//! Leaves the printing to `output`.

use std::path::Path;
use std::process::ExitCode;

use cortex_client as client;
use cortex_core::wire::OutOfBounds;

use crate::sys::paths;

/// The exit statuses of `cortex`. Scripts depend on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    /// Anything that has no number of its own.
    Failed = 1,
    /// The command line says nothing that could be done.
    Usage = 2,
    /// The daemon did not answer in time; what was asked may still happen.
    Timeout = 3,
    /// Not authorised: by the daemon, or by the permissions of its socket.
    Denied = 4,
    NotRunning = 8,
    NotFound = 10,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not succeed, and what the user can do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// Printed after `error: `; empty if there is nobody left to read it.
    pub(crate) message: String,
    /// Printed after `hint: `.
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// A failure without a number of its own, from an error and what was being attempted.
    pub(crate) fn while_doing(attempt: &str, error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Failed, format!("{:#}", error.into().context(attempt.to_owned())))
    }

    /// Standard output is closed, as by `cortex all users | head -1`: the reader has closed it, and the
    /// command has done what was wanted of it.
    pub(crate) fn reader_gone() -> Self {
        Self::new(Exit::Ok, "")
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Replaces the hint of a refusal that speaks of tables, where it is the user who may not.
    #[must_use]
    pub(crate) fn about_administration(mut self) -> Self {
        if self.message == "access_denied" {
            self.hint = Some(ADMINISTRATORS.to_owned());
        }
        self
    }

    /// Puts the table's name in place of the word that stands for it in the hint.
    #[must_use]
    pub(crate) fn about_table(mut self, table: &str) -> Self {
        self.hint = self.hint.map(|hint| hint.replace(TABLE, table));
        self
    }
}

/// Who may do what concerns everybody.
const ADMINISTRATORS: &str =
    "Only root may do this, and the user that the daemon runs as. With sudo(8): sudo cortex …";

/// Stands for a table in a hint until [`Failure::about_table`] knows better.
const TABLE: &str = "TABLE";

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        match error {
            client::Error::NotRunning { socket } => {
                Self::new(Exit::NotRunning, format!("cortexd is not running: nothing listens on {}", socket.display()))
                    .hint(how_to_start(&socket))
            }
            client::Error::PathTooLong { .. } => Self::new(Exit::Failed, error.to_string())
                .hint("Have the daemon listen in a directory with a shorter name: cortexd --socket PATH"),
            client::Error::NoPermission { ref socket } => Self::new(Exit::Denied, error.to_string()).hint(format!(
                "Its mode is 0666 in a directory that everybody may enter, unless somebody changed it: ls -ld {}",
                socket.parent().unwrap_or(Path::new("/")).display()
            )),
            client::Error::Timeout => Self::new(Exit::Timeout, error.to_string())
                .hint("What was asked may still happen. To wait longer: --timeout SECONDS; to see what the daemon does: systemctl status cortexd"),
            client::Error::Refused(refusal) => refused(refusal),
            client::Error::OutOfBounds(why) => Self::new(Exit::Failed, error.to_string()).hint(match why {
                OutOfBounds::TooLarge { .. } => {
                    "Split the record, or keep large data in a file and its path in the record"
                }
                OutOfBounds::TooDeep { .. } => {
                    "Flatten it, or keep what is nested as text; the bound is nesting in cortex.toml(5)"
                }
            }),
            client::Error::Closed => Self::new(Exit::Failed, error.to_string())
                .hint("If it has ended or was restarted, cortex ping says so; its journal says why: journalctl -u cortexd -n 20"),
            client::Error::Protocol(_) => Self::new(Exit::Failed, error.to_string())
                .hint("Whatever listens on the socket is not a cortexd of this version; see: cortex --version, cortexd --version"),
            error @ (client::Error::Connect { .. } | client::Error::Io(_)) => {
                Self::new(Exit::Failed, format!("{:#}", anyhow::Error::from(error)))
            }
        }
    }
}

/// A refusal by the daemon. Its text stays as it is: scripts look for it.
fn refused(refusal: String) -> Failure {
    let exit = exit_of_refusal(&refusal);
    let hint = hint_for_refusal(&refusal);
    Failure { exit, message: refusal, hint: hint.map(str::to_owned) }
}

pub(crate) fn exit_of_refusal(refusal: &str) -> Exit {
    match refusal {
        "access_denied" => Exit::Denied,
        "not_found" | "unknown_identity" => Exit::NotFound,
        _ if refusal.starts_with("timeout: ") => Exit::Timeout,
        _ if refusal.starts_with("identity_not_yours") => Exit::Denied,
        _ => Exit::Failed,
    }
}

/// What can be done about a refusal, for those where the answer is not plain from the text.
fn hint_for_refusal(refusal: &str) -> Option<&'static str> {
    let hint = match refusal {
        "access_denied" => {
            "There is no table TABLE, or you may not use it. Yours: cortex tables. Names and rights: cortex help identities"
        }
        "not_found" => "To see which keys there are: cortex keys TABLE",
        "already_exists" => {
            "Nothing was changed. Where it is, and since when: cortex info TABLE, cortex scope TABLE. To begin anew: cortex drop TABLE"
        }
        "missing_key" => {
            "A record needs the key field of its table, the first attribute, with text, a number or a boolean in it: cortex info TABLE"
        }
        "invalid_permissions" => {
            "Permissions are read, write and admin, as in: cortex acl grant uid:1000 TABLE read,write"
        }
        "invalid_identity" => {
            "An identity is uid:N, @name, or '*' for everybody, as in: cortex acl grant uid:1000 TABLE read"
        }
        "federated_identity_required" => {
            "A table with @ belongs to a name, and you have none yet: cortex help identities"
        }
        "mesh networking not configured" => {
            "This node runs alone. To make a mesh, or to join one: cortex help machines"
        }
        "unknown_identity" => "Whom there is: cortex identity list",
        "identity_taken" => {
            "Whose it is: cortex identity list. If it is yours on another node, get a token there: cortex identity token"
        }
        "identity_contested" => {
            "Two have this name; each can be named with digits of its id, as cortex identity list shows them"
        }
        "not_mapped" => "Register a name of yours, or claim one: cortex help identities",
        "root_is_never_mapped" => {
            "Name the user whose name it is: cortex identity register NAME --uid UID"
        }
        "token_expired" => {
            "Get another one where the name is yours: cortex identity token. Both clocks must be right: cortex doctor"
        }
        "token_already_used" => {
            "A token works once; get another one where the name is yours: cortex identity token"
        }
        "token_malformed" => "A token is one line without blanks, of two parts with a dot between",
        "token_forged" => {
            "It was changed on its way, or its node has a new certificate since; get another: cortex identity token"
        }
        "too_many_connections" => {
            "Programs of this user, or of all users together, hold as many as the daemon allows; end some, or try again later"
        }
        "storage_full" => {
            "Make room on the disk of the daemon, then try again; cortex delete and cortex drop work meanwhile, and cortex doctor shows where"
        }
        "storage_read_only" => {
            "The daemon may not write its database; cortex doctor shows what to mend"
        }
        "storage_error" => {
            "The daemon could not read or write its database; its journal says why: journalctl -u cortexd -n 20"
        }
        "shutting_down" => "The daemon is ending; try again once it is back: cortex ping",
        "snapshot_too_old" => {
            "It took too long while others wrote; try again, or in parts with --limit and --after"
        }
        "a backup is under way" => "There is one at a time; try again when it is done",
        _ if refusal.starts_with("identity_not_yours") => {
            "Your login name, and names below it, are yours: id -un. Any other, root registers: sudo cortex identity register NAME --uid UID"
        }
        _ if refusal.starts_with("mesh_down") => {
            "This machine's own programs are served all the same. What to mend: cortex doctor. Then at once: cortex mesh reload; by itself within seconds"
        }
        _ if refusal.starts_with("row_not_verified") => {
            "Its certificate has ended, was revoked or replaced; what it had signed is signed anew by the machine that has made the token once that has the newest revocation list: there, cortex mesh reload; then again"
        }
        _ if refusal.starts_with("quota exceeded") || refusal.starts_with("too many tables") => {
            "Delete or drop what is not needed: cortex usage. An administrator can raise the bound: limits.bytes_per_uid, limits.tables_per_uid in cortex.toml(5)"
        }
        _ if refusal.starts_with("row_damaged") => {
            "It is not what was stored. Where another machine has the row it is replaced: cortex sync status TABLE. Otherwise store it again, delete it, or restore a backup"
        }
        _ if refusal.starts_with("number too large for a key") => {
            "As text it is exact: put double quotes around the number"
        }
        _ if refusal.starts_with("key too long") => {
            "Use a shorter key, such as a digest of the long one, and keep the long one in another field"
        }
        _ if refusal.starts_with("not_here") => {
            "Where it may be: cortex scope TABLE. Why it is not here: cortex explain TABLE"
        }
        _ if refusal.starts_with("table_not_ready") => {
            "To wait for it: cortex sync wait TABLE. What may be in its way: cortex explain TABLE"
        }
        _ if refusal.starts_with("scope_contested") => {
            "Decide it once more, here or on another node: cortex scope TABLE SCOPE"
        }
        _ if refusal.starts_with("timeout: ") => {
            "Why, and how far they are: cortex sync status TABLE. To wait longer: --timeout SECONDS"
        }
        _ if refusal.starts_with("only_replica") => {
            "Let another node hold it first: cortex scope TABLE SCOPE. With all its records everywhere: cortex drop TABLE"
        }
        _ if refusal.starts_with("invalid scope: must include") => {
            "The table of a uid lives on that uid's machine; only there can its owner decide about it. Name that node too, or: cortex scope TABLE all. If the machine is gone for good: cortex mesh remove-node NODE"
        }
        _ if refusal.starts_with("not_in_scope") => {
            "Which nodes may hold it: cortex scope TABLE. To admit more: cortex scope TABLE SCOPE"
        }
        _ if refusal.starts_with("own_node") => "Ask on another node; here: cortex mesh status",
        _ if refusal.starts_with("node_unreachable") => {
            "The node that made the token must be reached: cortex mesh status. A name that this node knows can be claimed without, by a token for this node alone: cortex identity token --for-node NAME"
        }
        _ if refusal.starts_with("unknown node") => {
            "The nodes of this mesh: cortex mesh list-nodes"
        }
        _ if refusal.starts_with("already_mapped") => {
            "A uid is one name on each node; to give it up here: cortex identity revoke NAME NODE"
        }
        _ if refusal.starts_with("unknown method") => {
            "The daemon is older than this cortex. After an upgrade: systemctl restart cortexd"
        }
        _ => return None,
    };
    Some(hint)
}

/// Where packages and administrators put the unit that starts the daemon.
const SOCKET_UNITS: [&str; 3] = [
    "/usr/lib/systemd/system/cortexd.socket",
    "/lib/systemd/system/cortexd.socket",
    "/etc/systemd/system/cortexd.socket",
];

fn how_to_start(socket: &Path) -> String {
    let how = if SOCKET_UNITS.iter().any(|unit| Path::new(unit).exists()) {
        "Start it: systemctl start cortexd.socket"
    } else {
        "Start it: systemctl start cortexd.socket (not installed here, so: cortexd, or in its source: cargo run --release)"
    };
    if socket == Path::new(paths::SYSTEM_SOCKET) {
        return how.to_owned();
    }
    let socket = socket.display();
    format!(
        "{how}. That one listens on {}; one on {socket} is started by: cortexd --socket {socket}",
        paths::SYSTEM_SOCKET
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_daemon_lacks_the_user_is_told_what_to_do() {
        for refusal in [
            "storage_full",
            "storage_read_only",
            "storage_error",
            "shutting_down",
            "snapshot_too_old",
            "too_many_connections",
            "a backup is under way",
            "row_damaged: the row 7 is damaged: its checksum does not match",
            "quota exceeded: at most 1000 bytes for one user",
            "too many tables: at most 10 for one user",
        ] {
            let failure = Failure::from(client::Error::Refused(refusal.to_owned()));
            assert_eq!((failure.exit, failure.message.as_str()), (Exit::Failed, refusal));
            assert!(failure.hint.is_some(), "{refusal}");
        }
    }
}
