//! Commands about the daemon itself: `ping` and `status`.
//! Leaves what they report to the daemon.

use super::context::Context;
use super::failure::Failure;
use crate::client::Params;

pub(crate) fn ping(context: &Context) -> Result<(), Failure> {
    context.call("ping", &Params::new())
}

pub(crate) fn status(context: &Context) -> Result<(), Failure> {
    context.call("status", &Params::new())
}
