//! Streams against the text that was said: a reader of one, wherever it starts and however it reads,
//! has the whole text at its end, whatever of it was merged meanwhile.

use super::*;
use crate::log::event::Event;
use crate::log::message::StreamAt;
use crate::proto::attributes::Attributes;
use crate::proto::stream::{Begin, End, Mark, OrElse, Part};

const NAME: &str = "chat";
const FROM_ITS_BEGINNING: Cursor = Cursor::Stream(Begin { after: None, or_else: OrElse::Now });

fn part(part: Part, data: &str) -> Publication {
    let attributes = Attributes::of_stream(Mark { id: "msg".into(), part, at: 1 });
    Publication { data: Bytes::from(data.to_owned()), attributes, ..text(NAME) }
}

/// A reader, how far it has read, and what that says.
struct Reader {
    after: u64,
    place: u32,
    tokens: u64,
    said: String,
}

struct Trial {
    bench: Bench,
    random: fastrand::Rng,
    /// All tokens so far, one behind the other.
    said: String,
    tokens: Vec<(u64, String)>,
    readers: Vec<Reader>,
}

impl Trial {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pick = |of: &[u64]| of[random.usize(..of.len())];
        let policy = Policy {
            history_count: pick(&[0, 3, 30, 1_000]) as u32,
            stream_bytes: 1 << 20,
            stream_compact: pick(&[1, 40, 1 << 20]),
            ..PLENTY
        };
        let mut settings = settings(1 << 20, Policies::uniform(policy));
        settings.streams.keep = AGE;
        // What history loses on the disk is lost to a stream, too.
        if policy.history_count == 1_000 {
            settings.history_memory_bytes_max = pick(&[1 << 20, 8_000]);
        }
        let (bench, readers) = (Bench::new(settings), Vec::new());
        Self { bench, random, said: String::new(), tokens: Vec::new(), readers }
    }

    fn say(&mut self) {
        let batch = (0..self.random.u8(1..4)).map(|_| {
            let word = format!("{}é ", self.random.u16(..));
            self.said += &word;
            word
        });
        let batch: Vec<String> = batch.collect();
        let parts = batch.iter().map(|word| part(Part::Token, word)).collect();
        let outcome = self.bench.publish_all(0, parts);
        assert_eq!(outcome.refusal, None);
        self.tokens.extend((outcome.first_seq..).zip(batch));
    }

    fn join(&mut self, cursor: Cursor) {
        let (_, joined) = self.bench.join_all(1, &[NAME], cursor).expect("room");
        assert_eq!(joined[0].gap, None);
        let after = joined[0].after;
        let read = self.tokens.iter().filter(|(seq, _)| *seq <= after);
        let said: String = read.clone().map(|(_, word)| &**word).collect();
        let tokens = read.count() as u64;
        self.readers.push(Reader { after, place: NO_PLACE, tokens, said });
        self.bench.leave(1, NAME);
    }

    /// A reader reads a page, or comes back first.
    fn read(&mut self, number: usize, bytes_max: u64) -> bool {
        let hash = self.bench.log.hasher.channel(NAME);
        let reader = &self.readers[number];
        let place = if self.random.bool() { reader.place } else { NO_PLACE };
        let name = ChannelName::new(NAME).into();
        let wanted = ReadChannel { name, hash, after: reader.after, place };
        let page = self.bench.read(1, vec![wanted], bytes_max);
        let reader = &mut self.readers[number];
        assert_eq!(page.channels[0].after, reader.after, "nothing is lost");
        for (_, event) in &page.events {
            reader.take(event);
        }
        reader.after = page.through;
        reader.place = page.channels[0].place;
        page.is_last
    }

    fn step(&mut self) {
        match self.random.u8(..10) {
            0..4 => self.say(),
            4 => drop(self.bench.publish_all(0, vec![text("other")])),
            5 if self.random.u8(..8) == 0 => drop(self.bench.publish_all(0, vec![text(NAME)])),
            6 => self.join(FROM_ITS_BEGINNING),
            _ if self.readers.is_empty() => {}
            _ => {
                let number = self.random.usize(..self.readers.len());
                let bytes_max = 1 + u64::from(self.random.u16(..4_000));
                self.read(number, bytes_max);
            }
        }
    }

    fn tend(&mut self) {
        let Bench { log, lanes, now, .. } = &mut self.bench;
        log.tend(*now, lanes);
        log.check_invariants();
    }
}

impl Reader {
    fn take(&mut self, event: &Event) {
        let Some(mark) = event.mark().filter(|mark| mark.part == Part::Token) else { return };
        assert_eq!(mark.at, self.tokens, "the next token, and no other");
        self.tokens += event.merged().map_or(1, |merged| merged.count());
        self.said += std::str::from_utf8(&event.data).expect("text");
    }
}

#[test]
fn a_reader_has_the_whole_text_wherever_it_begins_and_whatever_is_merged_meanwhile() {
    for seed in 0..20 {
        let mut trial = Trial::new(seed);
        trial.bench.publish_all(0, vec![part(Part::Open, "")]);
        (0..150).for_each(|_| trial.step());
        trial.bench.publish_all(0, vec![part(Part::End(End::Done), "")]);
        // It is merged while some are in its middle, and others come to be.
        while !trial.readers.is_empty() && trial.bench.log.merges() {
            trial.tend();
            let number = trial.random.usize(..trial.readers.len());
            trial.read(number, 500);
            let (seq, _) = trial.tokens[trial.random.usize(..trial.tokens.len())];
            trial.join(Cursor::After(seq));
        }
        trial.join(FROM_ITS_BEGINNING);
        for number in 0..trial.readers.len() {
            while !trial.read(number, 2_000) {}
            assert_eq!(trial.readers[number].said, trial.said, "seed {seed}");
        }
    }
}

#[test]
fn a_stream_that_has_ended_is_one_event_if_its_policy_says_so() {
    let policy =
        Policy { history_count: 10, stream_bytes: 1 << 20, stream_compact: 1 << 16, ..PLENTY };
    let mut settings = settings(1 << 20, Policies::uniform(policy));
    settings.streams.keep = AGE;
    let mut bench = Bench::new(settings);
    bench.publish_all(0, vec![part(Part::Open, "")]);
    for _ in 0..1_000 {
        bench.publish_all(0, vec![part(Part::Token, "x")]);
    }
    let before = bench.log.stats();
    let ended = bench.publish_all(0, vec![part(Part::End(End::Done), "")]);
    while bench.log.merges() {
        let Bench { log, lanes, now, .. } = &mut bench;
        log.tend(*now, lanes);
        log.check_invariants();
    }
    let (after, none, read) = bench.join(1, NAME, FROM_ITS_BEGINNING);
    assert_eq!((after, none), (0, None));
    let StreamAt { last_token, .. } = ended.stream.expect("a stream");
    assert_eq!(read, [1, last_token, last_token + 1], "it opens, says all, and ends");
    let stats = bench.log.stats();
    let bytes = |stats: &crate::log::stats::LogStats| stats.bytes + stats.stream_bytes;
    assert!(bytes(&stats) * 10 < bytes(&before), "{} of {}", bytes(&stats), bytes(&before));
}
