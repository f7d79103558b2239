//! Methods on federated identities: register, token, claim, redeem, list, lookup, revoke.
//! What a mapping means is `cortex_core::directory`; what a token says, `token`.
//!
//! ```text
//!   alice on a                      a                        b                      alice on b
//!   identity_register alice ──> rows, token          identity_claim token <────────────┘
//!                                  ^                        │ is it for us, now?
//!                                  └── identity_redeem ─────┘
//!                                  │ its signature? used up? ──> rows about alice, signed
//!                                                           │ their signatures? ──> rows, and b's own
//! ```

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use cortex_core::{
    api::{self, ClaimToken, Identity, IdentityMetadata, SealedRows, TokenOptions},
    directory::{Directory, IdentityRow, Row},
    model::{Caller, IdentityId, IdentityName, NodeName, Refusal, Signer, Uid},
};

use super::{
    Answer, Service,
    mesh::{AskError, Mesh},
    read,
    tables::owner_of,
    token::Token,
    users,
};
use crate::{
    store::{
        self, Claim, CommandError, DirectoryCommand, Reader, Redemption, Registration, Store,
        TokenId,
    },
    sys::{clock, random},
};

/// Seconds that a token is valid for, unless it is asked for another time.
const TOKEN_SECONDS: u64 = 3600;

/// How long the node that made a token may take to answer for it.
const REDEEM_TIME: Duration = Duration::from_secs(10);

/// How long asking who has used one may take.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(3);

/// Where a token shall be good, for whom, and how long.
#[derive(Clone, Debug)]
struct TokenRequest {
    node: Option<NodeName>,
    uid: Option<Uid>,
    seconds: u64,
}

impl Service {
    /// `identity_register [name]` or `[name, {uid, for_node, for_uid, seconds}]`.
    pub(super) fn identity_register(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        let signer = self.signer()?;
        let api::IdentityRegister { name, options } = read(params)?;
        let name = IdentityName::parse(name)?;
        let wish = self.wish(&options, signer.node())?;
        let mapped = options.uid.map(Uid);
        let asking = owner_of(caller).ok_or(Refusal::AccessDenied)?;
        if asking != Uid::ROOT && mapped.is_some_and(|mapped| mapped != asking) {
            return Err(Refusal::AccessDenied.into());
        }
        let (store, caller) = (self.store.clone(), caller.clone());
        Ok(Answer::later(async move {
            let wanted = name.clone();
            let looked_up =
                tokio::task::spawn_blocking(move || whom_to_map(asking, mapped, &wanted)).await;
            let uid = looked_up.unwrap_or(Err(Refusal::AccessDenied))?;
            let id = IdentityId(random::id());
            let registration = Registration { caller, id, name: name.clone(), uid };
            store.execute(DirectoryCommand::Register(registration)).await?;
            Ok(new_token(signer.as_ref(), id, name, uid, wish))
        }))
    }

    /// `identity_token []` or `[{name, for_node, for_uid, seconds}]`: another token for the
    /// caller's identity; for root, for any that is mapped here.
    pub(super) fn identity_token(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<ClaimToken, CommandError> {
        let signer = self.signer()?;
        let api::IdentityToken { options } = read(params)?;
        let wish = self.wish(&options, signer.node())?;
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        let own = directory.identity_of_caller(caller);
        let id = match &options.name {
            None => own.ok_or(Refusal::NotMapped)?,
            Some(name) => directory.find_for(name.trim_start_matches('@'), caller)?,
        };
        if owner_of(caller) != Some(Uid::ROOT) && own != Some(id) {
            return Err(Refusal::AccessDenied.into());
        }
        let uid = directory.uid_here(id).ok_or(Refusal::NotMappedThere)?;
        let row = directory.identity(id).ok_or(Refusal::UnknownIdentity)?;
        Ok(new_token(signer.as_ref(), id, row.name.clone(), uid, wish))
    }

    /// What a token shall be good for; refuses what none may be.
    fn wish(&self, options: &TokenOptions, here: &NodeName) -> Result<TokenRequest, Refusal> {
        let node = options.for_node.as_deref().map(NodeName::parse).transpose()?;
        let seconds = options.seconds.unwrap_or(TOKEN_SECONDS);
        if !(1..=Token::MOST_SECONDS).contains(&seconds) {
            return Err(Refusal::TokenLifetime(Token::MOST_SECONDS));
        }
        match node {
            Some(node) if node != *here && !self.is_known(&node) => {
                Err(Refusal::UnknownNode(node.as_str().into()))
            }
            node => Ok(TokenRequest { node, uid: options.for_uid.map(Uid), seconds }),
        }
    }

    /// `identity_claim [token]`.
    pub(super) fn identity_claim(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        let signer = self.signer()?;
        let api::IdentityClaim { token } = read(params)?;
        let written = token.to_owned();
        let uid = owner_of(caller).ok_or(Refusal::AccessDenied)?;
        let signed = Token::read(&written)?;
        let token = signed.token.clone();
        token.admits(signer.mesh(), signer.node(), uid, now_s())?;
        self.check_claimable(&token, signer.node(), uid)?;
        let (store, mesh) = (self.store.clone(), self.mesh().cloned());
        Ok(Answer::later(async move {
            let rows =
                redeemed_at_origin(&store, mesh.as_ref(), &signer, &token, &written, uid).await?;
            let mut directory = store.catalog().directory().clone();
            directory.extend(rows.iter().map(|row| row.row().clone()));
            // A token made here for a uid here, or one whose origin did not need to be asked, is
            // judged like any other.
            let origin = directory.node(&token.origin).ok_or(Refusal::TokenForged)?;
            let token = signed.check(signer.as_ref(), &origin.certificate)?;
            if directory.identity_of(&token.origin, token.origin_uid) != Some(token.identity) {
                return Err(Refusal::UnknownIdentity.into());
            }
            let claim = Claim {
                uid,
                identity: token.identity,
                rows,
                token: TokenId { id: token.id, expires_ms: token.expires_at * 1000 },
            };
            store.execute(DirectoryCommand::Claim(Box::new(claim))).await?;
            notify_origin(&store, mesh.as_ref(), signer.node(), &token, uid).await;
            let name = store.catalog().directory().show_identity(token.identity);
            Ok(format!("claimed identity '{name}'"))
        }))
    }

    /// Refuses what cannot succeed before the token is used up for it.
    fn check_claimable(&self, token: &Token, here: &NodeName, uid: Uid) -> Result<(), Refusal> {
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        match directory.bind(here, token.identity, uid, token.id, 0) {
            // Not known here yet: its origin is asked.
            Err(Refusal::UnknownIdentity) if uid == Uid::ROOT => Err(Refusal::RootNotMapped),
            Err(Refusal::UnknownIdentity) => match directory.identity_of(here, uid) {
                Some(who) => Err(Refusal::AlreadyMapped(directory.show_identity(who).into())),
                None => Ok(()),
            },
            Err(refusal) => Err(refusal),
            Ok(_) => Ok(()),
        }
    }

    /// `identity_redeem [token]`: another node asks on behalf of its user whether a token of this
    /// node is good, and uses it up. The answer is what there is to know of the identity.
    pub(super) fn identity_redeem(
        &self,
        caller: &Caller,
        params: &Bytes,
        reader: &Reader,
    ) -> Result<Answer, CommandError> {
        let signer = self.signer()?;
        let api::IdentityRedeem { token } = read(params)?;
        let Caller::Peer { node, uid: Some(uid) } = caller.clone() else {
            return Err(Refusal::AccessDenied.into());
        };
        let signed = Token::read(token)?;
        if signed.token.origin != *signer.node() {
            return Err(Refusal::TokenForged.into());
        }
        let token = signed.check(signer.as_ref(), signer.certificate())?;
        token.admits(signer.mesh(), &node, uid, now_s())?;
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        if directory.identity_of(&token.origin, token.origin_uid) != Some(token.identity) {
            return Err(Refusal::UnknownIdentity.into());
        }
        let keys: Vec<String> = directory.about(token.identity).iter().map(Row::key).collect();
        let mut rows = reader.sealed(&keys)?;
        let unverified = store::check(signer.as_ref(), directory, rows.clone()).unverified;
        // What was believed here and is signed by who does not count any more: the asker could not believe it.
        let orphans: Vec<_> = unverified.into_iter().map(|row| (row.key, row.stamp)).collect();
        let store = self.store.clone();
        Ok(Answer::later(async move {
            let token = TokenId { id: token.id, expires_ms: token.expires_at * 1000 };
            store.execute(DirectoryCommand::Redeem(Redemption { token, node, uid })).await?;
            if !orphans.is_empty() {
                store.execute(DirectoryCommand::Adopt(orphans)).await?;
                rows = store.reader(0).sealed(&keys)?;
            }
            Ok(SealedRows(rows))
        }))
    }

    /// `identity_learn [rows]`: another node says which of its users is an identity that is known
    /// here. It speaks for itself alone.
    pub(super) fn identity_learn(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        let signer = self.signer()?;
        let api::IdentityLearn { rows: SealedRows(rows) } = read(params)?;
        let Caller::Peer { node, .. } = caller else {
            return Err(Refusal::AccessDenied.into());
        };
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        let rows = store::verify(signer.as_ref(), directory, rows)?;
        let is_its_own = |row: &Row| match row {
            Row::Node(row) => row.node == *node,
            Row::Binding(row) => row.node == *node && directory.identity(row.identity).is_some(),
            Row::Identity(_)
            | Row::Unbinding(_)
            | Row::Revocation(_)
            | Row::Grant(_)
            | Row::Name(_)
            | Row::Scope(_)
            | Row::Removal(_)
            | Row::Replica(_)
            | Row::NameResolution(_)
            | Row::Dropped(_)
            | Row::Transfer(_) => false,
        };
        if !rows.iter().all(|row| is_its_own(row.row())) {
            return Err(Refusal::AccessDenied.into());
        }
        Ok(Answer::commit(DirectoryCommand::Learn(rows)))
    }

    /// `identity_list []`. Without a mesh there is none.
    pub(super) fn identity_list(&self, params: &Bytes) -> Result<Vec<Identity>, CommandError> {
        let api::IdentityList {} = read(params)?;
        Ok(self.identities())
    }

    /// What `identity_list` answers.
    #[must_use]
    pub fn identities(&self) -> Vec<Identity> {
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        directory.identities().map(|row| shown(row, directory)).collect()
    }

    /// The identity with that id, if anybody is it.
    #[must_use]
    pub fn identity(&self, id: IdentityId) -> Option<Identity> {
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        directory.identity(id).map(|row| shown(row, directory))
    }

    /// `identity_lookup [name]` or `[node, uid]`.
    pub(super) fn identity_lookup(&self, params: &Bytes) -> Result<Identity, CommandError> {
        let api::IdentityLookup { name, uid } = read(params)?;
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        let id = match uid {
            None => directory.find(name.trim_start_matches('@'))?,
            Some(uid) => {
                let node = NodeName::parse(name)?;
                directory.identity_of(&node, Uid(uid)).ok_or(Refusal::UnknownIdentity)?
            }
        };
        let row = directory.identity(id).ok_or(Refusal::UnknownIdentity)?;
        Ok(shown(row, directory))
    }

    /// `identity_revoke [name]` or `[name, node]`.
    pub(super) fn identity_revoke(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        self.signer()?;
        let api::IdentityRevoke { name, node } = read(params)?;
        let node = node.map(NodeName::parse).transpose()?;
        let catalog = self.store.catalog();
        let identity = catalog.directory().find_for(name.trim_start_matches('@'), caller)?;
        Ok(Answer::commit(DirectoryCommand::Unbind { caller: caller.clone(), identity, node }))
    }

    /// `identity_resolve [name, id]`: Resolves a name that several identities have to one of  them, which is
    /// named by its id or by the digits that distinguish it from the others.
    pub(super) fn identity_resolve(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        self.signer()?;
        let api::IdentityResolve { name, id } = read(params)?;
        self.require_admin(caller)?;
        let name = IdentityName::parse(name.trim_start_matches('@'))?;
        let digits = id.rsplit('~').next().unwrap_or_default();
        let catalog = self.store.catalog();
        let keep = catalog.directory().find(&format!("{name}~{digits}"))?;
        Ok(Answer::commit(DirectoryCommand::ResolveName { caller: caller.clone(), name, keep }))
    }

    /// True for a machine that the settings name, and for one that has presented itself: at the end of a chain
    /// the directory alone knows it.
    fn is_known(&self, node: &NodeName) -> bool {
        self.peers().contains(node) || self.store.catalog().directory().is_member(node)
    }

    /// The names of the other machines.
    pub(super) fn peers(&self) -> BTreeSet<NodeName> {
        let Some(mesh) = self.mesh() else {
            return BTreeSet::new();
        };
        mesh.view().now().peers.iter().map(|peer| peer.node.clone()).collect()
    }
}

/// The uid that an identity of that name shall be mapped to: the caller's, if the name is theirs; for
/// root the one that was named, or the user of that name.
fn whom_to_map(asking: Uid, named: Option<Uid>, name: &IdentityName) -> Result<Uid, Refusal> {
    if asking == Uid::ROOT {
        let login = name.as_str().split('.').next().unwrap_or_default();
        return named.or_else(|| users::uid_of(login)).ok_or(Refusal::RootNotMapped);
    }
    let login = users::login_of(asking).ok_or(Refusal::IdentityWithoutLogin(asking.0))?;
    if name.belongs_to(&login) { Ok(asking) } else { Err(Refusal::IdentityNotYours(login.into())) }
}

/// What is known of a token's identity once it has been used up where it was made.
async fn redeemed_at_origin(
    store: &Store,
    mesh: Option<&Mesh>,
    signer: &Arc<dyn Signer>,
    token: &Token,
    written: &str,
    uid: Uid,
) -> Result<Vec<store::VerifiedRow>, CommandError> {
    if token.origin == *signer.node() {
        return Ok(Vec::new());
    }
    let mesh = mesh.ok_or(Refusal::MeshNotConfigured)?;
    let request = api::IdentityRedeem { token: written };
    let deadline = clock::monotonic() + REDEEM_TIME;
    let SealedRows(rows) = match mesh.call(&token.origin, &request, Some(uid), deadline).await {
        Ok(rows) => rows,
        Err(AskError::Refused(why)) => return Err(said_by_origin(why).into()),
        Err(AskError::UnknownNode(node)) => {
            return Err(Refusal::UnknownNode(node.as_str().into()).into());
        }
        Err(AskError::Busy) => return Err(Refusal::NodesBusy.into()),
        Err(AskError::Malformed(_)) => return Err(Refusal::TokenForged.into()),
        // A token for this node alone is used up here, whether or not its origin can be asked; but what it
        // says can be judged by no node that does not know its identity.
        Err(_) if token.node.as_ref() == Some(signer.node()) && is_known(store, token) => {
            return Ok(Vec::new());
        }
        Err(_) => return Err(Refusal::NodeUnreachable(token.origin.as_str().into()).into()),
    };
    let checked = store::check(signer.as_ref(), store.catalog().directory(), rows);
    // What others have said of the identity is not needed for this, and comes with the directory.
    match checked.unverified.iter().find(|row| rests_on(token, &row.key)) {
        Some(row) => Err(row.refusal().into()),
        None => Ok(checked.verified),
    }
}

/// True for a row without which a token says nothing: who it is, and that its maker is them.
fn rests_on(token: &Token, key: &[u8]) -> bool {
    let Token { identity, origin, origin_uid, .. } = token;
    let needed = [
        format!("+node/{origin}"),
        format!("identity/{identity}"),
        format!("binding/{origin}/{origin_uid}"),
    ];
    needed.iter().any(|needed| needed.as_bytes() == key)
}

/// Whether this node knows enough to judge a token without asking.
fn is_known(store: &Store, token: &Token) -> bool {
    let catalog = store.catalog();
    let directory = catalog.directory();
    directory.node(&token.origin).is_some() && directory.identity(token.identity).is_some()
}

/// Lets the node that made a token know who has used it, so that it serves them at once. Where that
/// fails, it will learn of them all the same when the directory is replicated.
async fn notify_origin(
    store: &Store,
    mesh: Option<&Mesh>,
    here: &NodeName,
    token: &Token,
    uid: Uid,
) {
    let (Some(mesh), false) = (mesh, token.origin == *here) else {
        return;
    };
    let keys = [format!("+node/{here}"), format!("binding/{here}/{uid}")];
    let Ok(rows) = store.reader(0).sealed(&keys) else {
        return;
    };
    let request = api::IdentityLearn { rows: SealedRows(rows) };
    let deadline = clock::monotonic() + NOTIFY_TIMEOUT;
    if let Err(error) = mesh.call(&token.origin, &request, None, deadline).await {
        tracing::info!(node = %token.origin, %error, "{} was not notified that its token was used: {error}", token.origin);
    }
}

/// What the origin has against a token is the same that this node could have against it.
fn said_by_origin(why: Box<str>) -> Refusal {
    let known = [
        Refusal::TokenUsed,
        Refusal::TokenExpired,
        Refusal::TokenForged,
        Refusal::TokenForeign,
        Refusal::UnknownIdentity,
    ];
    let said = known.into_iter().find(|refusal| refusal.to_string() == *why);
    said.unwrap_or(Refusal::ByAnotherNode(why))
}

fn new_token(
    signer: &dyn Signer,
    identity: IdentityId,
    name: IdentityName,
    uid: Uid,
    wish: TokenRequest,
) -> ClaimToken {
    let issued_at = now_s();
    let token = Token {
        id: random::id(),
        mesh: signer.mesh(),
        identity,
        name,
        origin: signer.node().clone(),
        origin_uid: uid,
        issuer: signer.key_hash(),
        node: wish.node,
        uid: wish.uid,
        issued_at,
        expires_at: issued_at + wish.seconds,
    };
    ClaimToken {
        name: token.name.to_string(),
        fid: token.identity.to_string(),
        expires_at: token.expires_at,
        token: token.sign(signer),
    }
}

fn now_s() -> u64 {
    clock::wall_ms() / 1000
}

fn shown(row: &IdentityRow, directory: &Directory) -> Identity {
    let contested = matches!(directory.find(row.name.as_str()), Err(Refusal::IdentityContested));
    Identity {
        fed_id: directory.show_identity(row.id),
        fid: row.id.to_string(),
        mappings: directory.accounts(row.id).map(|(node, uid)| (node.to_string(), uid.0)).collect(),
        metadata: IdentityMetadata {
            home: row.home.to_string(),
            created_ms: row.created_ms,
            contested,
        },
    }
}
