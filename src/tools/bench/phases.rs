//! A run from start to end: connect, hold, publish, report.

use std::{
    fs,
    io::{IsTerminal, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::{
    args::{BenchOptions, Heartbeats, PublishPlan, Readers},
    client::raise_descriptor_limit,
    error::BenchError,
    fleet::Fleet,
    messages::{ClientTask, Command, Progress, Secure},
    monotonic_ns,
    observe::{self, Sample},
    plan::{self, Target},
    plot,
    publisher::{Published, Publisher},
    report::{self, Findings, HoldFacts, Report},
    table,
    tally::events_for,
};

/// Connects that may wait for their answer at once, over all client processes: fewer than the usual
/// listen backlog (`net.core.somaxconn` 4096).
const CONNECTING_MAX: u32 = 2_048;

/// Rest after the ramp, so that memory is measured once buffers have been freed.
const SETTLE: Duration = Duration::from_millis(1_000);

/// Longest wait for heartbeats: several times the longest heartbeat in use.
const HEARTBEATS_WITHIN: Duration = Duration::from_secs(120);

/// Deliveries are complete when all have arrived, or none has come for this long: longer than a
/// shared machine stands still.
const QUIET: Duration = Duration::from_secs(10);

/// A server that uses less CPU time than this in [`CPU_WINDOW`] has done its work.
const CPU_QUIET_NS: u64 = 2_000_000;

/// See [`CPU_QUIET_NS`].
const CPU_WINDOW: Duration = Duration::from_millis(100);

/// Time between two looks at the client processes.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs the whole benchmark and writes the files asked for.
pub fn run(options: BenchOptions) -> Result<Report, BenchError> {
    if options.readers == Readers::Stopped && options.server_pids.is_empty() {
        return Err(BenchError::Options("--stop-readers needs --server-pid"));
    }
    // Before a long run and not after it.
    for path in options.json.iter().chain(&options.plot) {
        check_writable(path)?;
    }
    let run = rustix::process::getpid().as_raw_nonzero().get() as u32;
    let tasks = tasks(&options, run)?;
    let mut findings =
        Findings { before: Sample::take(&options.server_pids)?, ..Findings::default() };
    let mut live = Live::new();
    let mut fleet = Fleet::start(&tasks)?;
    findings.client_processes = fleet.len();
    connect(&options, &mut fleet, &mut findings, &mut live)?;
    if findings.held == 0 {
        let results = fleet.finish(0)?;
        live.end();
        let kinds = report::merged_kinds(results.iter().map(|result| &result.failures));
        return Err(BenchError::NothingConnected(table::kinds(&kinds)));
    }
    if !options.hold.is_zero() || options.heartbeats == Heartbeats::Await {
        findings.hold = Some(hold(&options, &mut fleet, findings.held, &mut live)?);
    }
    if options.publish != PublishPlan::Nothing {
        findings.publish = Some(publish(&options, run, &mut fleet, &mut live)?);
    }
    let published = findings.publish.as_ref().map_or(0, |(published, ..)| published.events);
    let results = fleet.finish(published)?;
    live.end();
    let report = Report::new(&options, findings, &results);
    if let Some(path) = &options.json {
        write_json(path, &report)?;
    }
    if let Some(path) = &options.plot {
        plot::draw(path, &report)?;
    }
    Ok(report)
}

fn tasks(options: &BenchOptions, run: u32) -> Result<Vec<ClientTask>, BenchError> {
    let target = Target::parse(&options.url)?;
    let shares =
        plan::shares(options.connections, options.streams.unwrap_or(1), raise_descriptor_limit());
    let processes = shares.len() as u32;
    let port_offset = u32::from(run as u16);
    let secure = target.secure_host.clone().map(|host| Secure {
        host,
        trust: options.trust.clone(),
        key_exchange: options.key_exchange,
        tickets: options.tickets,
    });
    let task = |(index, share): (usize, plan::Share)| ClientTask {
        run,
        target: target.address,
        authority: target.authority.clone(),
        path: options.subscribe_path.clone(),
        secure: secure.clone(),
        header_lines: options.subscribe_header_lines.clone(),
        transport: options.transport,
        streams: options.streams,
        channels: options.channels,
        connections: options.connections,
        first: share.first,
        count: share.count,
        ramp_per_s: f64::from(options.ramp_per_s) / f64::from(processes),
        connecting_max: (CONNECTING_MAX / processes).max(4),
        source: plan::source(target.address, index),
        port_offset,
    };
    Ok(shares.into_iter().enumerate().map(task).collect())
}

fn connect(
    options: &BenchOptions,
    fleet: &mut Fleet,
    findings: &mut Findings,
    live: &mut Live,
) -> Result<(), BenchError> {
    let began_ns = monotonic_ns();
    let progress = loop {
        fleet.listen(LOOK_EVERY)?;
        let progress = fleet.progress();
        let Progress { connected, failed, .. } = progress;
        live.show(|| format!("connecting: {connected} held, {failed} failed"));
        if connected + failed >= u64::from(options.connections) {
            break progress;
        }
    };
    findings.connect_seconds = progress.answered_ns.saturating_sub(began_ns) as f64 / 1e9;
    findings.held = progress.connected - progress.ended;
    findings.ramped = Sample::take(&options.server_pids)?;
    fleet.listen(SETTLE)?;
    findings.settled = Sample::take(&options.server_pids)?;
    Ok(())
}

fn hold(
    options: &BenchOptions,
    fleet: &mut Fleet,
    held: u64,
    live: &mut Live,
) -> Result<HoldFacts, BenchError> {
    fleet.command(Command::Watch)?;
    let (began, cpu_ns) = (Instant::now(), observe::cpu_ns_of_all(&options.server_pids));
    let mut per_s_max = 0;
    let mut last = (began, 0);
    loop {
        fleet.listen(LOOK_EVERY)?;
        let Progress { beating, heartbeats, ended, .. } = fleet.progress();
        let elapsed = began.elapsed();
        live.show(|| format!("holding: {:.0} s, {beating} saw a heartbeat", elapsed.as_secs_f64()));
        if last.0.elapsed() >= Duration::from_secs(1) {
            per_s_max = per_s_max.max(heartbeats.saturating_sub(last.1));
            last = (Instant::now(), heartbeats);
        }
        let is_seen = beating + ended >= held || elapsed >= HEARTBEATS_WITHIN;
        if elapsed >= options.hold && (options.heartbeats == Heartbeats::Count || is_seen) {
            break;
        }
    }
    let cpu_ns = observe::cpu_ns_of_all(&options.server_pids).saturating_sub(cpu_ns);
    let hold_seconds = began.elapsed().as_secs_f64();
    let percent = cpu_ns as f64 / 1e7 / hold_seconds;
    let progress = fleet.progress();
    Ok(HoldFacts {
        hold_seconds,
        server_idle_cpu_percent: (!options.server_pids.is_empty()).then_some(percent),
        heartbeats: progress.heartbeats,
        connections_with_heartbeat: progress.beating,
        heartbeats_per_s_max: per_s_max,
    })
}

fn publish(
    options: &BenchOptions,
    run: u32,
    fleet: &mut Fleet,
    live: &mut Live,
) -> Result<(Published, Sample, Sample), BenchError> {
    if options.readers == Readers::Stopped {
        fleet.stop()?;
    }
    let before = Sample::take(&options.server_pids)?;
    let events = AtomicU64::new(0);
    let publisher = Publisher::new(options, run, &events)?;
    let published = std::thread::scope(|scope| {
        let publishing = scope.spawn(move || publisher.run());
        while !publishing.is_finished() {
            fleet.listen(Duration::from_millis(5))?;
            let deliveries = fleet.progress().deliveries;
            let events = events.load(Ordering::Relaxed);
            live.show(|| format!("publishing: {events} events, {deliveries} deliveries"));
        }
        Ok(publishing.join().expect("the publisher does not panic"))
    })?;
    if published.events == 0 {
        let last = published.last_refusal.unwrap_or_default();
        return Err(BenchError::NothingPublished(last));
    }
    let after = sample_after(options, published.events, fleet, live)?;
    Ok((published, before, after))
}

/// What the server has spent once it has sent all, be it to readers that have yet to read. Ends when
/// all is delivered.
fn sample_after(
    options: &BenchOptions,
    events: u64,
    fleet: &mut Fleet,
    live: &mut Live,
) -> Result<Sample, BenchError> {
    match options.readers {
        Readers::Stopped => {
            await_idle_server(options);
            let after = Sample::take(&options.server_pids)?;
            fleet.go_on()?;
            await_deliveries(options, events, fleet, live)?;
            Ok(after)
        }
        Readers::Awake => {
            await_deliveries(options, events, fleet, live)?;
            Sample::take(&options.server_pids)
        }
    }
}

fn await_idle_server(options: &BenchOptions) {
    let mut cpu_ns = observe::cpu_ns_of_all(&options.server_pids);
    loop {
        std::thread::sleep(CPU_WINDOW);
        let now_ns = observe::cpu_ns_of_all(&options.server_pids);
        if now_ns - cpu_ns < CPU_QUIET_NS {
            return;
        }
        cpu_ns = now_ns;
    }
}

/// Waits until all deliveries have arrived. The expected count is exact if all connections were
/// made and held; otherwise the quiet time ends the wait.
fn await_deliveries(
    options: &BenchOptions,
    published: u64,
    fleet: &mut Fleet,
    live: &mut Live,
) -> Result<(), BenchError> {
    let channels = options.channels.count(options.connections);
    let due: u64 = (0..channels)
        .map(|channel| {
            let subscribers = events_for(channel, channels, u64::from(options.connections));
            subscribers * events_for(channel, channels, published)
        })
        .sum();
    let mut last = (Instant::now(), fleet.progress().deliveries);
    loop {
        fleet.listen(LOOK_EVERY)?;
        let deliveries = fleet.progress().deliveries;
        live.show(|| format!("delivering: {deliveries} of {due}"));
        if deliveries >= due {
            return Ok(());
        }
        if deliveries != last.1 {
            last = (Instant::now(), deliveries);
        }
        if last.0.elapsed() > QUIET {
            return Ok(());
        }
    }
}

fn check_writable(path: &Path) -> Result<(), BenchError> {
    let opened = fs::File::options().create(true).append(true).open(path);
    opened.map(drop).map_err(|error| BenchError::Write(path.to_owned(), error))
}

fn write_json(path: &Path, report: &Report) -> Result<(), BenchError> {
    let failed = |error| BenchError::Write(path.to_owned(), error);
    let text = serde_json::to_string_pretty(report).map_err(|error| failed(error.into()))?;
    fs::write(path, text + "\n").map_err(failed)
}

/// The line that shows what is going on: rewritten in place on a terminal, otherwise one a second.
#[derive(Debug)]
struct Live {
    every: Duration,
    shown_at: Option<Instant>,
    is_terminal: bool,
}

impl Live {
    fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let every = Duration::from_millis(if is_terminal { 100 } else { 1_000 });
        Self { every, shown_at: None, is_terminal }
    }

    fn show(&mut self, line: impl FnOnce() -> String) {
        if self.shown_at.is_some_and(|at| at.elapsed() < self.every) {
            return;
        }
        self.shown_at = Some(Instant::now());
        // A closed output is no reason to end a run.
        let _ = match self.is_terminal {
            true => write!(std::io::stderr(), "\r\x1b[K{}", line()),
            false => writeln!(std::io::stderr(), "{}", line()),
        };
    }

    fn end(&mut self) {
        if self.is_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
