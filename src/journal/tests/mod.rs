//! Behaviour of the journal. `crashes` has the whole log on a simulated disk, life after life.

mod crashes;
