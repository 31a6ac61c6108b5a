//! The whole system on one thread: who runs next, until when, and what must hold meanwhile.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use pushline::auth::{Gate, ProofKey};
use pushline::log::{Sequencer, SharedHasher};
use pushline::mesh::{MainEnds, mesh};
use pushline::proto::cursor::Epoch;
use pushline::ring::sim::{Fault, Faults, SimDriver, SimNet};
use pushline::ring::tls::Tls;
use pushline::worker::command::Command;
use pushline::worker::connection_count::{ByAddress, ConnectionCount};
use pushline::worker::{Core, Setup};
use pushline::worker::{Turned, Worker};

use crate::canary::{CanaryBell, CanaryDriver, Tamper};
use crate::client::watcher::KEYS;
use crate::client::{Actor, Ctx, Season, actor, tls};
use crate::log::{Log, SimHand};
use crate::plan::{Concern, Ending, Plan, Role, stream, up_to};
use crate::store::{Home, Machine, Outage, StoreActor};
use crate::truth::{PRICES, Truth};

/// Steps between two looks at all invariants.
const CHECK_EVERY: u64 = 200;
/// Steps a run may take while clients do as they like; then they settle.
const ACTIVE_STEPS_MAX: u64 = 30_000;
/// Steps at one moment of time: more is a livelock.
const STEPS_AT_ONCE_MAX: u64 = 250_000;
/// Steps until all is quiet.
const SETTLING_STEPS_MAX: u64 = 1_000_000;
/// Time until all is quiet: dead peers must be noticed by then (two heartbeats and a half).
const SETTLING_TIME_MAX: Duration = Duration::from_secs(180);
/// How long faults have effects: a worker stalls for at most five seconds, a doorbell is a second
/// late.
const AFTERMATH: Duration = Duration::from_secs(7);
/// Unix time at which the world begins.
const BEGAN_UNIX_S: u64 = 1_700_000_000;

pub struct World {
    plan: Plan,
    net: SimNet,
    server: Server,
    hasher: SharedHasher,
    /// Where the log has a journal.
    machine: Option<Machine>,
    tamper: Option<Tamper>,
    clients: Vec<Box<dyn Actor>>,
    truth: Rc<RefCell<Truth>>,
    season: Season,
    rng: Rng,
    client_rng: Rng,
    log_rng: Rng,
    store_rng: Rng,
    outage_rng: Rng,
    hands: Rng,
    /// From here on nothing is late any more.
    calm_from: Duration,
    steps: u64,
    steps_at_once: u64,
}

/// One life of the server.
struct Server {
    workers: Vec<Seat>,
    log: Log,
    store: Option<StoreActor>,
    main: MainEnds<Command>,
    connection_count: Arc<ConnectionCount>,
}

/// A worker and whether it sleeps within its turn.
struct Seat {
    worker: Worker<CanaryDriver<Tls<CanaryDriver<SimDriver>>>, SimHand>,
    sleeps: bool,
    done: bool,
}

/// A summary of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub steps: u64,
    pub events: u64,
    pub faults: u64,
    /// Subscribers that came over TLS, and were let in.
    pub over_tls: u64,
}

/// Who runs next.
#[derive(Clone, Copy, Debug)]
enum Next {
    Worker(usize),
    Log,
    Store,
    Client(usize),
}

/// Runs a seed; panics if anything is wrong.
pub fn run(seed: u64, home: Home, tamper: Option<Tamper>) -> Summary {
    let mut world = World::new(Plan::from_seed(seed), home, tamper);
    world.be_active();
    world.settle();
    match world.plan.ending {
        Ending::HangUp => world.hang_up(),
        Ending::Drain => world.drain(),
    }
    let (truth, faults) = (world.truth.borrow(), world.net.faults_happened());
    let (events, over_tls) = (truth.count(), truth.opened_over_tls);
    Summary { steps: world.steps, events, faults, over_tls }
}

impl World {
    fn new(plan: Plan, home: Home, tamper: Option<Tamper>) -> Self {
        let seed = plan.seed;
        let net = SimNet::new(plan.sim, plan.faults, seed);
        let hasher = SharedHasher::from_seed(u128::from(seed));
        let mut machine = (home == Home::Journal).then(|| Machine::new(&plan, tamper));
        let truth = Rc::new(RefCell::new(Truth::default()));
        let mut hands = stream(seed, Concern::Hands);
        let origin = Origin { plan: &plan, net: &net, hasher: &hasher, truth: &truth, tamper };
        let server = origin.start(machine.as_mut(), &mut hands);
        let mut client_rng = stream(seed, Concern::Clients);
        // Their oracles do not know outages yet.
        let knows =
            |role: &&Role| home == Home::Memory || ![Role::Teller, Role::Member].contains(*role);
        let roles = plan.roles.iter().filter(knows);
        Self {
            server,
            machine,
            clients: roles.map(|role| actor(*role, &mut client_rng)).collect(),
            truth,
            season: Season::Active,
            rng: stream(seed, Concern::Scheduler),
            client_rng,
            log_rng: stream(seed, Concern::Log),
            store_rng: stream(seed, Concern::Store),
            outage_rng: stream(seed, Concern::Outages),
            hands,
            calm_from: if runs_late(&plan.faults) { Duration::MAX } else { Duration::ZERO },
            steps: 0,
            steps_at_once: 0,
            hasher,
            tamper,
            net,
            plan,
        }
    }

    /// The server goes down, and is started again.
    fn restart(&mut self, how: Outage) {
        let Self { server, machine, .. } = self;
        let (Some(machine), Some(store)) = (machine, server.store.take()) else { return };
        if how == Outage::Close {
            server.log.look(|log| log.sequencer.close());
            store.finish();
        }
        // Their connections are closed.
        server.workers.clear();
        machine.went_down(how);
        let Self { plan, net, hasher, truth, tamper, .. } = self;
        let origin = Origin { plan, net, hasher, truth, tamper: *tamper };
        self.server = origin.start(self.machine.as_mut(), &mut self.hands);
    }

    // --- the seasons ---

    fn be_active(&mut self) {
        while self.net.now() < self.plan.active && self.steps < ACTIVE_STEPS_MAX {
            self.step(self.plan.active);
            if self.machine.is_some() {
                self.afflict();
            }
        }
    }

    /// The disk troubles, and now and then the server goes down.
    fn afflict(&mut self) {
        let Some(machine) = &mut self.machine else { return };
        match self.outage_rng.u16(..3000) {
            0..5 => machine.trouble(),
            5..7 => {
                let how = machine.any_outage();
                self.restart(how);
            }
            _ => {}
        }
    }

    /// A disk that has failed is only used again by another process.
    fn calm_the_disk(&mut self) {
        let Some(machine) = &mut self.machine else { return };
        machine.calm();
        let is_down = self.server.log.look(|log| log.sequencer.stats().store_is_down);
        if is_down || self.outage_rng.bool() {
            let how = machine.any_outage();
            self.restart(how);
        }
    }

    /// Faults stop, clients read and come back: everything must become quiet.
    fn settle(&mut self) {
        self.net.set_faults(Faults::none());
        self.calm_the_disk();
        self.season = Season::Settling;
        self.calm_from = self.calm_from.min(self.net.now() + AFTERMATH);
        for client in 0..self.clients.len() {
            self.client_acts(client);
        }
        let (steps, until) = (self.steps + SETTLING_STEPS_MAX, self.net.now() + SETTLING_TIME_MAX);
        while let Some(reason) = self.unsettled() {
            assert!(self.steps < steps, "livelock: {reason}");
            assert!(self.net.now() < until, "never quiet: {reason}");
            // The state of all clients is only looked at now and then.
            for _ in 0..50 {
                self.step(until);
            }
        }
        // Nothing more comes after it, except heartbeats.
        let until = self.net.now() + self.plan.settings.heartbeat * 2;
        while self.net.now() < until {
            self.step(until);
        }
        self.wait_until("quiet again", |world| world.unsettled().is_none());
        self.check_invariants();
        let subscribed: usize =
            self.server.workers.iter().map(|seat| seat.worker.core().subscriptions()).sum();
        let page = self.server.log.look(|log| log.sequencer.channels(0, usize::MAX));
        let counted: u32 = page.channels.iter().map(|(_, channel)| channel.subscribers).sum();
        assert_eq!(subscribed, counted as usize, "subscribers at the workers and at the log");
    }

    /// What is wrong although all is quiet.
    fn unsettled(&self) -> Option<String> {
        let worker = self.server.workers.iter().position(|seat| !seat.worker.core().is_quiet());
        let truth = self.truth.borrow();
        let client = self.clients.iter().find_map(|client| client.unsettled(&truth));
        let log = (!self.server.log.is_quiet()).then(|| "the log has requests".into());
        let store = self.server.store.as_ref().filter(|store| !store.is_quiet());
        let store = store.map(|_| "the store has work".into());
        client.or(log).or(store).or(worker.map(|worker| format!("worker {worker} has work")))
    }

    /// All clients leave: nothing may be left of them.
    fn hang_up(&mut self) {
        self.clients.clear();
        self.wait_until("all connections are gone", |world| {
            world.open() == 0 && world.unsettled().is_none()
        });
        self.check_empty();
    }

    /// The server drains: all clients are ended in time, and the workers end.
    fn drain(&mut self) {
        self.season = Season::Leaving;
        for (worker, commands) in self.server.main.commands.iter().enumerate() {
            commands.try_send(Command::Drain).expect("the lane has room");
            if self.server.main.asleep[worker].needs_ring() {
                let mut bell = self.net.bell();
                pushline::ring::Bell::ring(&mut bell, worker as u16);
                pushline::ring::Bell::flush(&mut bell);
            }
        }
        self.wait_until("all workers have ended", |world| {
            world.server.workers.iter().all(|seat| seat.done)
        });
        self.check_empty();
    }

    fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let until = self.net.now() + SETTLING_TIME_MAX;
        let steps = self.steps + SETTLING_STEPS_MAX;
        while !is_so(self) {
            assert!(self.net.now() < until && self.steps < steps, "never: {what}");
            self.step(until);
        }
    }

    fn open(&self) -> u32 {
        self.server.workers.iter().map(|seat| seat.worker.core().open()).sum()
    }

    fn check_empty(&mut self) {
        // What the last turns decided must still be submitted.
        for seat in &mut self.server.workers {
            seat.worker.submit().expect("the driver never fails");
        }
        self.check_invariants();
        for worker in 0..self.plan.sim.workers {
            assert_eq!(self.net.slots_used(worker), 0, "slots of worker {worker}");
            assert_eq!(self.net.buffers_lent(worker), 0, "buffers of worker {worker}");
        }
        assert_eq!(self.server.connection_count.open(), 0);
    }

    // --- a step ---

    fn step(&mut self, until: Duration) {
        self.steps += 1;
        self.steps_at_once += 1;
        assert!(self.steps_at_once < STEPS_AT_ONCE_MAX, "livelock: time stands still");
        let now = self.net.now();
        let mut next_at = until;
        let mut ready = Vec::with_capacity(16);
        for (index, _) in self.server.workers.iter().enumerate().filter(|(_, seat)| !seat.done) {
            let due = self.net.due_at(index as u16);
            consider(due, now, Next::Worker(index), &mut ready, &mut next_at);
        }
        consider(Some(self.server.log.due_at(now)), now, Next::Log, &mut ready, &mut next_at);
        let store = self.server.store.as_ref().map(StoreActor::due_at);
        consider(store, now, Next::Store, &mut ready, &mut next_at);
        for (index, client) in self.clients.iter().enumerate() {
            consider(client.due_at(now), now, Next::Client(index), &mut ready, &mut next_at);
        }
        if ready.is_empty() {
            let stranded = if now < self.calm_from { 0 } else { self.server.log.stranded() };
            assert_eq!(stranded, 0, "requests that no thread is at");
            self.net.advance(next_at.saturating_sub(now).max(Duration::from_nanos(1)));
            self.steps_at_once = 0;
            return;
        }
        match ready[self.rng.usize(0..ready.len())] {
            Next::Worker(index) => self.worker_turns(index),
            Next::Log => self.log_runs(),
            Next::Store => self.store_works(),
            Next::Client(index) => self.client_acts(index),
        }
        if self.steps.is_multiple_of(CHECK_EVERY) {
            self.check_invariants();
        }
    }

    fn worker_turns(&mut self, index: usize) {
        let now = self.net.now();
        let seat = &mut self.server.workers[index];
        if seat.sleeps {
            // The sleep is over: what has come meanwhile?
            seat.worker.submit().expect("the driver never fails");
        }
        let turned = seat.worker.wake(BEGAN_UNIX_S + now.as_secs());
        let waited = self.server.log.looked_into(index).filter(|since| *since >= self.calm_from);
        assert!(waited.is_none_or(|since| since == now), "worker {index} slept over its lane");
        if turned == Turned::Done {
            seat.worker.finish().expect("the driver never fails");
            seat.done = true;
            return;
        }
        seat.worker.submit().expect("the driver never fails");
        seat.sleeps = self.net.asleep_until(index as u16).is_none_or(|at| at > now);
    }

    fn log_runs(&mut self) {
        let now = self.net.now();
        self.server.log.step(now, &mut self.log_rng);
        let stalls = self.plan.log_stalls && self.season == Season::Active;
        if stalls && self.log_rng.u16(0..500) == 0 {
            self.server.log.stall(now + up_to(&mut self.log_rng, Duration::from_secs(3)));
        }
    }

    fn store_works(&mut self) {
        let Self { machine, server, store_rng, .. } = self;
        let (Some(machine), Some(store)) = (machine, &mut server.store) else { return };
        let now = self.net.now();
        if self.season == Season::Active {
            machine.may_stop();
        }
        store.step(now, store_rng);
        match machine.has_stopped() {
            false => store.tell(now),
            true => {
                let how = machine.any_crash();
                self.restart(how);
            }
        }
    }

    fn client_acts(&mut self, index: usize) {
        let Self { net, client_rng, truth, plan, season, clients, .. } = self;
        let truth = &mut *truth.borrow_mut();
        let mut ctx = Ctx { net, rng: client_rng, truth, plan, season: *season };
        clients[index].act(&mut ctx);
    }

    fn check_invariants(&self) {
        self.net.check_conservation();
        self.server.log.look(|log| {
            log.sequencer.check_invariants();
            check_state(&log.sequencer);
        });
        for seat in &self.server.workers {
            seat.worker.core().check_invariants();
        }
        assert_eq!(self.server.connection_count.open(), u64::from(self.open()));
    }
}

/// What a life of the server is made from.
struct Origin<'a> {
    plan: &'a Plan,
    net: &'a SimNet,
    hasher: &'a SharedHasher,
    truth: &'a Rc<RefCell<Truth>>,
    tamper: Option<Tamper>,
}

impl Origin<'_> {
    fn start(&self, machine: Option<&mut Machine>, hands: &mut Rng) -> Server {
        let &Self { plan, net, hasher, truth, tamper } = self;
        let workers = plan.sim.workers;
        let (main, log_ends, ends) = mesh(workers, plan.settings.lane_events);
        let (sequencer, epoch, journal) = match machine {
            Some(machine) => {
                let started = machine.start(plan, net.now(), hasher.clone(), truth);
                (started.log, started.epoch, Some((started.ordered, started.far)))
            }
            None => {
                let epoch = Epoch::from_random(plan.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                let settings = plan.settings.log_settings();
                (Sequencer::new(settings, epoch, workers, hasher.clone()), epoch, None)
            }
        };
        truth.borrow_mut().epoch = epoch.as_str().into();
        let (ordered, far) = journal.unzip();
        let log = Log::new(sequencer, ordered, truth.clone(), &log_ends, net.bell(), tamper);
        let store = far.map(|far| {
            let hand = log.hand(&log_ends, hands.fork(), tamper);
            let bell = CanaryBell { inner: net.bell(), tamper };
            StoreActor::new(far, ends[0].requests.clone(), hand, bell)
        });
        let connection_count = Arc::new(ConnectionCount::new(u64::MAX, ByAddress::Ignored));
        let (gate, handshakes) = (Arc::new(Gate::open()), tls::handshakes());
        let seats = ends.into_iter().zip(0..).map(|(ends, worker)| {
            let setup = Setup {
                worker,
                epoch,
                hasher: hasher.clone(),
                proof_key: ProofKey::new(&[1; 32]),
                settings: plan.settings.clone(),
                slots: plan.sim.slots_per_worker,
                connection_count: connection_count.clone(),
                gate: gate.clone(),
                seed: plan.seed,
            };
            let core = Core::new(setup, ends.requests.clone(), Arc::default());
            let below = CanaryDriver::over(net.driver(worker), tamper.filter(Tamper::is_below_tls));
            let with_tls = Tls::over(below, handshakes.clone());
            let driver = CanaryDriver::over(with_tls, tamper.filter(|of| !of.is_below_tls()));
            let hand = log.hand(&log_ends, hands.fork(), tamper);
            let mut worker = Worker::new(driver, core, ends, hand);
            worker.submit().expect("the driver never fails");
            Seat { worker, sleeps: true, done: false }
        });
        Server { workers: seats.collect(), log, store, main, connection_count }
    }
}

/// Whether a worker may look into its lane later than it should.
fn runs_late(faults: &Faults) -> bool {
    let late = |fault| matches!(fault, Fault::LateDoorbell | Fault::WorkerStall);
    faults.enabled().any(|(fault, _)| late(fault))
}

/// A state has no more than one value of each key.
fn check_state(log: &Sequencer) {
    let page = log.channels(0, usize::MAX);
    let state = page.channels.iter().find(|(name, _)| name[..] == *PRICES);
    let events = state.map_or(0, |(_, channel)| channel.events);
    assert!(events <= u32::from(KEYS), "{events} values of {KEYS} keys");
}

fn consider(
    due: Option<Duration>,
    now: Duration,
    who: Next,
    ready: &mut Vec<Next>,
    next_at: &mut Duration,
) {
    match due {
        Some(at) if at <= now => ready.push(who),
        Some(at) => *next_at = (*next_at).min(at),
        None => {}
    }
}
