//! Commands about the daemon itself: `ping` and `status`.
//! Leaves what they report to the daemon.

use cortex_client::api::{Ping, Status};

use super::context::Context;
use super::failure::Failure;

pub(crate) fn ping(context: &Context) -> Result<(), Failure> {
    context.call(&Ping {})
}

pub(crate) fn status(context: &Context) -> Result<(), Failure> {
    context.call(&Status {})
}
