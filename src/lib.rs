//! cortexd: a local-first store for the agents and services of one person's machines.
//! This file is the map; the binaries in `src/bin/` are a few lines each, everything else is in the modules below.
//!
//! # The way of a request
//!
//! ```text
//!       bytes              typed                    decided                 durable
//!
//!  client ──> edge ──> Request + Caller ──> service ──> writer ──> commit ──> reply
//!  peer ──TLS─┤ frames   uid or node        │ gate       │ gate, once more
//!             └ bounds, order of replies     │            └ one transaction for all that wait
//!                                            └──> readers: a snapshot, past the writer
//! ```
//!
//! A client's bytes become frames and then a request in [`edge`], which knows from the socket who is calling.
//! [`service`] judges it by a pure function of `cortex-core` and either answers it from a reader's snapshot or
//! hands a command to the writer of [`store`]. The writer takes all commands that wait into one transaction,
//! judges each again, and the replies leave after the commit.
//!
//! # Five rules
//!
//! 1. **One request path.** A transport makes a caller and moves bytes. Below [`service`] nothing can tell
//!    which transport a request came by.
//! 2. **One writer.** One thread owns the connection that writes and the clock that stamps. Nothing is
//!    answered before it is on disk.
//! 3. **One entrance.** Rows of tables that are here alone, rows of shared ones, what arrives from other nodes and
//!    the directory's own are written by one function, `put_version` in `src/store/tx/versions.rs`, with their
//!    origin. It keeps totals, digest, change log, contexts, conflict ledger and cache with the row.
//! 4. **A pure core.** `cortex-core` is given time and randomness, and touches neither files nor sockets, so
//!    it can be run by the million in tests.
//! 5. **A bound on everything.** Messages, queues, connections, lists under way, tables and bytes of a user:
//!    each has a limit, and what happens at the limit is written beside it.
//!
//! # Where to find what
//!
//! | to change | look in |
//! |---|---|
//! | what names, keys, grants and records are | `src/core/model/` |
//! | who may do what | `src/core/gate/` |
//! | who is who, where tables may be | `src/core/directory/` |
//! | what replicas of a table ask of each other, what follows | `src/core/replication/`; stored by [`store`], sent by [`edge::peer`] |
//! | the bytes of requests and replies | `src/core/wire/` |
//! | a method | `src/core/wire/method.rs`, `src/core/api/` for what it is asked and answers, then [`service`] |
//! | what is on disk, and when | [`store`]; what a command does in its transaction, `src/store/tx/` |
//! | connections, their bounds, their order | [`edge`] |
//! | the other machines: their port, links, requests to them | [`edge::peer`]; what requests see of them, [`service::mesh`] |
//! | who is alive | `src/core/membership.rs` |
//! | what machines say to each other | `src/core/wire/link.rs`; of replicas of tables, `src/core/wire/replication.rs` |
//! | when rows travel, and which | `src/core/replication/`: `driver` decides for one link, by `session`, `reader` and `source`; `src/edge/peer/replication/` does it |
//! | what is known of replicas on other nodes | `src/core/replication/peer.rs`; shown by [`service::sync`] |
//! | what replicas need not keep, clocks that were mended, replicas that have diverged | `src/core/replication/upkeep/` decides, by `tombstone_gc.rs`; `src/edge/peer/upkeep.rs` does it |
//! | settings, start and stop, signals | [`daemon`]; the files of settings, [`sys::fragments`] |
//! | a command of `cortex` | [`cli`], which speaks through `cortex-client` |
//! | how programs call the daemon | `src/client/`, package `cortex-client` |
//! | where socket and data are | [`sys::paths`] |
//! | keys, certificates, who belongs to the mesh | [`pki`] |
//! | what is advised where a node is not reached | [`remedy`] |
//! | the clock and randomness | [`sys::clock`], [`sys::random`] |
//! | which rule a function keeps, for tests that break it | `src/core/rule.rs`, `src/mutant/` |
//! | the dashboard | `tui/` |
//!
//! # Who may import whom
//!
//! ```text
//!  cortex-core <── store <── service <── edge <── daemon <── bin/cortexd
//!       ^
//!       ├── cortex-client <── cli <── bin/cortex
//!       └── cortex-top (tui/)
//!
//!  pki <── edge, daemon, cli
//!
//!  within the core:  model <── clock, gate        clock, directory <── replication <── wire::replication, wire::link
//!                    wire <── model::record              model <── wire::rpc       model, wire <── api
//!                    directory, replication <── api::peers, api::comparison
//! ```
//!
//! Nobody imports [`daemon`], which puts the parts together; [`sys`] and [`remedy`] import nobody. Cargo
//! holds the walls between packages, `deny.toml` those around crates, and `tests/tidy.rs` those between modules.

pub mod cli;
pub mod daemon;
pub mod edge;
pub mod pki;
pub mod remedy;
pub mod service;
pub mod store;
pub mod sys;
