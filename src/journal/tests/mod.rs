//! Behaviour of the journal. `crashes` has the whole log on a simulated disk, life after life;
//! `starts` has what a start need not read.

mod crashes;
mod starts;

use crate::log::event::Publication;
use crate::log::message::{Ask, Counts, Share, Ticket, ToLog};

/// What the first worker says to publish an event.
fn publish(ticket: Ticket, publication: Publication) -> ToLog {
    let publications = vec![publication];
    let body = Ask::Publish { ticket, share: Share::Whole, counts: Counts::Here, publications };
    ToLog::Worker { worker: 0, body }
}
