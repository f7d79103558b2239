//! Commands about federated names: `identity register`, `token`, `claim`, `list`, `lookup`, `revoke`, `resolve`.
//! Leaves who may be whom to the daemon.

use std::io::Read as _;

use clap::{Args, Subcommand};
use cortex_client::api::{self, TokenOptions};

use super::context::Context;
use super::failure::{Exit, Failure};

/// The longest token that is read from standard input.
const TOKEN_BYTES: u64 = 8192;

#[derive(Debug, Subcommand)]
pub(crate) enum Identity {
    /// Make a federated name yours on this node, and print a token that claims it on another
    Register(Register),
    /// Print another token for your federated name: one that was printed before may have expired
    Token(Token),
    /// Become on this node whom a token says
    Claim(Claim),
    /// List the federated names of the mesh, and who is each of them on which node
    List,
    /// Show one federated name, by itself or by a uid of a node
    Lookup(Lookup),
    /// Take a federated name away from its uid on one node, or on all
    Revoke(Revoke),
    /// Resolve a name that two have registered to one of them, as root; the other keeps all but the bare name
    Resolve(Resolve),
}

/// For whom a token is good, and for how long.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Good on that node alone, where it can be claimed while this one is off
    #[arg(long, value_name = "NODE")]
    for_node: Option<String>,
    /// Good for that uid of the other node alone
    #[arg(long, value_name = "UID")]
    for_uid: Option<u32>,
    /// Good for so many minutes, at most 1440, a day [default: 60]
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Register {
    /// The name: your login name or one below it, such as alice.work; root may register any
    name: String,
    /// Whose name it is to be, for root: that uid of this node [default: the user of that name]
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    #[command(flatten)]
    good: TokenArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    /// For root: whose token; otherwise your own
    name: Option<String>,
    #[command(flatten)]
    good: TokenArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Claim {
    /// The token, or - to read it from standard input, where no list of processes shows it
    token: String,
}

#[derive(Debug, Args)]
pub(crate) struct Lookup {
    /// A federated name; with UID, the name of a node
    #[arg(value_name = "NAME|NODE")]
    name: String,
    /// A uid of that node
    uid: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The federated name
    name: String,
    /// The node; without it, everywhere
    node: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Resolve {
    /// The contested name
    name: String,
    /// Who keeps it: the id, or the digits of it that `identity list` shows after the ~
    #[arg(long, value_name = "ID")]
    keep: String,
}

pub(crate) fn run(command: &Identity, context: &Context) -> Result<(), Failure> {
    match command {
        Identity::Register(Register { name, uid, good }) => {
            let options = TokenOptions { uid: *uid, ..good.options() };
            context.call(&api::IdentityRegister { name, options })
        }
        Identity::Token(Token { name, good }) => {
            let options = TokenOptions { name: name.clone(), ..good.options() };
            context.call(&api::IdentityToken { options })
        }
        Identity::Claim(args) => context.call(&api::IdentityClaim { token: &token(&args.token)? }),
        Identity::List => context.call(&api::IdentityList {}),
        Identity::Lookup(Lookup { name, uid }) => {
            context.call(&api::IdentityLookup { name, uid: *uid })
        }
        Identity::Revoke(Revoke { name, node }) => {
            context.call(&api::IdentityRevoke { name, node: node.as_deref() })
        }
        Identity::Resolve(Resolve { name, keep }) => {
            let outcome = context.call(&api::IdentityResolve { name, id: keep });
            outcome.map_err(Failure::about_administration)
        }
    }
}

impl TokenArgs {
    /// The same as options of the request.
    fn options(&self) -> TokenOptions {
        TokenOptions {
            for_node: self.for_node.clone(),
            for_uid: self.for_uid,
            seconds: self.minutes.map(|minutes| minutes * 60),
            ..TokenOptions::default()
        }
    }
}

fn token(argument: &str) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    std::io::stdin()
        .take(TOKEN_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| Failure::while_doing("reading the token", error))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(Failure::new(Exit::Usage, "no token on standard input"));
    }
    Ok(token.to_owned())
}
