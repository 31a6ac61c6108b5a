//! Presence against a set: a list of members and the events behind its cursor give who is there, in
//! whatever moment the list was taken and wherever its owner was meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::log::presence::members::Members;
use crate::log::store::Stored;
use crate::proto::envelope::PRESENCE_TYPE;
use crate::proto::identity::Identity;

pub(super) const NAME: &str = "room";
pub(super) const GRACE: Duration = Duration::from_secs(5);
const SUBJECTS: u8 = 12;
const STEPS: usize = 4_000;

pub(super) fn bench() -> Bench {
    let policy = Policy { presence: true, history_count: 100_000, ..PLENTY };
    let policies = rules(&[("quiet", PLENTY), ("*", policy)]);
    Bench::new(LogSettings { presence_grace: GRACE, ..settings(64 << 20, policies) })
}

pub(super) fn who(subject: &str) -> Arc<Identity> {
    Arc::new(Identity { subject: subject.into(), info: None })
}

impl Bench {
    pub(super) fn join_as(
        &mut self,
        worker: u16,
        name: &str,
        identity: Option<Arc<Identity>>,
    ) -> bool {
        let channels = vec![name.into()];
        let cursor = Cursor::Now;
        self.handle(worker, Ask::Join { ticket: TICKET, channels, cursor, identity });
        match self.answer(worker) {
            Answer::Joined { channels, .. } => channels[0].is_member,
            other => panic!("not the answer to a join: {other:?}"),
        }
    }

    /// Commits what was told, and what was told then.
    fn commit_all(&mut self, worker: u16) -> Vec<Value> {
        self.tend();
        let through = self.log.order.assigned();
        let committed = ToLog::Store(Stored::Committed { through, count: 1 });
        self.log.handle(committed, self.now, &mut self.lanes);
        self.log.check_invariants();
        self.told(worker).into_iter().map(|(_, data)| data).collect()
    }

    pub(super) fn leave_as(&mut self, worker: u16, name: &str, member: Option<Arc<Identity>>) {
        let name = ChannelName::new(name).into();
        self.handle(worker, Ask::Leave(vec![LeaveChannel { name, subscribers: 1, member }]));
    }

    /// The subjects listed, and their cursor.
    fn list(&mut self, name: &str) -> (BTreeSet<String>, u64) {
        self.handle(2, Ask::ListMembers { ticket: TICKET, channel: name.into() });
        let Answer::Members(Ok(members)) = self.answer(2) else { panic!("no list") };
        assert_eq!(members.count as usize, members.listed.len());
        (
            members.listed.iter().map(|of| of.identity.subject.to_string()).collect(),
            members.head_seq,
        )
    }

    /// The clerk looks after the log; when it wants to do so again.
    pub(super) fn tend(&mut self) -> Option<Duration> {
        let due = self.log.tend(self.now, &mut self.lanes);
        self.log.check_invariants();
        due
    }

    /// What was told of members since: of each event its place and its data.
    fn told(&mut self, worker: u16) -> Vec<(u64, Value)> {
        let of_presence = |told: FromLog| match told {
            FromLog::Event(event) if event.event_type.as_deref() == Some(PRESENCE_TYPE) => {
                Some((event.seq, serde_json::from_slice(&event.data).expect("JSON")))
            }
            _ => None,
        };
        self.lanes.take(worker).into_iter().filter_map(of_presence).collect()
    }
}

pub(super) fn apply(members: &mut BTreeSet<String>, data: &Value) {
    if data["reset"] == true {
        members.clear();
    }
    for member in data["join"].as_array().expect("a list") {
        members.insert(member["subject"].as_str().expect("text").to_owned());
    }
    for subject in data["leave"].as_array().expect("a list") {
        members.remove(subject.as_str().expect("text"));
    }
}

/// A connection of somebody.
type Connection = (u16, Arc<Identity>);

struct Trial {
    bench: Bench,
    random: fastrand::Rng,
    connections: Vec<Connection>,
    /// When each subject lost its last connection.
    left_at: BTreeMap<String, Duration>,
    /// Lists and their cursors, taken at any time.
    lists: Vec<(BTreeSet<String>, u64)>,
    events: Vec<(u64, Value)>,
}

impl Trial {
    fn new(seed: u64) -> Self {
        let mut bench = bench();
        // One that only looks on.
        assert!(!bench.join_as(2, NAME, None));
        Self {
            bench,
            random: fastrand::Rng::with_seed(seed),
            connections: Vec::new(),
            left_at: BTreeMap::new(),
            lists: Vec::new(),
            events: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.random.u8(..12) {
            0..4 => {
                let identity = who(&format!("s{}", self.random.u8(..SUBJECTS)));
                let worker = self.random.u16(..2);
                assert!(self.bench.join_as(worker, NAME, Some(identity.clone())));
                self.left_at.remove(&*identity.subject);
                self.connections.push((worker, identity));
            }
            4..8 => (0..self.random.u8(1..4)).for_each(|_| self.leave()),
            8 => {
                let list = self.bench.list(NAME);
                self.lists.push(list);
            }
            9 => self.bench.now += Duration::from_millis(self.random.u64(..4_000)),
            _ => {
                self.bench.tend();
                assert_eq!(self.bench.list(NAME).0, self.members());
            }
        }
        self.events.extend(self.bench.told(2));
        for worker in [0, 1] {
            self.bench.lanes.take(worker);
        }
    }

    fn leave(&mut self) {
        if self.connections.is_empty() {
            return;
        }
        let place = self.random.usize(..self.connections.len());
        let (worker, identity) = self.connections.swap_remove(place);
        self.bench.leave_as(worker, NAME, Some(identity.clone()));
        if !self.connections.iter().any(|(_, of)| of.subject == identity.subject) {
            self.left_at.insert(identity.subject.to_string(), self.bench.now);
        }
    }

    fn members(&self) -> BTreeSet<String> {
        let here = self.connections.iter().map(|(_, of)| of.subject.to_string());
        let now = self.bench.now;
        let in_grace = self.left_at.iter().filter(|(_, at)| **at + GRACE > now);
        here.chain(in_grace.map(|(subject, _)| subject.clone())).collect()
    }
}

#[test]
fn a_list_and_what_is_told_after_it_give_who_is_there() {
    for seed in 0..4 {
        let mut trial = Trial::new(seed);
        (0..STEPS).for_each(|_| trial.step());
        while let Some(due) = trial.bench.tend().filter(|due| *due < trial.bench.now + AGE / 2) {
            trial.bench.now = trial.bench.now.max(due);
            trial.events.extend(trial.bench.told(2));
        }
        trial.events.extend(trial.bench.told(2));
        let members = trial.members();
        let (lists, events) = (trial.lists.len(), trial.events.len());
        assert!(lists > 50 && events > 50, "{lists} lists, {events} events");
        for (mut list, cursor) in trial.lists {
            let later = trial.events.iter().filter(|(seq, _)| *seq > cursor);
            later.for_each(|(_, data)| apply(&mut list, data));
            assert_eq!(list, members, "seed {seed}, from {cursor}");
        }
        let counted = trial.events.last().expect("some").1["count"].as_u64();
        assert_eq!(counted, Some(members.len() as u64));
    }
}

#[test]
fn who_comes_back_within_the_grace_never_left_and_several_connections_are_one_member() {
    let mut bench = bench();
    bench.join_as(2, NAME, None);
    for worker in [0, 1] {
        bench.join_as(worker, NAME, Some(who("jane")));
    }
    bench.tend();
    let told = bench.told(2);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1["join"], serde_json::json!([{"subject": "jane"}]));
    bench.leave_as(0, NAME, Some(who("jane")));
    bench.now += 2 * GRACE;
    bench.tend();
    bench.leave_as(1, NAME, Some(who("jane")));
    bench.now += GRACE / 2;
    bench.tend();
    bench.join_as(0, NAME, Some(who("jane")));
    bench.now += 2 * GRACE;
    bench.tend();
    assert_eq!(bench.told(2), [], "nothing happened that others could see");
    bench.leave_as(0, NAME, Some(who("jane")));
    bench.now += GRACE;
    bench.tend();
    assert_eq!(bench.told(2)[0].1["leave"], serde_json::json!(["jane"]));
}

#[test]
fn a_channel_tells_once_a_second_and_a_herd_little_by_little() {
    let mut bench = bench();
    const COUNT: usize = 1_000;
    for n in 0..COUNT {
        bench.join_as(0, NAME, Some(who(&format!("s{n}"))));
    }
    bench.join_as(2, NAME, None);
    assert_eq!(bench.list(NAME).0.len(), COUNT, "the list has them at once");
    let (mut names, mut seconds) = (0, 0);
    while names < COUNT {
        bench.tend();
        bench.tend();
        let told = bench.told(2);
        assert_eq!(told.len(), 1, "one event a second");
        let joined = told[0].1["join"].as_array().expect("a list").len();
        assert!(joined <= 256);
        (names, seconds) = (names + joined, seconds + 1);
        bench.now += Duration::from_secs(1);
    }
    assert!(seconds >= 4, "{seconds}");
}

#[test]
fn a_channel_without_members_or_history_leaves_nothing_behind() {
    let mut bench = bench();
    assert!(!bench.join_as(0, "quiet", Some(who("jane"))), "no rule asks for it");
    bench.leave_as(0, "quiet", None);
    bench.join_as(0, NAME, Some(who("jane")));
    bench.leave_as(0, NAME, Some(who("jane")));
    bench.tend();
    assert_eq!(bench.log.stats().channels, 1);
    bench.now += GRACE;
    bench.tend();
    bench.now += 2 * AGE;
    bench.tend();
    assert_eq!(bench.log.stats().channels, 0);
}

/// A member comes every 300 ms, and one leaves between.
#[test]
fn a_channel_never_tells_twice_in_a_second() {
    let mut bench = bench();
    bench.join_as(2, NAME, None);
    let mut last = None::<Duration>;
    for n in 0..100 {
        bench.join_as(0, NAME, Some(who(&format!("s{n}"))));
        if n % 3 == 2 {
            bench.leave_as(0, NAME, Some(who(&format!("s{}", n - 1))));
        }
        bench.tend();
        if !bench.told(2).is_empty() {
            let since = last.replace(bench.now).map(|last| bench.now - last);
            assert!(since.is_none_or(|since| since >= Duration::from_secs(1)), "{since:?}");
        }
        bench.now += Duration::from_millis(300);
    }
    assert!(last.is_some());
}

/// Its log goes on, and clients resume; but who was there is known to the process that ended.
#[test]
fn a_log_that_goes_on_takes_back_what_was_told_once_the_grace_is_over() {
    let mut bench = bench();
    bench.publish(NAME);
    bench.log.move_to(Box::new(bench.shelf.clone()), Epoch::from_random(1), 10, 0);
    bench.join_as(2, NAME, None);
    bench.join_as(0, NAME, Some(who("jane")));
    bench.tend();
    let told = bench.told(2);
    assert_eq!((told.len(), &told[0].1["reset"]), (1, &Value::Null), "she may have been there");
    bench.now += GRACE;
    bench.join_as(0, NAME, Some(who("john")));
    bench.tend();
    let told = bench.told(2);
    assert_eq!((told.len(), &told[0].1["reset"]), (1, &Value::Bool(true)));
    let mut members = BTreeSet::from(["someone who was there".to_owned()]);
    apply(&mut members, &told[0].1);
    assert_eq!(members, bench.list(NAME).0);
    bench.now += 2 * GRACE;
    bench.tend();
    assert_eq!(bench.told(2), [], "once");
    // Of a channel that can't have been there before there is nothing to take back.
    bench.told(0);
    bench.join_as(0, "new", Some(who("jane")));
    bench.tend();
    bench.now += GRACE;
    bench.tend();
    let told = bench.told(0);
    assert!(told.iter().all(|(_, data)| data["reset"] == Value::Null), "{told:?}");
}

#[test]
fn what_was_told_and_is_lost_is_told_again() {
    let mut bench = bench();
    bench.log.move_to(Box::new(super::store::Slow), Epoch::from_random(1), 0, 0);
    bench.join_as(2, NAME, None);
    for name in ["jane", "john"] {
        bench.join_as(0, NAME, Some(who(name)));
    }
    let mut members = BTreeSet::new();
    bench.commit_all(2).iter().for_each(|data| apply(&mut members, data));
    assert_eq!(members.len(), 2);
    bench.leave_as(0, NAME, Some(who("john")));
    bench.now += GRACE;
    bench.tend();
    for stored in [Stored::Down, Stored::Up] {
        bench.log.handle(ToLog::Store(stored), bench.now, &mut bench.lanes);
        bench.log.check_invariants();
        bench.now += Duration::from_secs(1);
    }
    let told = bench.commit_all(2);
    assert_eq!((told.len(), &told[0]["reset"]), (1, &Value::Bool(true)));
    apply(&mut members, &told[0]);
    assert_eq!(members, BTreeSet::from(["jane".to_owned()]));
}

/// At the log, and at the worker, which knows each connection's channels to tell the log of its
/// leave.
#[test]
fn a_hundred_thousand_members_cost_no_more_than_64_bytes_each() {
    const COUNT: u32 = 100_000;
    let hasher = SharedHasher::from_seed(1);
    let mut members = Members::default();
    let mut at_worker = hashbrown::HashMap::<(u32, u32), Arc<Identity>>::new();
    for n in 0..COUNT {
        let identity = who(&format!("subject-{n}"));
        members.join(&identity, &hasher);
        at_worker.insert((n, 0), identity);
    }
    let herd = (members.held_bytes() + at_worker.allocation_size()) / COUNT as usize;
    members.told(COUNT as usize, &hasher);
    let each = (members.held_bytes() + at_worker.allocation_size()) / COUNT as usize;
    println!("{herd} bytes each while they are untold, then {each}");
    assert!(herd <= 64 && each <= 64, "{herd}, then {each}");
}
