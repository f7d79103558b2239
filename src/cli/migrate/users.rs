//! Whose tables are brought over, and acting as each of them.
//! Leaves what may be done as whom to the daemons, which ask the kernel who is calling.
//!
//! A daemon names to nobody the tables of others, and lets nobody, not even root, make tables in another's
//! namespace. So root does not ask for that: it connects as each user in turn.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nix::unistd::{Uid, geteuid, seteuid};

use crate::cli::failure::{Exit, Failure};
use crate::sys::paths::MNESIA_TABLES;

/// The users of this machine, for programs that cannot ask the name service for all of them.
const PASSWD: &str = "/etc/passwd";

#[derive(Debug)]
pub(super) struct Users {
    uids: BTreeSet<u32>,
    /// Tables that must be among those brought over.
    expected: BTreeSet<(u32, String)>,
}

impl Users {
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.uids.iter().copied()
    }

    pub(super) fn expected(&self) -> impl Iterator<Item = (u32, String)> {
        self.expected.iter().cloned()
    }
}

/// Whose tables: the caller's own; for root, those of whom it names, or of everybody.
pub(super) fn chosen(named: &[u32], files: Option<&Path>) -> Result<Users, Failure> {
    let own = geteuid();
    if !own.is_root() {
        if files.is_some() || named.iter().any(|uid| *uid != own.as_raw()) {
            return Err(Failure::new(
                Exit::Denied,
                "only root can bring over the tables of others",
            )
            .hint("Your own: leave out --uid and --files. Everybody's: sudo cortex migrate …"));
        }
        return Ok(Users { uids: [own.as_raw()].into(), expected: BTreeSet::new() });
    }
    let found = files.map(tables_in).transpose()?.unwrap_or_default();
    let mut uids: BTreeSet<u32> = named.iter().copied().collect();
    if named.is_empty() {
        let passwd = fs::read_to_string(PASSWD)
            .map_err(|e| Failure::while_doing(&format!("reading {PASSWD}"), e))?;
        uids.extend(uids_in(&passwd));
        uids.extend(found.iter().map(|(uid, _)| *uid));
    }
    let expected = found.into_iter().filter(|(uid, _)| uids.contains(uid)).collect();
    Ok(Users { uids, expected })
}

/// The uids of a file in the form of passwd(5).
fn uids_in(passwd: &str) -> impl Iterator<Item = u32> {
    passwd.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok())
}

/// The tables of uids that have files in a data directory of the original daemon.
fn tables_in(dir: &Path) -> Result<BTreeSet<(u32, String)>, Failure> {
    let failed = |e| Failure::while_doing(&format!("reading {}", dir.display()), e);
    let mut tables = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        tables.extend(name.to_str().and_then(table_of));
    }
    if tables.is_empty() {
        let text = format!("{} holds no files of tables of users", dir.display());
        return Err(Failure::new(Exit::Failed, text)
            .hint("They are called UID:TABLE.DCD, as in /var/lib/cortex/mnesia"));
    }
    Ok(tables)
}

/// The table that a file is of: `1000:users.DCD`.
fn table_of(file: &str) -> Option<(u32, String)> {
    let name = MNESIA_TABLES.iter().find_map(|suffix| file.strip_suffix(suffix))?;
    let (uid, table) = name.split_once(':')?;
    Some((uid.parse().ok()?, table.to_owned()))
}

/// Does something as another user, as far as the kernel reports it to the peer of a connection. No other thread may
/// run meanwhile: it would be that user too.
pub(super) fn as_user<T>(uid: u32, act: impl FnOnce() -> T) -> Result<T, Failure> {
    let own = geteuid();
    if own.as_raw() == uid {
        return Ok(act());
    }
    let failed = |e| Failure::while_doing(&format!("acting as uid {uid}"), e);
    seteuid(Uid::from_raw(uid)).map_err(failed)?;
    let result = act();
    seteuid(own).map_err(failed)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_says_whose_table_it_is_of() {
        assert_eq!(table_of("1000:users.DCD"), Some((1000, "users".to_owned())));
        assert_eq!(table_of("0:a.DCL"), Some((0, "a".to_owned())));
        for other in ["schema.DAT", "cortex_acls.DCD", "@alice:notes.DCD", "LATEST.LOG", "1000:t"] {
            assert_eq!(table_of(other), None, "{other}");
        }
    }

    #[test]
    fn every_line_of_passwd_has_a_uid() {
        let text = "root:x:0:0::/root:/bin/sh\n\nann:x:1000:1000:Ann:/home/ann:/bin/sh\nbroken\n";
        assert_eq!(uids_in(text).collect::<Vec<_>>(), [0, 1000]);
    }
}
