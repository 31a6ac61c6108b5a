//! What comes with the server but is not part of it: clients, a load generator, and the doctor.

pub(crate) mod bench;
pub(crate) mod client;
pub mod doctor;
pub mod numbers;
pub mod wire;
