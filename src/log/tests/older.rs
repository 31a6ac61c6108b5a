//! A store that keeps everything, and pages it reads where memory no longer has the events.

use std::sync::{Arc, Mutex};

use super::*;
use crate::log::event::Event;
use crate::log::history::bytes_of;
use crate::log::older::{OlderPage, OlderRead};
use crate::log::store::{Shortage, Store, Taken};

/// Everything that was ever ordered. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    events: Vec<Arc<Event>>,
    asked: Vec<OlderRead>,
    pages: u64,
    shortage: Shortage,
}

impl Store for Shelf {
    fn append(&mut self, event: &Arc<Event>) -> Taken {
        self.0.lock().expect("one thread").events.push(event.clone());
        Taken::Seen
    }

    fn give_up(&mut self) {}

    fn read_older(&mut self, read: OlderRead) {
        self.0.lock().expect("one thread").asked.push(read);
    }

    fn keeps_from(&mut self, _seq: u64) -> Shortage {
        self.0.lock().expect("one thread").shortage
    }
}

impl Shelf {
    /// Pages it has read.
    pub fn pages(&self) -> u64 {
        self.0.lock().expect("one thread").pages
    }

    /// It has no room for this.
    pub fn runs_short(&self, shortage: Shortage) {
        self.0.lock().expect("one thread").shortage = shortage;
    }

    /// Reads what was asked.
    fn read(&self) -> Vec<OlderPage> {
        let mut kept = self.0.lock().expect("one thread");
        let asked = std::mem::take(&mut kept.asked);
        kept.pages += asked.len() as u64;
        asked.into_iter().map(|asked| kept.page(asked)).collect()
    }
}

impl Kept {
    fn page(&self, asked: OlderRead) -> OlderPage {
        let (mut events, mut bytes, mut through) = (Vec::new(), 0, asked.through);
        for event in &self.events {
            let place = asked.channels.iter().position(|of| of.name[..] == event.channel[..]);
            let Some(place) = place.filter(|&place| {
                let of = &asked.channels[place];
                event.seq > of.after && of.ranges.iter().any(|range| range.contains(&event.seq))
            }) else {
                continue;
            };
            assert!(event.seq <= asked.through);
            bytes += bytes_of(event);
            events.push((place as u16, event.clone()));
            if bytes >= asked.bytes_max {
                through = event.seq;
                break;
            }
        }
        OlderPage { asked, events, through }
    }
}

impl Bench {
    /// The store reads what it was asked for, and tells the log.
    pub fn shelf_works(&mut self) {
        for page in self.shelf.read() {
            self.log.handle(ToLog::Older(page), self.now, &mut self.lanes);
        }
    }

    fn publish_many(&mut self, name: &str, count: usize) {
        for _ in 0..count {
            self.publish(name);
        }
    }

    fn ask_read(&mut self, name: &str, after: u64) {
        let hash = self.log.hasher.channel(name);
        let name = ChannelName::new(name).into();
        let channels = vec![ReadChannel { name, hash, after, place: NO_PLACE }];
        self.handle(0, Ask::Read { ticket: TICKET, channels, bytes_max: u64::MAX });
    }

    fn page(&mut self) -> Page {
        match self.answer(0) {
            Answer::Page(page) => page,
            other => panic!("not a page: {other:?}"),
        }
    }
}

/// A log of which memory holds three events or so.
fn small(policy: Policy) -> Bench {
    let history_memory_bytes_max = 1_000;
    let all = settings(1 << 20, Policies::uniform(policy));
    Bench::new(LogSettings { history_memory_bytes_max, ..all })
}

#[test]
fn what_memory_has_no_room_for_is_read_from_the_store_and_none_of_it_is_missing() {
    let mut bench = small(PLENTY);
    let seqs: Vec<u64> = (0..80).map(|_| bench.publish("a")).collect();
    let description = bench.describe("a");
    assert_eq!((description.first_seq, description.events), (Some(1), 80));
    assert_eq!(bench.join(0, "a", Cursor::Earliest), (0, None, seqs.clone()));
    assert_eq!(bench.join(0, "a", Cursor::After(40)), (40, None, seqs[40..].to_vec()));
    assert!(bench.shelf.pages() >= 2);
    let before = bench.shelf.pages();
    assert_eq!(bench.join(0, "a", Cursor::After(79)), (79, None, vec![80]));
    assert_eq!(bench.shelf.pages(), before, "what is in memory is read there");
}

#[test]
fn a_channel_keeps_its_count_and_at_most_a_run_more() {
    let mut bench = small(PLENTY);
    for count in 1..=500 {
        bench.publish("a");
        let kept = bench.describe("a").events;
        assert!(kept >= count.min(100), "{kept} of {count}");
        assert!(kept < 100 + 64, "{kept}");
    }
}

#[test]
fn what_is_lost_while_the_store_reads_is_not_handed_out_and_is_told() {
    let mut bench = small(Policy { history_age: Duration::from_secs(10), ..PLENTY });
    bench.join(0, "a", Cursor::Now);
    bench.publish_many("a", 20);
    bench.ask_read("a", 0);
    bench.lanes.queues[0]
        .retain(|told| matches!(told, FromLog::Answer { answer: Answer::Page(_), .. }));
    assert!(bench.lanes.queues[0].is_empty(), "it is answered later");
    bench.expire_at(Duration::from_secs(60));
    bench.shelf_works();
    let page = bench.page();
    assert!(page.events.is_empty());
    assert!(page.channels[0].after > 0 && !page.channels[0].unreadable);
}

#[test]
fn what_the_store_can_not_read_is_told_and_the_rest_is_read() {
    let mut bench = small(PLENTY);
    bench.publish_many("a", 20);
    bench.ask_read("a", 0);
    let mut page = bench.shelf.read().remove(0);
    page.events.drain(..5);
    page.asked.channels[0].lost_to = 5;
    bench.log.handle(ToLog::Older(page), bench.now, &mut bench.lanes);
    let page = bench.page();
    let PageChannel { after, first, unreadable, .. } = page.channels[0];
    assert_eq!((after, first, unreadable), (5, Some(6), true));
    assert_eq!(page.events.first().map(|(_, event)| event.seq), Some(6));
}

/// A channel that is quiet among many events costs a line in the list, and finds them all.
#[test]
fn several_channels_are_merged_in_log_order_over_store_and_memory() {
    let mut bench = small(PLENTY);
    let mut expected = Vec::new();
    for step in 0..400 {
        let name = ["a", "b", "b", "c"][step % 4];
        let seq = bench.publish(name);
        if name != "c" {
            expected.push(seq);
        }
    }
    let first = |name, bench: &mut Bench| bench.describe(name).first_seq.expect("it has some");
    let (a, b) = (first("a", &mut bench), first("b", &mut bench));
    let is_kept = |&seq: &u64| if seq % 4 == 1 { seq >= a } else { seq >= b };
    let expected: Vec<u64> = expected.into_iter().filter(is_kept).collect();
    for bytes_max in [1, 500, 5_000, u64::MAX] {
        assert_eq!(bench.read_all(0, &[("b", 0), ("a", 0)], bytes_max), expected);
    }
}
