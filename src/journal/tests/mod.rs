//! Behaviour of the journal. `crashes` has the whole log on a simulated disk, life after life;
//! `starts` has what a start need not read.

mod crashes;
mod starts;
