//! Machines that know each other: certificates, handshakes, links, requests to another machine.

mod peers;
mod pki;
