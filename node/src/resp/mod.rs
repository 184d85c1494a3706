//! RESP: the bytes that Redis clients speak, in both of its versions, without a socket in sight.
//!
//! Two halves, one for each direction. [`RequestParser`] turns what a client sent into borrowed
//! arguments: nothing is copied, nothing is scanned twice, and no header, whatever number it
//! announces, makes it reserve memory. [`Reply`] is what a command answers, and knows how to
//! write itself in the version that the client chose with `HELLO`.

mod inline;
mod reply;
mod request;

pub use reply::{Protocol, Reply, write_bulk, write_integer};
pub use request::{Argv, Limits, ProtocolError, Request, RequestParser};
