//! The log in the simulation: the real sequencer, lock and hands, with everything that is ordered
//! reported to the truth. A worker's hand finds the lock taken at random; an actor of its own then
//! plays the thread that has it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use pushline::limits::WORK_PER_HAND;
use pushline::log::event::{Event, Publication};
use pushline::log::message::{Answer, Ask, FromLog, Published, Share, ToLog};
use pushline::log::store::Stored;
use pushline::log::{Outlet, Sequencer};
use pushline::mesh::LogEnds;
use pushline::mesh::combine::Left;
use pushline::mesh::hand::{Guarded, Hand, LogHand, SharedLog};
use pushline::proto::stream::Part;
use pushline::ring::Bell;
use pushline::ring::sim::SimBell;

use crate::canary::{CanaryBell, Tamper};
use crate::store::Ordered;
use crate::truth::{PRICES, Truth, tag_of};

/// The log, and the actor that runs it when workers find it taken. That actor is also the clerk.
pub struct Log {
    shared: Arc<SharedLog<Watched>>,
    hand: LogHand<Watched>,
    bell: CanaryBell,
    is_taken: Rc<Cell<bool>>,
    age_at: Duration,
    stalled_until: Duration,
}

/// A worker's hand.
pub struct SimHand {
    shared: Arc<SharedLog<Watched>>,
    hand: LogHand<Watched>,
    is_taken: Rc<Cell<bool>>,
    rng: Rng,
    tamper: Option<Tamper>,
}

/// The sequencer, watched.
pub struct Watched {
    pub sequencer: Sequencer,
    /// Where the log has a journal: what is ordered and not seen yet.
    unseen: Option<Unseen>,
    truth: Rc<RefCell<Truth>>,
    watch: Watch,
}

/// Events that wait for their commit.
struct Unseen {
    ordered: Ordered,
    committed_to: u64,
}

/// What is known about the log's messages. A canary's rule is broken here.
struct Watch {
    published: Option<Published>,
    tamper: Option<Tamper>,
    events: u64,
    held: Option<(u16, FromLog)>,
    now: Duration,
    /// Since when something has been waiting in each worker's lane.
    waiting_since: Vec<Option<Duration>>,
}

impl Log {
    pub fn new(
        sequencer: Sequencer,
        ordered: Option<Ordered>,
        truth: Rc<RefCell<Truth>>,
        ends: &LogEnds,
        bell: SimBell,
        tamper: Option<Tamper>,
    ) -> Self {
        let watch = Watch {
            published: None,
            tamper,
            events: 0,
            held: None,
            now: Duration::ZERO,
            waiting_since: vec![None; ends.from_log.len()],
        };
        let unseen = ordered.map(|ordered| Unseen { ordered, committed_to: 0 });
        let shared = SharedLog::new(Watched { sequencer, unseen, truth, watch }, ends);
        Self {
            hand: LogHand::new(shared.clone(), ends),
            shared,
            bell: CanaryBell { inner: bell, tamper },
            is_taken: Rc::default(),
            age_at: Duration::ZERO,
            stalled_until: Duration::ZERO,
        }
    }

    /// A hand for a worker.
    pub fn hand(&self, ends: &LogEnds, rng: Rng, tamper: Option<Tamper>) -> SimHand {
        let hand = LogHand::new(self.shared.clone(), ends);
        let is_taken = self.is_taken.clone();
        SimHand { shared: self.shared.clone(), hand, is_taken, rng, tamper }
    }

    /// Looks at the log, even if a thread has it.
    pub fn look<T>(&self, look: impl FnOnce(&mut Watched) -> T) -> T {
        look(&mut self.shared.lock())
    }

    /// When its thread would run.
    pub fn due_at(&self, now: Duration) -> Duration {
        let at = if self.is_taken.get() { now } else { self.age_at };
        at.max(self.stalled_until)
    }

    /// Requests that no thread is working on.
    pub fn stranded(&self) -> usize {
        if self.is_taken.get() { 0 } else { self.shared.waiting() }
    }

    pub fn is_quiet(&self) -> bool {
        self.shared.waiting() == 0 && self.look(|log| log.watch.held.is_none())
    }

    /// Holds the lock for a while: until nothing is left, or, as another thread might look then,
    /// until a random number of requests is handled.
    pub fn step(&mut self, now: Duration, rng: &mut Rng) {
        let mut rings = Vec::new();
        self.hand.budget = budget(rng);
        if now >= self.age_at {
            self.age_at = self.hand.age(now, &mut rings);
        }
        self.is_taken.set(self.hand.run(now, &mut rings) == Left::Work);
        for worker in rings {
            self.bell.ring(worker);
        }
        self.bell.flush();
    }

    /// Its thread loses its core while it has the lock.
    pub fn stall(&mut self, until: Duration) {
        self.is_taken.set(true);
        self.stalled_until = until;
    }

    /// A worker looks into its lane: since when has something been waiting there?
    pub fn looked_into(&mut self, worker: usize) -> Option<Duration> {
        self.look(|log| log.watch.waiting_since[worker].take())
    }
}

impl Hand for SimHand {
    fn run(&mut self, now: Duration, rings: &mut Vec<u16>) -> Left {
        if self.shared.waiting() > 0 && self.rng.u8(0..4) == 0 {
            // The other thread just took it, and looks again when it lets go. (A canary's does
            // not.)
            self.is_taken.set(self.tamper != Some(Tamper::StrandRequest));
            return Left::Nothing;
        }
        if self.is_taken.get() {
            return Left::Nothing;
        }
        self.hand.budget = budget(&mut self.rng);
        self.hand.run(now, rings)
    }
}

/// Often a small one, so that it is used up.
fn budget(rng: &mut Rng) -> usize {
    if rng.bool() { rng.usize(1..4) } else { WORK_PER_HAND }
}

impl Guarded for Watched {
    fn handle(&mut self, mut request: ToLog, now: Duration, outlet: &mut impl Outlet) {
        self.watch.now = now;
        if let (Some(Tamper::KeepMembers), ToLog::Worker { body: Ask::Leave(channels), .. }) =
            (self.watch.tamper, &mut request)
        {
            channels.iter_mut().for_each(|left| left.member = None);
        }
        if let Some(unseen) = &mut self.unseen {
            unseen.hear(&request);
            self.pass_on(request, now, outlet);
            return self.note_seen();
        }
        let ToLog::Worker { body: Ask::Publish { publications, .. }, .. } = &mut request else {
            return self.pass_on(request, now, outlet);
        };
        let mut copies = publications.clone();
        self.watch.tamper_with(publications);
        let keyed = match &copies[..] {
            [Publication { channel, key: Some(key), .. }] => Some((channel.clone(), key.clone())),
            _ => None,
        };
        let kept_from = keyed.as_ref().and_then(|(channel, _)| self.first_kept(channel));
        let before = self.sequencer.stats().head_seq;
        self.pass_on(request, now, outlet);
        let ordered = self.sequencer.stats().head_seq - before;
        let outcome = self.watch.published.take().expect("every publish is answered");
        // A producer that takes over is accepted, and nothing is ordered.
        let takes_over = opens(copies.last()) && u64::from(outcome.accepted) == ordered + 1;
        if takes_over {
            copies.pop();
        } else if keyed.is_some() && outcome.accepted == 1 {
            check_key(&copies[0], &outcome, ordered, kept_from, &self.truth.borrow());
        } else {
            assert_eq!(u64::from(outcome.accepted), ordered);
            let (first, last) = if ordered > 0 { (before + 1, before + ordered) } else { (0, 0) };
            assert_eq!((outcome.first_seq, outcome.last_seq), (first, last));
        }
        let all = copies.len() + usize::from(takes_over);
        assert_eq!(outcome.refusal.is_none(), outcome.accepted as usize == all);
        let mut truth = self.truth.borrow_mut();
        for (publication, seq) in copies.iter().take(outcome.accepted as usize).zip(before + 1..) {
            if ordered > 0 {
                truth.note_ordered(publication, seq);
            }
        }
        truth.note_head(before + ordered);
        assert_eq!(truth.count(), self.sequencer.stats().head_seq, "all of the log is known");
    }

    fn tend(&mut self, now: Duration, outlet: &mut impl Outlet) -> Option<Duration> {
        let wake_at = self.sequencer.tend(now, outlet);
        match self.unseen.is_some() {
            true => self.note_seen(),
            false => self.note_ends(),
        }
        wake_at
    }
}

impl Unseen {
    /// What the store says is lost will not be seen.
    fn hear(&mut self, request: &ToLog) {
        match request {
            ToLog::Store(Stored::Committed { through, .. }) => {
                self.committed_to = self.committed_to.max(*through);
            }
            ToLog::Store(Stored::Down) => {
                self.ordered().retain(|event| event.seq <= self.committed_to);
            }
            _ => {}
        }
    }

    fn ordered(&self) -> MutexGuard<'_, VecDeque<Arc<Event>>> {
        self.ordered.lock().expect("one thread")
    }
}

fn publication_of(event: &Event) -> Publication {
    Publication {
        channel: event.channel[..].into(),
        kind: event.kind,
        data: event.data.clone(),
        event_type: event.event_type.clone(),
        key: event.key.clone(),
        attributes: event.attributes.clone(),
    }
}

fn opens(publication: Option<&Publication>) -> bool {
    let mark = publication.and_then(Publication::mark);
    mark.is_some_and(|mark| mark.part == Part::Open)
}

impl Watched {
    /// Streams that the log has ended itself.
    fn note_ends(&self) {
        let mut truth = self.truth.borrow_mut();
        while truth.head() < self.sequencer.stats().head_seq {
            truth.note_end();
        }
    }

    /// Tells the truth what has been committed and can be seen.
    fn note_seen(&self) {
        let Some(unseen) = &self.unseen else { return };
        let (mut truth, head) = (self.truth.borrow_mut(), self.sequencer.stats().head_seq);
        let mut ordered = unseen.ordered();
        while let Some(event) = ordered.pop_front_if(|event| event.seq <= head) {
            assert!(event.seq <= unseen.committed_to, "{} is seen too early", event.seq);
            truth.note_ordered(&publication_of(&event), event.seq);
        }
        truth.note_head(head);
    }

    fn pass_on(&mut self, request: ToLog, now: Duration, lanes: &mut impl Outlet) {
        self.sequencer.handle(request, now, &mut Recorder { watch: &mut self.watch, lanes });
    }

    /// The oldest event history holds of a channel.
    fn first_kept(&self, channel: &str) -> Option<u64> {
        let page = self.sequencer.channels(0, usize::MAX);
        let found = page.channels.iter().find(|(name, _)| name[..] == *channel);
        found.and_then(|(_, description)| description.first_seq)
    }
}

/// A key's first event is reported again while history holds it, and only then.
fn check_key(
    publication: &Publication,
    outcome: &Published,
    ordered: u64,
    kept_from: Option<u64>,
    truth: &Truth,
) {
    let known = truth.seqs(tag_of(&publication.data)).last().copied();
    let kept = known.filter(|seq| kept_from.is_some_and(|first| first <= *seq));
    match kept {
        Some(seq) => assert_eq!((ordered, outcome.last_seq), (0, seq), "a repeat"),
        None => assert_eq!(ordered, 1, "new, or history has forgotten it"),
    }
}

impl Watch {
    /// A canary's chance to break the rule that nothing is changed or taken twice.
    fn tamper_with(&mut self, publications: &mut Vec<Publication>) {
        let due = self.events >= 20;
        match self.tamper {
            Some(Tamper::ForgetValue) => {
                let of_state = publications.iter_mut().filter(|of| *of.channel == *PRICES);
                let attributes = of_state.filter_map(|of| of.attributes.as_mut());
                attributes.for_each(|of| of.ephemeral = !of.tombstone);
            }
            Some(Tamper::ChangeByte) if due => {
                self.tamper = None;
                let mut data = publications[0].data.to_vec();
                if let Some(last) = data.last_mut() {
                    *last ^= 1;
                }
                publications[0].data = data.into();
            }
            Some(Tamper::PublishTwice) if due => {
                self.tamper = None;
                publications.insert(0, publications[0].clone());
            }
            _ => {}
        }
    }
}

/// The outlet, watched.
struct Recorder<'a, O> {
    watch: &'a mut Watch,
    lanes: &'a mut O,
}

impl<O: Outlet> Outlet for Recorder<'_, O> {
    fn has_room(&self, worker: u16, share: Share, reserved: usize) -> bool {
        self.lanes.has_room(worker, share, reserved)
    }

    fn send(&mut self, worker: u16, mut told: FromLog) {
        let Self { watch, lanes } = self;
        if let (Some(Tamper::SkipPage), FromLog::Answer { answer: Answer::Page(page), .. }) =
            (watch.tamper, &mut told)
            && !page.events.is_empty()
        {
            watch.tamper = None;
            page.events.clear();
        }
        match &told {
            FromLog::Event(_) => watch.events += 1,
            FromLog::Answer { answer: Answer::Published { outcome, .. }, .. } => {
                watch.published = Some(outcome.clone())
            }
            _ => {}
        }
        let is_event = matches!(told, FromLog::Event(_));
        match watch.tamper {
            Some(Tamper::DropEvent) if is_event && watch.events == 20 => return,
            Some(Tamper::SwapEvents) if is_event && watch.events == 20 => {
                watch.held = Some((worker, told));
                return;
            }
            _ => {}
        }
        watch.waiting_since[usize::from(worker)].get_or_insert(watch.now);
        lanes.send(worker, told);
        if is_event && watch.held.as_ref().is_some_and(|(held, _)| *held == worker) {
            let (worker, told) = watch.held.take().expect("it was there just now");
            lanes.send(worker, told);
        }
    }
}
