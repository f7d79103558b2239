//! Certificates: what credentials are refused for, and what peers are, over real TLS and by openssl(1).
//! Leaves the commands that make them to `mesh_cli`.

mod files;
mod handshake;
mod invitation;
mod lab;
mod rows;
mod stranger;
