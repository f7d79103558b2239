//! What two machines of a mesh say to each other on a link (ALPN `cortex-sync/1`): frames, and messages in them.
//! When to say what, and what follows from it, is the edge's.
//!
//! ```text
//!   frame    u32, big endian: the length of the body     body: one MessagePack map
//!   body     { 0: type, 1: …, 2: …, … }                  keys are integers, each type has its own
//! ```
//!
//! A message grows by new keys: unknown ones are passed over. A new type is passed over by a machine that knows
//! fewer features than its sender; see [`Features::tolerates`]. What cannot be read so is a new major version,
//! and has another ALPN.

use crate::{
    model::{ActorId, Hlc, NodeName},
    replication::Dot,
};

use super::{
    Head, encode,
    fields::{Fields, begin, bytes, hlc, text, uint},
    replication::{self, Packed},
};

pub use super::fields::NAMES;

/// The name of this protocol in the TLS handshake.
pub const ALPN: &[u8] = b"cortex-sync/1";

/// Bytes of a frame's body at most.
pub const FRAME_BYTES: usize = 4 << 20;

/// The same before the other side has said who it is.
pub const HELLO_BYTES: usize = 64 << 10;

/// The numbers of the message types.
pub mod kind {
    #![expect(missing_docs, reason = "each is the number of the message of that name")]
    pub const HELLO: u64 = 1;
    pub const REJECT: u64 = 2;
    pub const STATUS: u64 = 3;
    pub const BYE: u64 = 4;
    pub const PULL_REQUEST: u64 = 16;
    pub const BATCH: u64 = 17;
    pub const ACK: u64 = 18;
    pub const REFUSE: u64 = 19;
    pub const PARKED: u64 = 20;
    pub const STATUS_GOSSIP: u64 = 21;
}

/// What a machine can do: the oldest and the newest level of features that it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// The oldest.
    pub min: u32,
    /// The newest.
    pub max: u32,
}

impl Features {
    /// What this version speaks.
    pub const OURS: Self = Self { min: 1, max: 1 };

    /// The newest level that both speak; none where they have none in common.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u32> {
        let level = self.max.min(other.max);
        (level >= self.min.max(other.min)).then_some(level)
    }

    /// True where an unknown message of `other` is to be passed over: it may know more than we do. From one
    /// that does not, an unknown message is a mistake.
    #[must_use]
    pub fn tolerates(self, other: Self) -> bool {
        other.max > self.max
    }
}

/// A message of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who this is; the first message of either side.
    Hello(Hello),
    /// Why the link is not wanted; the last message.
    Reject(Reject),
    /// A heartbeat, each second.
    Status(Status),
    /// Why the link ends; the last message.
    Bye(Bye),
    /// About replicas of tables.
    Sync(crate::replication::Message),
    /// A chunk, made smaller.
    Packed(Packed),
}

/// Who this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The mesh, by the id of its CA.
    pub mesh: [u8; 16],
    /// The own name; the certificate must have the same.
    pub node: NodeName,
    /// The actor id of its database.
    pub actor: [u8; 16],
    /// The wall clock, in Unix milliseconds.
    pub wall_ms: u64,
    /// The hybrid clock.
    pub hlc: Hlc,
    /// What it can do.
    pub features: Features,
    /// Which run of the daemon this is: another one means that links of the one before are gone.
    pub boot: [u8; 16],
    /// Which database it is; none from a version that does not say.
    pub database: Option<[u8; 16]>,
    /// The last write of the other side that is known here, with the actor id that it is known by.
    pub last_of_yours: Option<Dot>,
}

/// Why a link is not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// The other side is of another mesh.
    Mesh,
    /// No common level of features.
    Version,
    /// Its name is not that of its certificate.
    WrongNode,
    /// There is a link between the two already, and it is the one to keep.
    Duplicate,
    /// Its database was removed from the mesh.
    Evicted,
    /// Another database uses its name, and was not removed: it is a second machine of that name, or one
    /// that was installed again.
    NameTaken,
    /// A reason of a later version.
    Other(u64),
}

/// A heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The sender's monotonic clock when it was sent, in microseconds since any moment.
    pub sent_us: u64,
    /// `sent_us` of the last status that the sender has received; none before the first.
    pub echo_us: Option<u64>,
    /// How long ago it had received that one.
    pub held_us: u64,
    /// The sender's wall clock, in Unix milliseconds.
    pub wall_ms: u64,
    /// The sender's hybrid clock.
    pub hlc: Hlc,
    /// The machines that the sender sees alive, at most [`NAMES`].
    pub sees: Vec<NodeName>,
}

/// Why a link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bye {
    /// The daemon stops.
    Stopping,
    /// Another link to the same machine is kept instead.
    Replaced,
    /// The other side's certificate does not count any more, or its name is not configured any more.
    Untrusted,
    /// The other side has said what it should not have.
    Mistake,
    /// A reason of a later version.
    Other(u64),
}

/// A frame's body as it was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A message.
    Known(Message),
    /// A message of a type that this version does not know.
    Unknown(u64),
}

/// A body that is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no message of the link's protocol")]
pub struct Malformed;

/// The length of the body that a frame's four first bytes announce; none where it is over the bound.
#[must_use]
pub fn body_length(header: [u8; 4], bound: usize) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(header)).ok().filter(|length| *length <= bound)
}

impl Message {
    /// Appends the message as a whole frame.
    ///
    /// # Panics
    /// If a message were over 4 GiB; what they hold is bounded.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        match self {
            Self::Hello(hello) => hello.write(out),
            Self::Reject(reject) => reject.write(out),
            Self::Status(status) => status.write(out),
            Self::Bye(bye) => bye.write(out),
            Self::Sync(message) => replication::write(message, out),
            Self::Packed(packed) => packed.write(out),
        }
        let length = u32::try_from(out.len() - start - 4).expect("a message is bounded");
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
}

impl Incoming {
    /// True for the body of a message about replicas: reading it may take a moment.
    #[must_use]
    pub fn is_about_replicas(body: &[u8]) -> bool {
        let mut reader = super::Reader::new(body);
        let first = (reader.head(), reader.head(), reader.head());
        matches!(first, (Some(Head::Map(_)), Some(Head::Int(0)), Some(Head::Int(kind)))
            if (i128::from(kind::PULL_REQUEST)..=i128::from(kind::STATUS_GOSSIP)).contains(&kind))
    }

    /// Reads a frame's body.
    ///
    /// # Errors
    /// [`Malformed`] for anything but one map with integer keys, a type and what that type needs.
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        read(body).ok_or(Malformed)
    }
}

fn read(body: &[u8]) -> Option<Incoming> {
    let fields = Fields::read(body)?;
    Some(Incoming::Known(match fields.uint(0)? {
        kind::HELLO => Message::Hello(Hello::read(&fields)?),
        kind::REJECT => Message::Reject(Reject::read(&fields)?),
        kind::STATUS => Message::Status(Status::read(&fields)?),
        kind::BYE => Message::Bye(Bye::read(&fields)?),
        kind::BATCH if Packed::is_one(&fields) => Message::Packed(Packed::read(&fields)?),
        kind @ kind::PULL_REQUEST..=kind::STATUS_GOSSIP => {
            Message::Sync(replication::read(kind, &fields)?)
        }
        other => return Some(Incoming::Unknown(other)),
    }))
}

impl Hello {
    fn write(&self, out: &mut Vec<u8>) {
        let more = usize::from(self.database.is_some());
        begin(out, kind::HELLO, 8 + more + 2 * usize::from(self.last_of_yours.is_some()));
        bytes(out, 1, &self.mesh);
        text(out, 2, self.node.as_str());
        bytes(out, 3, &self.actor);
        uint(out, 4, self.wall_ms);
        hlc(out, 5, self.hlc);
        uint(out, 6, self.features.min.into());
        uint(out, 7, self.features.max.into());
        bytes(out, 8, &self.boot);
        if let Some(database) = &self.database {
            bytes(out, 9, database);
        }
        if let Some(Dot { actor, seq }) = self.last_of_yours {
            bytes(out, 10, &actor.0.to_be_bytes());
            uint(out, 11, seq);
        }
    }

    fn read(fields: &Fields<'_>) -> Option<Self> {
        let level = |key| u32::try_from(fields.uint(key)?).ok();
        Some(Self {
            mesh: fields.id(1)?,
            node: fields.node(2)?,
            actor: fields.id(3)?,
            wall_ms: fields.uint(4)?,
            hlc: fields.hlc(5)?,
            features: Features { min: level(6)?, max: level(7)? },
            boot: fields.id(8)?,
            database: if fields.has(9) { Some(fields.id(9)?) } else { None },
            last_of_yours: if fields.has(10) {
                let actor = ActorId(u128::from_be_bytes(fields.id(10)?));
                Some(Dot { actor, seq: fields.uint(11)? })
            } else {
                None
            },
        })
    }
}

impl Reject {
    fn write(self, out: &mut Vec<u8>) {
        let code = match self {
            Self::Mesh => 1,
            Self::Version => 3,
            Self::WrongNode => 4,
            Self::Duplicate => 6,
            Self::Evicted => 7,
            Self::NameTaken => 8,
            Self::Other(code) => code,
        };
        begin(out, kind::REJECT, 1);
        uint(out, 1, code);
    }

    fn read(fields: &Fields<'_>) -> Option<Self> {
        Some(match fields.uint(1)? {
            1 => Self::Mesh,
            3 => Self::Version,
            4 => Self::WrongNode,
            6 => Self::Duplicate,
            7 => Self::Evicted,
            8 => Self::NameTaken,
            other => Self::Other(other),
        })
    }
}

impl Status {
    fn write(&self, out: &mut Vec<u8>) {
        begin(out, kind::STATUS, 5 + usize::from(self.echo_us.is_some()));
        uint(out, 1, self.sent_us);
        if let Some(echo_us) = self.echo_us {
            uint(out, 2, echo_us);
        }
        uint(out, 3, self.held_us);
        uint(out, 4, self.wall_ms);
        hlc(out, 5, self.hlc);
        encode::uint(out, 6);
        encode::strings(out, self.sees.iter().take(NAMES).map(NodeName::as_str));
    }

    fn read(fields: &Fields<'_>) -> Option<Self> {
        Some(Self {
            sent_us: fields.uint(1)?,
            echo_us: if fields.has(2) { Some(fields.uint(2)?) } else { None },
            held_us: fields.uint(3)?,
            wall_ms: fields.uint(4)?,
            hlc: fields.hlc(5)?,
            sees: fields.nodes(6)?,
        })
    }
}

impl Bye {
    fn write(self, out: &mut Vec<u8>) {
        begin(out, kind::BYE, 1);
        uint(
            out,
            1,
            match self {
                Self::Stopping => 1,
                Self::Replaced => 2,
                Self::Untrusted => 3,
                Self::Mistake => 4,
                Self::Other(code) => code,
            },
        );
    }

    fn read(fields: &Fields<'_>) -> Option<Self> {
        Some(match fields.uint(1)? {
            1 => Self::Stopping,
            2 => Self::Replaced,
            3 => Self::Untrusted,
            4 => Self::Mistake,
            other => Self::Other(other),
        })
    }
}

impl std::fmt::Display for Reject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mesh => f.write_str("it is of another mesh"),
            Self::Version => f.write_str("the two versions have nothing in common"),
            Self::WrongNode => f.write_str("the name is not that of the certificate"),
            Self::Duplicate => f.write_str("there is a link already"),
            Self::Evicted => f.write_str("its database was removed from the mesh"),
            Self::NameTaken => f.write_str(
                "another database already uses its name; if the machine was installed again, the old one has to be removed: cortex mesh remove-node",
            ),
            Self::Other(code) => write!(f, "for reason {code} of a later version"),
        }
    }
}

impl std::fmt::Display for Bye {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopping => f.write_str("its daemon stops"),
            Self::Replaced => f.write_str("another link is kept"),
            Self::Untrusted => f.write_str("it does not trust this machine any more"),
            Self::Mistake => f.write_str("it met what it could not follow"),
            Self::Other(code) => write!(f, "reason {code} of a later version"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> impl Strategy<Value = NodeName> {
        "[a-z][a-z0-9]{0,20}".prop_map(|name| NodeName::parse(&name).expect("a name"))
    }

    /// What a database can keep.
    fn counts() -> impl Strategy<Value = u64> {
        0..=i64::MAX.unsigned_abs()
    }

    fn hlcs() -> impl Strategy<Value = Hlc> {
        (0..=i64::MAX).prop_map(Hlc::from_i64)
    }

    prop_compose! {
        fn hellos()(
            (mesh, actor, boot) in any::<([u8; 16], [u8; 16], [u8; 16])>(),
            node in names(),
            wall_ms in counts(),
            hlc in hlcs(),
            (min, max) in any::<(u32, u32)>(),
            database in any::<Option<[u8; 16]>>(),
            last in prop::option::of((any::<u128>(), counts())),
        ) -> Hello {
            let dot = |(actor, seq)| Dot { actor: ActorId(actor), seq };
            let (features, last_of_yours) = (Features { min, max }, last.map(dot));
            Hello { mesh, node, actor, wall_ms, hlc, features, boot, database, last_of_yours }
        }
    }

    prop_compose! {
        fn statuses()(
            (sent_us, echo_us, held_us, wall_ms) in (counts(), prop::option::of(counts()), counts(), counts()),
            hlc in hlcs(),
            sees in prop::collection::vec(names(), 0..=NAMES),
        ) -> Status {
            Status { sent_us, echo_us, held_us, wall_ms, hlc, sees }
        }
    }

    fn messages() -> impl Strategy<Value = Message> {
        let rejects = prop_oneof![
            Just(Reject::Mesh),
            Just(Reject::Version),
            Just(Reject::WrongNode),
            Just(Reject::Duplicate),
            Just(Reject::Evicted),
            Just(Reject::NameTaken),
            (9..=i64::MAX.unsigned_abs()).prop_map(Reject::Other),
        ];
        let byes = prop_oneof![
            Just(Bye::Stopping),
            Just(Bye::Replaced),
            Just(Bye::Untrusted),
            Just(Bye::Mistake),
            (5..=i64::MAX.unsigned_abs()).prop_map(Bye::Other),
        ];
        prop_oneof![
            hellos().prop_map(Message::Hello),
            rejects.prop_map(Message::Reject),
            statuses().prop_map(Message::Status),
            byes.prop_map(Message::Bye),
        ]
    }

    /// The body of the one frame in `bytes`.
    fn body(bytes: &[u8]) -> &[u8] {
        let (header, body) = bytes.split_first_chunk().expect("a header");
        assert_eq!(body_length(*header, FRAME_BYTES), Some(body.len()));
        body
    }

    fn framed(message: &Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        bytes
    }

    #[test]
    fn a_frame_over_the_bound_is_refused_by_its_first_bytes() {
        assert_eq!(body_length([0, 1, 0, 0], HELLO_BYTES), Some(HELLO_BYTES));
        assert_eq!(body_length([0, 1, 0, 1], HELLO_BYTES), None);
        assert_eq!(body_length([0xff; 4], FRAME_BYTES), None);
    }

    #[test]
    fn a_hello_is_these_bytes() {
        let hello = Message::Hello(Hello {
            mesh: [1; 16],
            node: NodeName::parse("a").expect("a name"),
            actor: [2; 16],
            wall_ms: 3,
            hlc: Hlc::from_i64(4),
            features: Features { min: 1, max: 2 },
            boot: [5; 16],
            database: None,
            last_of_yours: None,
        });
        let mut expected = vec![0, 0, 0, 71, 0x89, 0, 1, 1, 0xc4, 16];
        expected.extend([1; 16]);
        expected.extend([2, 0xa1, b'a', 3, 0xc4, 16]);
        expected.extend([2; 16]);
        expected.extend([4, 3, 5, 4, 6, 1, 7, 2, 8, 0xc4, 16]);
        expected.extend([5; 16]);
        assert_eq!(framed(&hello), expected, "machines in the field send and await exactly this");
    }

    #[test]
    fn a_type_that_is_unknown_is_told_apart_from_garbage() {
        assert_eq!(Incoming::read(&[0x81, 0, 24]), Ok(Incoming::Unknown(24)));
        assert_eq!(Incoming::read(&[0x82, 0, 0xcd, 1, 0, 1, 0xc0]), Ok(Incoming::Unknown(256)));
        for garbage in [
            &[][..],
            &[0xc0],
            &[0x80],                   // no type
            &[0x81, 0, 0xa1, b'x'],    // the type is no number
            &[0x81, 0xa1, b'0', 4],    // the key is no number
            &[0x81, 0, 4],             // a bye without a reason
            &[0x81, 0, 16],            // a request for nothing
            &[0x82, 0, 4, 1, 1, 0xc0], // more than one value
            &[0x82, 0, 4, 1],          // cut short
        ] {
            assert_eq!(Incoming::read(garbage), Err(Malformed), "{garbage:x?}");
        }
    }

    #[test]
    fn versions_meet_at_the_newest_that_both_speak() {
        let features = |min, max| Features { min, max };
        assert_eq!(features(1, 3).common(features(2, 5)), Some(3));
        assert_eq!(features(1, 3).common(features(3, 3)), Some(3));
        assert_eq!(features(1, 3).common(features(4, 5)), None);
        assert_eq!(features(4, 5).common(features(1, 3)), None);
        assert!(
            features(1, 1).tolerates(features(1, 2)) && !features(1, 2).tolerates(features(1, 2))
        );
    }

    proptest! {
        #[test]
        fn a_message_reads_back_as_it_was_written(message in messages()) {
            let bytes = framed(&message);
            prop_assert!(bytes.len() - 4 <= HELLO_BYTES);
            prop_assert_eq!(Incoming::read(body(&bytes)), Ok(Incoming::Known(message)));
        }

        #[test]
        fn unknown_keys_are_passed_over(message in messages(), key in 20..=127u8, value in any::<u64>()) {
            let mut bytes = body(&framed(&message)).to_vec();
            bytes[0] += 1; // one more pair in the map
            bytes.push(key);
            encode::array(&mut bytes, 2);
            encode::uint(&mut bytes, value);
            encode::nil(&mut bytes);
            prop_assert_eq!(Incoming::read(&bytes), Ok(Incoming::Known(message)));
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Incoming::read(&bytes);
        }

        #[test]
        fn a_damaged_message_never_panics(message in messages(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = body(&framed(&message)).to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Incoming::read(&bytes);
        }
    }
}
