//! HTTP/1.1 (RFC 9112), server side: heads and bodies in, responses out.

pub mod body;
mod error;
pub mod head;
mod interpret;
pub(crate) mod query;
pub(crate) mod response;
pub(super) mod scan;
mod syntax;
#[cfg(test)]
mod tests;
