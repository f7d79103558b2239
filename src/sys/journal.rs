//! The messages that an administrator acts on, each with its id in the journal (MESSAGE_ID, see journalctl(1)).
//! What they mean and what to do is in `dist/systemd/catalog/cortexd.catalog`; `journalctl -x` shows it.
//!
//! Used as a field: `warn!(MESSAGE_ID = journal::STORAGE_FULL, %fault, "…")`. The ids are random and never
//! change, whatever becomes of the wording.

/// Another machine has joined, or is reached again.
pub const PEER_JOINED: &str = "155ada73e8d74a53bf0dbbd9288a6f51";

/// Another machine is not reached any more.
pub const PEER_LOST: &str = "a4644ad205ee43bba192f00d4fe42537";

/// Another machine has been silent for so long that it is taken for dead.
pub const PEER_DEAD: &str = "3031dca0bd27b5fb4924ab65db3a482f";

/// A connection to the peer port was refused.
pub const PEER_REFUSED: &str = "bacde70f44a59bca9e87eb97fdbe30df";

/// A certificate was revoked, and what was open with it is closed.
pub const CERTIFICATE_REVOKED: &str = "507454d539744ccdad12462d80602e2c";

/// A certificate has expired, and what was open with it is closed.
pub const CERTIFICATE_EXPIRED: &str = "e9766eec024b9548f240ee03c9a85d31";

/// Another machine's clock is too far off for its writes to be taken.
pub const CLOCK_REFUSED: &str = "7ca64c736d424213895c27fbf1d8600f";

/// Two machines have changed the same record; one version won, the other is kept aside.
pub const CONFLICT: &str = "c27c479c7f9c45c89298e284c8ce9977";

/// The store was opened after the daemon had not ended in order.
pub const STORE_RECOVERED: &str = "d6e8b5bada71415ca40f35818bc957c9";

/// New settings were refused; the old ones stay in force.
pub const CONFIGURATION_REJECTED: &str = "89683c551768432c8baf9f1f9ba3db47";

/// A write was refused for want of room on the disk.
pub const STORAGE_FULL: &str = "7ae9bddb9b3a45cda19f7fb966d62f5c";

/// The store must not go on, and the daemon ends.
pub const STORE_STOPPED: &str = "ea894aa252564d0db8e62ccceb0602dd";

/// A backup was made and checked.
pub const BACKUP_FINISHED: &str = "f93225ec238f464e8563f847883bc40f";

/// All of them.
pub const ALL: [&str; 13] = [
    PEER_JOINED,
    PEER_LOST,
    PEER_DEAD,
    PEER_REFUSED,
    CERTIFICATE_REVOKED,
    CERTIFICATE_EXPIRED,
    CLOCK_REFUSED,
    CONFLICT,
    STORE_RECOVERED,
    CONFIGURATION_REJECTED,
    STORAGE_FULL,
    STORE_STOPPED,
    BACKUP_FINISHED,
];
