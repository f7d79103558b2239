//! What a caller on the bus gets for a request that is not carried out: the name of a D-Bus error and a text.
//! Why it is not carried out is decided elsewhere; here each reason gets its name, once.

use cortex_core::model::Refusal;
use thiserror::Error as ThisError;
use zbus::{DBusError, Message, ObjectPath, message::Header, names::ErrorName};

use crate::{
    service::wire_error,
    store::{CommandError, StoreError},
};

const ACCESS_DENIED: &str = "org.freedesktop.DBus.Error.AccessDenied";
const FAILED: &str = "org.freedesktop.DBus.Error.Failed";
const INTERACTION_REQUIRED: &str = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired";
const INVALID_ARGS: &str = "org.freedesktop.DBus.Error.InvalidArgs";
const LIMITS_EXCEEDED: &str = "org.freedesktop.DBus.Error.LimitsExceeded";
const NOT_SUPPORTED: &str = "org.freedesktop.DBus.Error.NotSupported";
const UNKNOWN_OBJECT: &str = "org.freedesktop.DBus.Error.UnknownObject";
const IDENTITY_NOT_YOURS: &str = "org.cortexd.Cortex1.Error.IdentityNotYours";
const MESH_NOT_CONFIGURED: &str = "org.cortexd.Cortex1.Error.MeshNotConfigured";
const UNKNOWN_IDENTITY: &str = "org.cortexd.Cortex1.Error.UnknownIdentity";

/// A D-Bus error.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[error("{name}: {text}")]
pub(super) struct Error {
    name: &'static str,
    text: String,
}

pub(super) type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, text: text.into() }
    }

    /// Its D-Bus name.
    pub(super) fn dbus_name(&self) -> &'static str {
        self.name
    }

    pub(super) fn access_denied(why: impl Into<String>) -> Self {
        Self::new(ACCESS_DENIED, why)
    }

    /// The caller could be asked to authenticate, and has not said that they may be.
    pub(super) fn interaction_required() -> Self {
        Self::new(INTERACTION_REQUIRED, "authentication is required")
    }

    pub(super) fn invalid_args(why: impl Into<String>) -> Self {
        Self::new(INVALID_ARGS, why)
    }

    pub(super) fn limits_exceeded(why: impl Into<String>) -> Self {
        Self::new(LIMITS_EXCEEDED, why)
    }

    pub(super) fn not_supported(why: impl Into<String>) -> Self {
        Self::new(NOT_SUPPORTED, why)
    }

    /// As zbus says it: the object's table is gone, and the object will be in a moment.
    pub(super) fn unknown_object(path: &ObjectPath<'_>) -> Self {
        Self::new(UNKNOWN_OBJECT, format!("Unknown object '{path}'"))
    }

    /// For callers who may know that there is no such table.
    pub(super) fn no_such_table() -> Self {
        Self::new("org.cortexd.Cortex1.Error.NoSuchTable", "no such table")
    }

    /// A defect of the daemon, or a bus that went away.
    pub(super) fn failed(what: impl std::fmt::Display) -> Self {
        Self::new(FAILED, what.to_string())
    }

    /// True for what the gate answers, whatever it was that stood in the way.
    pub(super) fn is_access_denied(&self) -> bool {
        self.name == ACCESS_DENIED
    }

    /// True where somebody with more rights would get another answer.
    pub(super) fn is_want_of_rights(&self) -> bool {
        self.is_access_denied() || self.name == IDENTITY_NOT_YOURS
    }
}

impl From<CommandError> for Error {
    fn from(failure: CommandError) -> Self {
        let name = match &failure {
            CommandError::Refused(refusal) => name_of_refusal(refusal),
            CommandError::Faulted(fault) => name_of_fault(fault),
        };
        Self::new(name, text_of(&failure))
    }
}

impl From<Error> for zbus::Error {
    fn from(error: Error) -> Self {
        Self::Failure(error.to_string())
    }
}

impl From<zbus::Error> for Error {
    fn from(error: zbus::Error) -> Self {
        Self::failed(error)
    }
}

impl DBusError for Error {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&(&self.text,))
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_static_str_unchecked(self.name)
    }

    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}

/// The text of the wire, but where that speaks of the wire's own shapes.
fn text_of(failure: &CommandError) -> String {
    if let CommandError::Refused(Refusal::InvalidParams(_)) = failure {
        return "an argument is not what the method takes; see org.cortexd.Cortex1(5)".into();
    }
    wire_error(failure)
}

fn name_of_refusal(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::AccessDenied => ACCESS_DENIED,
        Refusal::InvalidRequest
        | Refusal::UnknownMethod(_)
        | Refusal::InvalidParams(_)
        | Refusal::MissingKey
        | Refusal::InvalidTableName
        | Refusal::InvalidAttributeName(_)
        | Refusal::InvalidAttributeType
        | Refusal::DuplicateAttribute(_)
        | Refusal::InvalidPermissions
        | Refusal::InvalidIdentity
        | Refusal::InvalidScope
        | Refusal::InvalidNodeName(_)
        | Refusal::MetadataNotAllowed
        | Refusal::NameTooLong
        | Refusal::TooManyAttributes
        | Refusal::KeyTooLong(_)
        | Refusal::KeyInexact
        | Refusal::RequestTooLarge(_)
        | Refusal::InvalidIdentityName(_)
        | Refusal::TokenMalformed
        | Refusal::TokenLifetime(_)
        | Refusal::UnknownNode(_)
        | Refusal::OwnNode
        | Refusal::NotInScope(_)
        | Refusal::ScopeWithoutHome(_)
        | Refusal::ScopeWithoutTableHome(_)
        | Refusal::OnlyReplica => INVALID_ARGS,
        Refusal::TooManyGrants
        | Refusal::TooManyTables(_)
        | Refusal::QuotaExceeded(_)
        | Refusal::ResultTooLarge(_)
        | Refusal::DirectoryFull(_)
        | Refusal::NodesBusy
        | Refusal::TooManyConnections => LIMITS_EXCEEDED,
        Refusal::NotHere | Refusal::TableNotReady => "org.cortexd.Cortex1.Error.NotHere",
        Refusal::ScopeContested => "org.cortexd.Cortex1.Error.ScopeContested",
        Refusal::AlreadyExists => "org.cortexd.Cortex1.Error.AlreadyExists",
        Refusal::NotFound => "org.cortexd.Cortex1.Error.NotFound",
        Refusal::FederatedIdentityRequired => "org.cortexd.Cortex1.Error.FederatedIdentityRequired",
        Refusal::MeshNotConfigured | Refusal::MeshDown(_) => MESH_NOT_CONFIGURED,
        Refusal::BackupUnderWay => "org.cortexd.Cortex1.Error.BackupUnderWay",
        Refusal::ReloadRejected(_) => "org.cortexd.Cortex1.Error.ReloadRejected",
        Refusal::UnknownIdentity => UNKNOWN_IDENTITY,
        Refusal::IdentityContested => "org.cortexd.Cortex1.Error.IdentityContested",
        Refusal::IdentityTaken => "org.cortexd.Cortex1.Error.IdentityTaken",
        Refusal::IdentityNotYours(_) | Refusal::IdentityWithoutLogin(_) => IDENTITY_NOT_YOURS,
        Refusal::AlreadyMapped(_) | Refusal::IdentityHasUid(_) => {
            "org.cortexd.Cortex1.Error.AlreadyMapped"
        }
        Refusal::NotMapped | Refusal::NotMappedThere | Refusal::RootNotMapped => {
            "org.cortexd.Cortex1.Error.NotMapped"
        }
        Refusal::TokenForged
        | Refusal::RowUnverified { .. }
        | Refusal::TokenExpired
        | Refusal::TokenForeign
        | Refusal::TokenForNode(_)
        | Refusal::TokenForUid(_)
        | Refusal::TokenUsed => "org.cortexd.Cortex1.Error.TokenRefused",
        Refusal::NodeUnreachable(_) => "org.cortexd.Cortex1.Error.NodeUnreachable",
        Refusal::NotConfirmed(_) => "org.cortexd.Cortex1.Error.NotConfirmed",
        Refusal::ByAnotherNode(_) => "org.cortexd.Cortex1.Error.RefusedByNode",
        Refusal::AnotherNode(_) | Refusal::AnotherMesh => FAILED,
    }
}

fn name_of_fault(fault: &StoreError) -> &'static str {
    match fault {
        StoreError::Full(_) => "org.cortexd.Cortex1.Error.StorageFull",
        StoreError::ReadOnly(_) => "org.cortexd.Cortex1.Error.StorageReadOnly",
        StoreError::Io(_)
        | StoreError::SyncFailed(_)
        | StoreError::Corrupt(_)
        | StoreError::Damaged { .. }
        | StoreError::DamagedCopy { .. }
        | StoreError::Unopened(_)
        | StoreError::SnapshotTooOld => "org.cortexd.Cortex1.Error.StorageFailed",
        StoreError::Closed => "org.cortexd.Cortex1.Error.ShuttingDown",
    }
}
