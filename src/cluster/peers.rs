//! What nodes say to each other beside the stream because it need not be kept: that they are here, and
//! how many subscribers a channel has. Sans-IO: it is told what was heard, and says what to say. All
//! nodes hear everything; what gets lost is repeated, or not needed.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::log::store::Answered;

/// How often a node says that it is here.
pub const HERE_PAUSE: Duration = Duration::from_secs(1);

/// A node that has not said so for this long is gone.
const GONE_AFTER: Duration = Duration::from_millis(3500);

/// How long the others may take to count.
const COUNT_TIME_MAX: Duration = Duration::from_millis(500);

/// Most nodes that are remembered, so that a node that lies about its name fills no memory.
const NODES_MAX: usize = 1024;

/// Something that is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Aside {
    /// I am here.
    Here(Here),
    /// How many subscribers does this channel have at each node?
    Count {
        /// Who asks.
        node: String,
        /// Identifies the question.
        number: u64,
        /// The channel.
        channel: String,
    },
    /// The answer of one node.
    Counted {
        /// Who asked.
        to: String,
        /// As asked.
        number: u64,
        /// Who answers.
        node: String,
        /// The subscribers.
        subscribers: u32,
    },
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Here {
    /// Its name, a new one at each start.
    pub node: String,
    /// Of the program.
    pub version: String,
    /// The newest event that came to it.
    pub head: u64,
    /// Connections it holds.
    pub connections: u64,
    /// For how long it has lacked messages of the stream, in milliseconds.
    pub behind_ms: u64,
}

/// What follows from what was heard.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// Nothing.
    Nothing,
    /// Another node asks for a count.
    Count {
        /// Who asks.
        to: String,
        /// Echoed.
        number: u64,
        /// The channel.
        channel: String,
    },
    /// This publication is answered, and counted.
    Done(Answered),
}

/// The other nodes, and what they are asked.
#[derive(Debug)]
pub struct Peers {
    node: String,
    others: HashMap<String, (Here, Duration)>,
    counting: HashMap<u64, Counting>,
}

#[derive(Debug)]
struct Counting {
    awaited: Vec<String>,
    sum: u32,
    until: Duration,
    answered: Option<Answered>,
}

impl Counting {
    fn done(&self) -> Option<Answered> {
        let counted = self.awaited.is_empty();
        let answered = self.answered.filter(|_| counted)?;
        Some(Answered { elsewhere: Some(self.sum), ..answered })
    }
}

impl Peers {
    /// Of the node of this name.
    pub fn new(node: String) -> Self {
        Self { node, others: HashMap::new(), counting: HashMap::new() }
    }

    /// This node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Nodes that are there, in the order of their names.
    pub fn others(&mut self, now: Duration) -> Vec<Here> {
        self.others.retain(|_, (_, at)| now.saturating_sub(*at) < GONE_AFTER);
        let mut others: Vec<Here> = self.others.values().map(|(here, _)| here.clone()).collect();
        others.sort_unstable_by(|one, other| one.node.cmp(&other.node));
        others
    }

    /// Begins to count the subscribers a publication has at all nodes. Returns what to say.
    pub fn count(&mut self, number: u64, channel: &str, now: Duration) -> Option<Aside> {
        let awaited: Vec<String> = self.others(now).into_iter().map(|here| here.node).collect();
        let is_alone = awaited.is_empty();
        let until = now + COUNT_TIME_MAX;
        self.counting.insert(number, Counting { awaited, sum: 0, until, answered: None });
        let (node, channel) = (self.node.clone(), channel.to_owned());
        (!is_alone).then_some(Aside::Count { node, number, channel })
    }

    /// The broker has answered a publication. Returns the answer, unless it has to wait for a count.
    pub fn answered(&mut self, answered: Answered) -> Option<Answered> {
        let number = answered.number;
        let Some(counting) = self.counting.get_mut(&number) else { return Some(answered) };
        counting.answered = Some(answered);
        self.settle(number)
    }

    /// Takes all that was heard. Returns the answers whose counts are complete, and what to say.
    /// `subscribers` gives those of a channel at this node.
    pub fn heed(
        &mut self,
        said: Vec<Aside>,
        now: Duration,
        mut subscribers: impl FnMut(&str) -> u32,
    ) -> (Vec<Answered>, Vec<Aside>) {
        let (mut counted, mut answers) = (self.overdue(now), Vec::new());
        for aside in said {
            match self.hear(aside, now) {
                Heard::Nothing => {}
                Heard::Done(answered) => counted.push(answered),
                Heard::Count { to, number, channel } => {
                    let (node, subscribers) = (self.node.clone(), subscribers(&channel));
                    answers.push(Aside::Counted { to, number, node, subscribers });
                }
            }
        }
        (counted, answers)
    }

    /// Something was said.
    fn hear(&mut self, aside: Aside, now: Duration) -> Heard {
        match aside {
            Aside::Here(here) if here.node != self.node => {
                let known = self.others.contains_key(&here.node);
                if known || self.others.len() < NODES_MAX {
                    self.others.insert(here.node.clone(), (here, now));
                }
                Heard::Nothing
            }
            Aside::Count { node, number, channel } if node != self.node => {
                Heard::Count { to: node, number, channel }
            }
            Aside::Counted { to, number, node, subscribers } if to == self.node => {
                let Some(counting) = self.counting.get_mut(&number) else { return Heard::Nothing };
                let Some(place) = counting.awaited.iter().position(|other| *other == node) else {
                    return Heard::Nothing;
                };
                counting.awaited.swap_remove(place);
                counting.sum = counting.sum.saturating_add(subscribers);
                self.settle(number).map_or(Heard::Nothing, Heard::Done)
            }
            _ => Heard::Nothing,
        }
    }

    /// Ends counts that took too long, with the sum of the nodes that answered.
    fn overdue(&mut self, now: Duration) -> Vec<Answered> {
        let late = self.counting.iter_mut().filter(|(_, counting)| counting.until <= now);
        let late: Vec<u64> = late
            .map(|(number, counting)| {
                counting.awaited.clear();
                *number
            })
            .collect();
        late.into_iter().filter_map(|number| self.settle(number)).collect()
    }

    fn settle(&mut self, number: u64) -> Option<Answered> {
        let done = self.counting.get(&number)?.done()?;
        self.counting.remove(&number);
        Some(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn here(node: &str) -> Aside {
        Aside::Here(Here { node: node.to_owned(), ..Here::default() })
    }

    fn counted(node: &str, subscribers: u32) -> Aside {
        Aside::Counted { to: "a".to_owned(), number: 7, node: node.to_owned(), subscribers }
    }

    fn answer() -> Answered {
        Answered { number: 7, seq: Some(9), elsewhere: None }
    }

    #[test]
    fn a_publication_is_answered_once_all_who_are_there_have_counted() {
        let mut peers = Peers::new("a".to_owned());
        for node in ["a", "b", "c"] {
            peers.hear(here(node), S);
        }
        assert_eq!(peers.others(S).len(), 2);
        assert!(peers.count(7, "news", S).is_some());
        assert_eq!(peers.hear(counted("b", 2), S), Heard::Nothing);
        assert_eq!(peers.hear(counted("b", 2), S), Heard::Nothing, "doubled");
        assert_eq!(peers.answered(answer()), None);
        let done = Answered { elsewhere: Some(5), ..answer() };
        assert_eq!(peers.hear(counted("c", 3), S), Heard::Done(done));
        assert_eq!(peers.answered(answer()), Some(answer()), "this one is not counted");
    }

    #[test]
    fn who_is_gone_or_silent_is_not_waited_for() {
        let mut peers = Peers::new("a".to_owned());
        peers.hear(here("b"), S);
        peers.count(7, "news", S);
        assert_eq!(peers.answered(answer()), None);
        assert_eq!(peers.overdue(S), []);
        assert_eq!(peers.overdue(2 * S), [Answered { elsewhere: Some(0), ..answer() }]);
        assert!(peers.count(7, "news", 9 * S).is_none(), "no one is there to be asked");
        assert_eq!(peers.answered(answer()).and_then(|of| of.elsewhere), Some(0));
    }
}
