//! What nodes say to each other beside the stream because it need not be kept: that they are here, how
//! many subscribers a channel has, and what an operator asks of another node. Sans-IO: it is told what was
//! heard, and says what to say. What is for one node is heard by that node alone; what gets lost is
//! repeated, or not needed.

use std::collections::HashMap;
use std::time::Duration;

use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::LogSide;
use crate::log::store::Answered;

/// How often a node says that it is here.
const HERE_PAUSE: Duration = Duration::from_secs(1);

/// A node that has not said so for this long is gone.
const GONE_AFTER: Duration = Duration::from_millis(3500);

/// How long the others may take to count.
const COUNT_TIME_MAX: Duration = Duration::from_millis(500);

/// How long another node may take to answer an operator's question; then it is silent.
pub const QUESTION_TIME_MAX: Duration = Duration::from_secs(1);

/// Digits of a node's name.
const NAME_DIGITS: usize = 16;

/// The name of the node with this number.
fn node_name(number: u64) -> String {
    format!("{number:0NAME_DIGITS$x}")
}

/// Whether this may be a node's name: nothing else may get into a subject.
pub fn is_node_name(text: &str) -> bool {
    text.len() == NAME_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

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
        /// The node that asks.
        node: String,
        /// Identifies the question.
        number: u64,
        channel: String,
    },
    /// The answer of one node.
    Counted {
        /// The node that asked.
        to: String,
        /// From the question.
        number: u64,
        /// Who answers.
        node: String,
        /// How many it has.
        subscribers: u32,
    },
    /// An operator's question.
    Ask {
        /// The node that is asked.
        to: String,
        /// The node that asks.
        node: String,
        /// Comes back with the answer.
        number: u64,
        question: Question,
    },
    /// The answer to an operator's question.
    Answer {
        /// The node that asked.
        to: String,
        /// From the question.
        number: u64,
        answer: Answer,
    },
}

impl Aside {
    /// The node that is to hear it; none: all.
    pub fn to(&self) -> Option<&str> {
        match self {
            Self::Here(_) | Self::Count { .. } => None,
            Self::Counted { to, .. } | Self::Ask { to, .. } | Self::Answer { to, .. } => Some(to),
        }
    }
}

/// What an operator may ask of another node than the one that hears it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// A page of its connections.
    Connections {
        /// After this one; none: from the first.
        after: Option<String>,
        /// At most this many.
        limit: usize,
        /// Only those of this subject.
        subject: Option<String>,
    },
    /// To end this connection.
    Cut(String),
}

/// What that node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Connections, as its own operator would see them.
    Connections {
        connections: Vec<Value>,
        /// The next page begins after this one; none: these were the last.
        next: Option<String>,
    },
    /// Whether there was such a connection.
    Cut(bool),
}

/// A question of another node.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// The node that asks.
    pub node: String,
    /// To be sent back with the answer.
    pub number: u64,
    pub question: Question,
}

impl Asked {
    /// What to say to this.
    pub fn answer(self, answer: Answer) -> Aside {
        Aside::Answer { to: self.node, number: self.number, answer }
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Here {
    /// Its name, a new one at each start.
    pub node: String,
    pub version: String,
    /// The newest event that came to it.
    pub head: u64,
    pub connections: u64,
    /// For how long it has lacked messages of the stream, in milliseconds.
    pub behind_ms: u64,
}

/// What follows from what was heard.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    /// Another node asks for a count.
    Count {
        /// The node that asks.
        to: String,
        /// To be sent back with the answer.
        number: u64,
        /// Whose subscribers at this node are counted.
        channel: String,
    },
    /// This publication is answered, and counted.
    Done(Answered),
    /// To answer another node.
    Asked(Asked),
}

/// What follows from all that was heard.
#[derive(Debug, Default)]
pub struct Heeded {
    /// Publications that are answered, and counted by now.
    pub counted: Vec<Answered>,
    pub say: Vec<Aside>,
}

/// The other nodes, and what they are asked.
#[derive(Debug)]
pub struct Peers {
    node: String,
    others: HashMap<String, (Here, Duration)>,
    counting: HashMap<u64, Counting>,
    asking: HashMap<u64, Asking>,
    questions: u64,
    said_here_at: Option<Duration>,
    /// Said by others, and not dealt with yet.
    heard: Vec<Aside>,
}

/// A question of this node's operator.
#[derive(Debug)]
struct Asking {
    /// Where the answer goes, if it comes.
    tell: Sender<Answer>,
    until: Duration,
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
    /// Of the node of this number, which tells it from all others.
    pub fn new(node: u64) -> Self {
        Self {
            node: node_name(node),
            others: HashMap::new(),
            counting: HashMap::new(),
            asking: HashMap::new(),
            questions: 0,
            said_here_at: None,
            heard: Vec::new(),
        }
    }

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

    /// A question to another node; what to say. Without an answer in time the sender is dropped, and it
    /// is at once where the node is not known.
    pub fn ask(
        &mut self,
        to: String,
        question: Question,
        tell: Sender<Answer>,
        now: Duration,
    ) -> Option<Aside> {
        if !self.others(now).iter().any(|here| here.node == to) {
            return None;
        }
        self.questions += 1;
        let number = self.questions;
        self.asking.insert(number, Asking { tell, until: now + QUESTION_TIME_MAX });
        Some(Aside::Ask { to, node: self.node.clone(), number, question })
    }

    /// Whether it is time to say that this node is here; then that is said.
    pub fn is_here_due(&mut self, now: Duration) -> bool {
        let is_due = self.said_here_at.is_none_or(|at| now.saturating_sub(at) >= HERE_PAUSE);
        if is_due {
            self.said_here_at = Some(now);
        }
        is_due
    }

    /// Another node, or this one, has said something; what no node says is left out.
    pub fn note(&mut self, said: &[u8]) {
        self.heard.extend(serde_json::from_slice::<Aside>(said).ok());
    }

    /// Handles what was heard.
    pub fn heed(&mut self, log: &mut dyn LogSide) -> Heeded {
        let now = log.now();
        self.asking.retain(|_, asking| asking.until > now);
        let mut heeded = Heeded { counted: self.overdue(now), say: Vec::new() };
        for aside in std::mem::take(&mut self.heard) {
            match self.hear(aside, now) {
                Heard::Nothing => {}
                Heard::Done(answered) => heeded.counted.push(answered),
                Heard::Count { to, number, channel } => {
                    let (node, subscribers) = (self.node.clone(), log.subscribers(&channel));
                    heeded.say.push(Aside::Counted { to, number, node, subscribers });
                }
                Heard::Asked(asked) => log.asked(asked),
            }
        }
        heeded
    }

    fn hear(&mut self, aside: Aside, now: Duration) -> Heard {
        match aside {
            Aside::Here(here) if here.node != self.node => {
                let known = self.others.contains_key(&here.node);
                if known || self.others.len() < NODES_MAX {
                    self.others.insert(here.node.clone(), (here, now));
                }
                Heard::Nothing
            }
            Aside::Count { node, number, channel } if node != self.node && is_node_name(&node) => {
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
            Aside::Ask { to, node, number, question } if to == self.node && is_node_name(&node) => {
                Heard::Asked(Asked { node, number, question })
            }
            Aside::Answer { to, number, answer } if to == self.node => {
                if let Some(Asking { tell, .. }) = self.asking.remove(&number) {
                    // The operator may have given up.
                    let _ = tell.try_send(answer);
                }
                Heard::Nothing
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

    fn here(node: u64) -> Aside {
        Aside::Here(Here { node: node_name(node), ..Here::default() })
    }

    fn counted(node: u64, subscribers: u32) -> Aside {
        Aside::Counted { to: node_name(1), number: 7, node: node_name(node), subscribers }
    }

    fn answer() -> Answered {
        Answered { number: 7, seq: Some(9), elsewhere: None }
    }

    #[test]
    fn a_publication_is_answered_once_all_who_are_there_have_counted() {
        let mut peers = Peers::new(1);
        for node in 1..=3 {
            peers.hear(here(node), S);
        }
        assert_eq!(peers.others(S).len(), 2);
        assert!(peers.count(7, "news", S).is_some());
        assert_eq!(peers.hear(counted(2, 2), S), Heard::Nothing);
        assert_eq!(peers.hear(counted(2, 2), S), Heard::Nothing, "doubled");
        assert_eq!(peers.answered(answer()), None);
        let done = Answered { elsewhere: Some(5), ..answer() };
        assert_eq!(peers.hear(counted(3, 3), S), Heard::Done(done));
        assert_eq!(peers.answered(answer()), Some(answer()), "this one is not counted");
    }

    #[test]
    fn who_is_gone_or_silent_is_not_waited_for() {
        let mut peers = Peers::new(1);
        peers.hear(here(2), S);
        peers.count(7, "news", S);
        assert_eq!(peers.answered(answer()), None);
        assert_eq!(peers.overdue(S), []);
        assert_eq!(peers.overdue(2 * S), [Answered { elsewhere: Some(0), ..answer() }]);
        assert!(peers.count(7, "news", 9 * S).is_none(), "no one is there to be asked");
        assert_eq!(peers.answered(answer()).and_then(|of| of.elsewhere), Some(0));
    }

    #[test]
    fn a_question_is_answered_once_and_a_node_that_is_not_there_is_not_asked() {
        let mut peers = Peers::new(1);
        peers.hear(here(2), S);
        let (tell, told) = crossbeam_channel::bounded(1);
        let question = || Question::Cut("0-1-2".to_owned());
        assert_eq!(peers.ask(node_name(3), question(), tell.clone(), S), None);
        let said = peers.ask(node_name(2), question(), tell, S).expect("it is there");
        assert_eq!(said.to(), Some(&*node_name(2)));
        let mut other = Peers::new(2);
        let Heard::Asked(asked) = other.hear(said, S) else { panic!("it is asked") };
        let answer = asked.answer(Answer::Cut(true));
        peers.hear(answer.clone(), S);
        assert_eq!(told.try_recv(), Ok(Answer::Cut(true)));
        peers.hear(answer, S);
        assert!(told.try_recv().is_err(), "doubled");
    }
}
