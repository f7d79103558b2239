//! Claim tokens that were used. Making and checking them is the service's.

use cortex_core::{
    directory::{BindingRow, Directory, Row},
    model::{NodeName, Refusal, Uid},
};
use rusqlite::{OptionalExtension, params};

use crate::store::{
    command::{DirectoryOutcome, Redemption, TokenId},
    error::{CommandError, StoreError},
    events::Event,
    tx::Tx,
};

/// Tokens that are remembered as used. At a token a second, a day's worth.
const USED_TOKENS: i64 = 100_000;

/// For so long a token is good at most, in milliseconds.
const TOKEN_LIFE_MS: u64 = 86_400_000;

/// Notes the tokens by which others have bound their users. The row may be replaced while the
/// token is still good.
pub(crate) fn note_tokens(tx: &Tx<'_>, rows: &[Row]) -> Result<(), CommandError> {
    for row in rows {
        let Row::Binding(BindingRow { node, uid, bound_ms, token: Some(id), .. }) = row else {
            continue;
        };
        let token = TokenId { id: *id, expires_ms: bound_ms.saturating_add(TOKEN_LIFE_MS) };
        if token.expires_ms > tx.wall_ms && user_of(tx, &token)?.is_none() {
            use_up(tx, &token, node, *uid)?;
        }
    }
    Ok(())
}

/// Notes that a token of this node was used. The same user may ask again, as long as it is the
/// same database that asks: the answer may have been lost on its way.
pub(crate) fn redeem(
    tx: &mut Tx<'_>,
    redemption: &Redemption,
) -> Result<DirectoryOutcome, CommandError> {
    let Redemption { token, node, uid } = redemption;
    match user_of(tx, token)? {
        Some(user) if user == (node.clone(), *uid) && !was_bound_by_another(tx, redemption) => {}
        Some(_) => return Err(Refusal::TokenUsed.into()),
        None => {
            use_up(tx, token, node, *uid)?;
            let text = format!("a claim token was redeemed by uid {uid} of {node}");
            tx.note(&Event { uid: None, kind: "token_redeemed", text })?;
        }
    }
    Ok(DirectoryOutcome::Redeemed)
}

/// True where a user other than the one who asks was bound by a token, or the same one on a database
/// that their machine does not have any more: what was used stays used when a disk is wiped.
fn was_bound_by_another(tx: &Tx<'_>, redemption: &Redemption) -> bool {
    let Redemption { token, node, uid } = redemption;
    let directory = tx.directory();
    let current = directory.node(node).map(|row| row.database);
    directory.bound_by(&token.id).any(|row| {
        let is_current = current.is_none_or(|current| current == row.database);
        row.node != *node || row.uid != *uid || !is_current || directory.is_removed(&row.database)
    })
}

/// Who has used a token.
pub(crate) fn user_of(tx: &Tx<'_>, token: &TokenId) -> Result<Option<(NodeName, Uid)>, StoreError> {
    let used = tx
        .cached("SELECT node, uid FROM used_tokens WHERE id = ?1")?
        .query_row([token.id], |row| Ok((row.get::<_, String>(0)?, Uid(row.get(1)?))))
        .optional()?;
    let named = used.map(|(node, uid)| NodeName::parse(&node).map(|node| (node, uid)));
    named.transpose().map_err(|_| StoreError::Corrupt("a used token names no node".into()))
}

pub(crate) fn use_up(
    tx: &Tx<'_>,
    token: &TokenId,
    node: &NodeName,
    uid: Uid,
) -> Result<(), CommandError> {
    let now = i64::try_from(tx.wall_ms).unwrap_or(i64::MAX);
    tx.execute("DELETE FROM used_tokens WHERE expires_ms < ?1", [now])?;
    let kept: i64 =
        tx.cached("SELECT count(*) FROM used_tokens")?.query_row([], |row| row.get(0))?;
    if kept >= USED_TOKENS {
        return Err(Refusal::DirectoryFull(Directory::MOST_ROWS).into());
    }
    tx.execute(
        "INSERT INTO used_tokens (id, expires_ms, node, uid) VALUES (?1, ?2, ?3, ?4)",
        params![
            token.id,
            i64::try_from(token.expires_ms).unwrap_or(i64::MAX),
            node.as_str(),
            uid.0
        ],
    )?;
    Ok(())
}
