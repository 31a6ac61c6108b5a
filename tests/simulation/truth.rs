//! What was published, and how the log ordered it: what the oracles compare with.

use std::collections::{BTreeMap, HashMap};

use pushline::log::event::{Kind, Publication};

/// A channel in which anything may turn up.
pub const PRANKS: &str = "pranks";

/// What the channels of token streams begin with. Their readers are compared with what was said, and
/// not with the log.
pub const STORIES: &str = "story:";

/// A channel with presence, of which only the server tells.
pub const MEMBERS: &str = "members";

/// A channel that is a state. Its readers are compared with a map.
pub const PRICES: &str = "prices";

/// What a client means to publish. `tag` is the first number in its data and is never used twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub tag: u64,
    pub channel: String,
    pub kind: Kind,
    pub data: Vec<u8>,
    pub event_type: Option<String>,
    pub key: Option<String>,
}

/// Everything that was sent, and everything that was ordered.
#[derive(Debug, Default)]
pub struct Truth {
    pub epoch: String,
    sent: HashMap<u64, Content>,
    /// Tags in the order of the log, by seq.
    ordered: BTreeMap<u64, u64>,
    /// The head of the log. Restarts leave holes before it.
    head: u64,
    /// Channels that were quiet for long may be told of gaps up to here.
    pub forgotten_to: u64,
    /// How often the server was started again.
    pub restarts: u64,
    /// Subscribers that came over TLS, and were let in.
    pub opened_over_tls: u64,
    by_channel: HashMap<String, Vec<u64>>,
    by_tag: HashMap<u64, Vec<u64>>,
    /// Who follows [`MEMBERS`], by actor.
    pub members: BTreeMap<u64, String>,
    /// The values of [`PRICES`], by event key.
    pub prices: BTreeMap<String, String>,
}

impl Truth {
    /// A tag that no event has.
    pub fn next_tag(&self) -> u64 {
        self.sent.len() as u64 + 1
    }

    /// A client is about to publish this.
    pub fn note_sent(&mut self, content: Content) {
        assert!(self.sent.insert(content.tag, content).is_none());
    }

    /// The server was started again: the log goes on behind `resume_at`.
    pub fn restarted(&mut self, resume_at: u64, removed_to: u64) {
        self.restarts += 1;
        self.forgotten_to = removed_to;
        self.note_head(resume_at);
    }

    /// The head of the log is here.
    pub fn note_head(&mut self, seq: u64) {
        assert!(self.ordered.last_key_value().is_none_or(|(last, _)| *last <= seq));
        self.head = seq;
    }

    /// The log has ordered this: it must be what some client sent, to the byte.
    pub fn note_ordered(&mut self, publication: &Publication, seq: u64) {
        let mut tag = tag_of(&publication.data);
        let is_free = [PRANKS, PRICES].contains(&&*publication.channel);
        if is_free || publication.channel.starts_with(STORIES) {
            self.note_change(publication);
            tag = self.next_tag();
            self.note_sent(prank(tag, publication));
        }
        let content = &self.sent[&tag];
        assert_eq!(content.channel[..], publication.channel[..]);
        assert_eq!((content.kind, &content.data[..]), (publication.kind, &publication.data[..]));
        assert_eq!(content.event_type.as_deref(), publication.event_type.as_deref());
        assert_eq!(content.key.as_deref(), publication.key.as_deref());
        assert!(self.ordered.insert(seq, tag).is_none(), "{seq} was given twice");
        self.by_channel.entry(content.channel.clone()).or_default().push(seq);
        let seqs = self.by_tag.entry(tag).or_default();
        seqs.push(seq);
        assert!(seqs.len() == 1 || content.key.is_some(), "tag {tag} was ordered twice");
    }

    fn note_change(&mut self, publication: &Publication) {
        let attributes = publication.attributes.as_ref().filter(|of| !of.ephemeral);
        let key = attributes.and_then(|of| of.event_key.as_deref());
        let Some(key) = key.filter(|_| *publication.channel == *PRICES) else { return };
        match attributes.is_some_and(|of| of.tombstone) {
            true => self.prices.remove(key),
            false => {
                let value = String::from_utf8_lossy(&publication.data).into_owned();
                self.prices.insert(key.to_owned(), value)
            }
        };
    }

    /// The log itself has ended a stream.
    pub fn note_end(&mut self) {
        let tag = self.next_tag();
        let (channel, kind) = (STORIES.to_owned(), Kind::Json);
        self.note_sent(Content {
            tag,
            channel,
            kind,
            data: Vec::new(),
            event_type: None,
            key: None,
        });
        self.head += 1;
        self.ordered.insert(self.head, tag);
    }

    pub fn head(&self) -> u64 {
        self.head
    }

    /// How many events there are.
    pub fn count(&self) -> u64 {
        self.ordered.len() as u64
    }

    /// Whether there is an event with this seq.
    pub fn has(&self, seq: u64) -> bool {
        self.ordered.contains_key(&seq)
    }

    /// All events, in the order of the log.
    pub fn all(&self) -> impl Iterator<Item = (u64, &Content)> {
        self.ordered.iter().map(|(seq, tag)| (*seq, &self.sent[tag]))
    }

    /// The event of this seq.
    pub fn event(&self, seq: u64) -> &Content {
        let tag = self.ordered.get(&seq).unwrap_or_else(|| panic!("{seq} was never ordered"));
        &self.sent[tag]
    }

    /// What a client said it would publish under this tag.
    pub fn sent(&self, tag: u64) -> &Content {
        &self.sent[&tag]
    }

    /// The tag's place in the log, if it has one.
    pub fn seqs(&self, tag: u64) -> &[u64] {
        self.by_tag.get(&tag).map_or(&[], Vec::as_slice)
    }

    /// The channel's next event after this seq.
    pub fn next(&self, channel: &str, after: u64) -> Option<u64> {
        let seqs = self.by_channel.get(channel)?;
        seqs.get(seqs.partition_point(|seq| *seq <= after)).copied()
    }

    /// Whether the channel has an event in `after < seq <= until`.
    pub fn has_between(&self, channel: &str, after: u64, until: u64) -> bool {
        self.next(channel, after).is_some_and(|seq| seq <= until)
    }

    /// The seq in an id of ours.
    pub fn seq_of(&self, id: &str) -> u64 {
        let seq = id.strip_prefix(&self.epoch).and_then(|rest| rest.strip_prefix('-'));
        seq.and_then(|seq| seq.parse().ok()).unwrap_or_else(|| panic!("{id:?} is no id of ours"))
    }

    pub fn id(&self, seq: u64) -> String {
        format!("{}-{seq}", self.epoch)
    }
}

fn prank(tag: u64, publication: &Publication) -> Content {
    Content {
        tag,
        channel: publication.channel.as_ref().into(),
        kind: publication.kind,
        data: publication.data.to_vec(),
        event_type: publication.event_type.as_deref().map(Into::into),
        key: None,
    }
}

/// The first number in the data.
pub fn tag_of(data: &[u8]) -> u64 {
    let digits = data.iter().skip_while(|byte| !byte.is_ascii_digit());
    let digits = digits.take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |tag, digit| tag * 10 + u64::from(digit - b'0'))
}
