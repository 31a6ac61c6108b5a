//! Server-Sent Events on real sockets: what a stream begins with, what each event looks like, and
//! the resume contract with every kind of cursor and every kind of gap.

mod resume;
mod stream;
