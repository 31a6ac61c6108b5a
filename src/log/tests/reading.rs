//! Where cursors begin, and pages of history.

use super::*;

#[test]
fn a_cursor_begins_where_its_events_are_and_tells_what_is_gone() {
    let mut bench = Bench::uniform(Policy { history_count: 2, ..PLENTY });
    for _ in 0..4 {
        bench.publish("a");
    }
    bench.publish("b");
    let evicted = Some(GapReason::Evicted);
    let epoch = Some(GapReason::Epoch);
    for (cursor, stand) in [
        (Cursor::Now, (5, None, vec![])),
        (Cursor::Earliest, (2, Some(GapReason::Evicted), vec![3, 4])),
        (Cursor::After(0), (2, evicted, vec![3, 4])),
        (Cursor::After(1), (2, evicted, vec![3, 4])),
        (Cursor::After(2), (2, None, vec![3, 4])),
        (Cursor::After(3), (3, None, vec![4])),
        (Cursor::After(5), (5, None, vec![])),
        (Cursor::After(6), (2, epoch, vec![3, 4])),
        (Cursor::After(u64::MAX), (2, epoch, vec![3, 4])),
        (Cursor::Foreign, (2, epoch, vec![3, 4])),
    ] {
        assert_eq!(bench.join(1, "a", cursor), stand, "{cursor:?}");
    }
    let counters = bench.log.stats().counters;
    assert_eq!((counters.replays, counters.gaps), (8, 6));
}

#[test]
fn pages_are_history_in_log_order_whatever_their_size() {
    let mut bench = Bench::uniform(Policy { history_count: 5, ..PLENTY });
    for n in 0..15 {
        bench.publish(["a", "b", "c"][n % 3]);
    }
    // Of each channel the newest five are kept, and each has its own cursor.
    let from = [("c", 3), ("a", 7), ("b", 100), ("unknown", 0)];
    for bytes_max in [0, 1, 500, 1000, u64::MAX] {
        assert_eq!(bench.read_all(0, &from, bytes_max), [6, 9, 10, 12, 13, 15], "{bytes_max}");
    }
}

/// A place in history is a hint: its entry may be gone, or belong to another channel by now.
#[test]
fn a_page_goes_on_where_it_should_although_history_has_moved_on() {
    let mut bench = Bench::uniform(Policy { history_count: 4, ..PLENTY });
    let mut seqs: Vec<u64> = (0..4).map(|_| bench.publish("a")).collect();
    let hash = bench.log.hasher.channel("a");
    for place in (0..10).chain([NO_PLACE]) {
        let kept = &seqs[seqs.len() - 4..];
        for after in 0..=bench.log.stats().head_seq {
            let channel = ReadChannel { name: ChannelName::new("a").into(), hash, after, place };
            let page = bench.read(0, vec![channel], u64::MAX);
            let read: Vec<u64> = page.events.iter().map(|(_, event)| event.seq).collect();
            let due: Vec<u64> = kept.iter().copied().filter(|seq| *seq > after).collect();
            assert_eq!(read, due, "{place} {after}");
            assert_eq!(page.channels[0].first, read.first().copied());
        }
        bench.publish("b");
        seqs.push(bench.publish("a"));
    }
}

#[test]
fn a_join_takes_all_channels_or_none() {
    let mut bench =
        Bench::new(LogSettings { channels_max: 2, ..settings(1 << 20, Policies::uniform(PLENTY)) });
    bench.join(0, "a", Cursor::Now);
    let three = ["b", "a", "c"];
    assert_eq!(bench.join_all(1, &three, Cursor::Now).err(), Some(Refusal::Channels));
    assert_eq!(bench.describe("a").subscribers, 1);
    assert_eq!(bench.join_all(1, &["b", "a"], Cursor::Now).expect("room").1.len(), 2);
    assert_eq!(bench.describe("a").subscribers, 2);
    assert_eq!(bench.publish_all(0, vec![text("c")]).refusal, Some(Refusal::Channels));
    assert_eq!(bench.log.stats().counters.refused.channels, 2);
}

#[test]
fn pages_list_every_channel_once() {
    let mut bench = Bench::uniform(PLENTY);
    let mut names: Vec<String> = (0..25).map(|number| format!("channel:{number}")).collect();
    for name in &names {
        bench.publish(name);
    }
    let (mut listed, mut from) = (Vec::new(), Some(0));
    while let Some(index) = from {
        let page = bench.log.channels(index, 10);
        assert!(page.channels.len() <= 10);
        listed.extend(page.channels.iter().map(|(name, _)| name.to_string()));
        from = page.next;
    }
    names.sort();
    listed.sort();
    assert_eq!(listed, names);
}
