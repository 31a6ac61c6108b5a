//! The public listener as an HTTP client sees it, on real sockets: what each request does, how it
//! is answered, and that answers come in order however requests arrive.

mod connections;
mod history;
mod lines;
mod publish;
mod statuses;
