//! The decisions of cortexd: vocabulary, codecs and rules, as pure functions.
//! Sockets, files, SQLite, clocks and randomness are left to the daemon; time comes in as an argument.
//!
//! ```text
//!   model  <-  clock, directory, membership          what things are <- what may happen to them
//!   directory  <-  gate                              who is who <- who may do what
//!   replication <- directory                         replicas of tables on several nodes
//!   wire   <-  model, replication                    bytes of requests, replies, and links between nodes
//!   api    <-  model, wire                           what each method is asked, and what it answers
//!   backoff                                        how long to wait after a failure
//!   rule   <-  directory, replication                what holds, by name, so that tests can break it
//! ```
//!
//! Nothing in here performs I/O, so every rule can be run by the million in a simulation.
//!
//! # Glossary
//!
//! One concept has one name, in code, comments, messages and manuals; `tests/tidy.rs` keeps retired ones out.
//!
//! | word | what it is | known from |
//! |---|---|---|
//! | **actor** | who a version was written by: a node's database between two rollbacks. Its id is *rotated* after a rollback, since sequence numbers may have been lost with the disk | Dotted Version Vectors (Preguiça et al., 2010), Riak |
//! | **dot** | one write: (actor, sequence number) | the same |
//! | **version vector** | for each actor, the sequence number up to which its writes have been incorporated | Parker et al., 1983 |
//! | **stamp** | a version's place in the merge order: hybrid logical clock, then actor | Kulkarni et al., 2014 |
//! | **change log**, **LSN**, **truncated LSN** | a replica's local order of changes, its positions, and up to where it is gone | PostgreSQL, Kafka |
//! | **replica**, **replica epoch** | a node's copy of a table; the time from its admission to the table's scope to its end, numbered | Kafka's leader epoch |
//! | **pull request**, **batch**, **ack**, **parked** | the exchange: a reader asks a source, which answers with rows, or keeps the request until there are some | Kafka's fetch |
//! | **snapshot transfer**, **delta** | the two kinds of transfer: the whole replica in key order, or its change log from an LSN | |
//! | **resolve** | decide which of two versions of a row wins: last write wins by stamp | CouchDB, Cassandra |
//! | **conflict**, **losing version**, **causal context** | two versions of which neither writer had seen the other; what lost; what a writer had seen | Dynamo |
//! | **re-announce** | send a row again that a source may lack | |
//! | **tombstone**, **tombstone GC**, **GC watermark** | a deletion that is remembered; forgetting it once every replica has it; up to where that was done | Cassandra's `gc_grace`, by knowledge instead of time |
//! | **replica status**, **status gossip** | what a node reports of its replica; passing that on | |
//! | **heartbeat**, **suspect**, **dead** | what each end of a link sends every second; what a node is without it, soon and later | gossip failure detectors |
//! | **quarantine** | rows that cannot be verified, and wait until they can | |
//! | **drain**, **decommission**, **abandon** | hand over what only this replica has, and end it; end a node; give up what only it had | Cassandra, Kubernetes |
//! | **rollback marker** | proof outside the database of how far it had come | |
//! | **exposure watermark** | the highest timestamp that a peer may have observed | |
//! | **reconcile** | bring what is in line with what is decided | Kubernetes |
//! | **directory** | who is who and what is decided: signed rows of a system table that every node has | |
//! | **signer**, **verifier** | who signs rows of the directory, who checks them | |

#![warn(missing_docs)]

// `#[mutant]` names this package from the outside, for the store uses it too.
extern crate self as cortex_core;

pub mod api;
pub mod backoff;
pub mod clock;
pub mod directory;
pub mod gate;
pub mod membership;
pub mod model;
pub mod replication;
pub mod rule;
pub mod wire;
