//! The log as an actor: the real sequencer and lanes, wired like its thread, and everything it
//! orders told to the truth.

use std::time::Duration;

use crossbeam_channel::Receiver;
use fastrand::Rng;
use pushline::log::event::Publication;
use pushline::log::message::{Notice, Published, Request, RequestBody, Share};
use pushline::log::{Outlet, Sequencer};
use pushline::mesh::{LogEnds, LogOutlet};
use pushline::ring::sim::SimBell;

use crate::canary::{CanaryBell, Tamper};
use crate::truth::{Truth, tag_of};

/// Requests handled before workers are rung.
const BATCH_MAX: usize = 256;

/// Longest sleep.
const SLEEP_MAX: Duration = Duration::from_secs(1);

pub struct Log {
    pub sequencer: Sequencer,
    requests: Receiver<Request>,
    outlet: Recorder,
    expire_at: Duration,
    pub stalled_until: Duration,
}

/// The way out, watched. A canary's rule is broken here.
struct Recorder {
    lanes: LogOutlet<CanaryBell>,
    published: Option<Published>,
    tamper: Option<Tamper>,
    events: u64,
    held: Option<(u16, Notice)>,
    now: Duration,
    /// Since when something waits in each worker's lane.
    waiting_since: Vec<Option<Duration>>,
}

impl Log {
    pub fn new(
        sequencer: Sequencer,
        ends: &LogEnds,
        bell: SimBell,
        tamper: Option<Tamper>,
    ) -> Self {
        let lanes = LogOutlet::new(ends, CanaryBell { inner: bell, tamper });
        Self {
            sequencer,
            requests: ends.requests.clone(),
            outlet: Recorder {
                lanes,
                published: None,
                tamper,
                events: 0,
                held: None,
                now: Duration::ZERO,
                waiting_since: vec![None; ends.notices.len()],
            },
            expire_at: SLEEP_MAX,
            stalled_until: Duration::ZERO,
        }
    }

    /// When its thread would run.
    pub fn due_at(&self, now: Duration) -> Duration {
        let at = if self.requests.is_empty() { self.expire_at } else { now };
        at.max(self.stalled_until)
    }

    pub fn is_quiet(&self) -> bool {
        self.requests.is_empty() && self.outlet.held.is_none()
    }

    /// One round of its loop; a random batch.
    pub fn step(&mut self, now: Duration, rng: &mut Rng, truth: &mut Truth) {
        self.outlet.now = now;
        for _ in 0..rng.usize(1..=BATCH_MAX) {
            let Ok(request) = self.requests.try_recv() else { break };
            self.handle(request, now, truth);
        }
        self.outlet.lanes.flush();
        if now >= self.expire_at {
            let wanted = self.sequencer.expire(now).unwrap_or(now + SLEEP_MAX);
            self.expire_at = wanted.min(now + SLEEP_MAX);
        }
    }

    fn handle(&mut self, mut request: Request, now: Duration, truth: &mut Truth) {
        let RequestBody::Publish { publications, .. } = &mut request.body else {
            return self.sequencer.handle(request, now, &mut self.outlet);
        };
        let copies = publications.clone();
        self.outlet.tamper_with(publications);
        let keyed = match &copies[..] {
            [Publication { channel, key: Some(key), .. }] => Some((channel.clone(), key.clone())),
            _ => None,
        };
        let kept_from = keyed.as_ref().and_then(|(channel, _)| self.first_kept(channel));
        let before = self.sequencer.stats().head_seq;
        self.sequencer.handle(request, now, &mut self.outlet);
        let ordered = self.sequencer.stats().head_seq - before;
        let outcome = self.outlet.published.take().expect("every publish is answered");
        if keyed.is_some() && outcome.accepted == 1 {
            check_key(&copies[0], &outcome, ordered, kept_from, truth);
        } else {
            assert_eq!(u64::from(outcome.accepted), ordered);
            let (first, last) = if ordered > 0 { (before + 1, before + ordered) } else { (0, 0) };
            assert_eq!((outcome.first_seq, outcome.last_seq), (first, last));
        }
        assert_eq!(outcome.refusal.is_none(), outcome.accepted as usize == copies.len());
        for publication in &copies[..outcome.accepted as usize] {
            if ordered > 0 {
                truth.note_ordered(publication);
            }
        }
        assert_eq!(truth.head(), self.sequencer.stats().head_seq, "all of the log is known");
    }

    /// A worker looks into its lane: since when has something waited there?
    pub fn looked_into(&mut self, worker: usize) -> Option<Duration> {
        self.outlet.waiting_since[worker].take()
    }

    /// The oldest event history holds of a channel.
    fn first_kept(&self, channel: &str) -> Option<u64> {
        let page = self.sequencer.channels(0, usize::MAX);
        let found = page.channels.iter().find(|(name, _)| name[..] == *channel);
        found.and_then(|(_, description)| description.first_seq)
    }
}

/// A key's first event is told again while history holds it, and only then.
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

impl Recorder {
    /// A canary's chance to break the rule that nothing is changed or taken twice.
    fn tamper_with(&mut self, publications: &mut Vec<Publication>) {
        let due = self.events >= 20;
        match self.tamper {
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

impl Outlet for Recorder {
    fn has_room(&self, worker: u16, share: Share) -> bool {
        self.lanes.has_room(worker, share)
    }

    fn send(&mut self, worker: u16, notice: Notice) {
        match &notice {
            Notice::Event(_) => self.events += 1,
            Notice::Published { outcome, .. } => self.published = Some(*outcome),
            _ => {}
        }
        let is_event = matches!(notice, Notice::Event(_));
        match self.tamper {
            Some(Tamper::DropEvent) if is_event && self.events == 20 => return,
            Some(Tamper::SwapEvents) if is_event && self.events == 20 => {
                self.held = Some((worker, notice));
                return;
            }
            _ => {}
        }
        self.waiting_since[usize::from(worker)].get_or_insert(self.now);
        self.lanes.send(worker, notice);
        if is_event && self.held.as_ref().is_some_and(|(held, _)| *held == worker) {
            let (worker, notice) = self.held.take().expect("it was there just now");
            self.lanes.send(worker, notice);
        }
    }
}
