//! What comes with the server and is no part of it: clients, a load generator, and the doctor.

pub mod bench;
pub mod client;
pub mod doctor;
pub mod numbers;
pub mod wire;
