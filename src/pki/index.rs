//! What a CA has issued: a text file beside its key, for people and for the refusal of duplicates.
//! Leaves the certificates themselves to `authority`.

use std::io;
use std::path::Path;

use cortex_core::model::NodeName;
use serde::{Deserialize, Serialize};

use super::files::{self, IfExists, Readers};
use super::{Serial, moment};

/// How the file begins.
const HEAD: &str =
    "# What this CA has issued. Written by cortex(1), which needs it to revoke and to renew.\n\n";

/// One certificate. Times are texts, `2026-11-21T13:30:00Z`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The node.
    pub name: String,
    /// The serial number, in hexadecimal digits.
    pub serial: String,
    /// Where the node is reached.
    pub host: String,
    /// When it was issued.
    pub issued: String,
    /// When it expires.
    pub expires: String,
    /// When it was revoked, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
}

impl Record {
    pub(super) fn new(name: &str, serial: &Serial, host: &str, issued: u64, expires: u64) -> Self {
        Self {
            name: name.to_owned(),
            serial: serial.to_string(),
            host: host.to_owned(),
            issued: moment::shown(issued),
            expires: moment::shown(expires),
            revoked: None,
        }
    }

    /// Whether it can be used at that time.
    #[must_use]
    pub fn is_good(&self, now_unix_s: u64) -> bool {
        // One whose end cannot be read is taken for good: it may be.
        let expires = moment::read(&self.expires).unwrap_or(u64::MAX);
        self.revoked.is_none() && now_unix_s <= expires
    }
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    /// The number of the last revocation list.
    #[serde(default)]
    pub(super) crl_number: u64,
    #[serde(default, rename = "certificate")]
    pub(super) records: Vec<Record>,
}

impl Index {
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let text = match std::fs::read_to_string(path) {
            // A CA made by another tool has none yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text?,
        };
        toml::from_str(&text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        files::write(
            path,
            format!("{HEAD}{text}").as_bytes(),
            Readers::Owner,
            IfExists::Replace,
            None,
        )
    }

    /// The certificate of a node that is in use.
    pub(super) fn good(&self, name: &str, now: u64) -> Option<&Record> {
        self.records.iter().rev().find(|record| record.name == name && record.is_good(now))
    }

    /// A certificate in use of another node, which names this one as the host where that node is reached.
    pub(super) fn reached_at(&self, node: &NodeName, now: u64) -> Option<&Record> {
        let name = node.as_str();
        let is_reached = |record: &&Record| {
            record.host.eq_ignore_ascii_case(name) && record.name != name && record.is_good(now)
        };
        self.records.iter().find(is_reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let dir = tempfile::tempdir().expect("make a directory");
        let path = dir.path().join("issued.toml");
        assert_eq!(Index::read(&path).expect("absent"), Index::default());
        let mut record = Record::new("home", &Serial::from_bytes(&[7]), "home.lan", 1, 2);
        record.revoked = Some(moment::shown(3));
        let good = Record::new("home", &Serial::from_bytes(&[8]), "home.lan", 1, 2);
        let index = Index { crl_number: 4, records: vec![record, good.clone()] };
        index.write(&path).expect("write");
        assert_eq!(Index::read(&path).expect("read"), index);
        assert_eq!(index.good("home", 2), Some(&good));
        assert_eq!(index.good("home", 3), None, "it has expired");
        assert_eq!(index.good("office", 2), None);
    }
}
