//! What the Debian package does on a Debian that has booted: promises D1 and D4.
//! The D-Bus interface has a module of its own.

mod activation;
