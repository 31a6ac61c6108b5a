//! HTTP/2: what HTTP/1.1 has, many streams on one connection, windows, and clients that do too much.

mod attacks;
mod clients;
mod front_ends;
mod python;
mod streams;
mod turns;
mod windows;
