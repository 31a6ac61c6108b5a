//! Slow consumers at scale: 1,000 and 10,000 of 15,000 readers stop reading while 1 MB/s is
//! published. The server's memory stays under the bound stated by its settings, the others get
//! everything in time, and a reader that wakes up learns what it lost and continues exactly there.

use std::time::Duration;

use crate::common::program::{Program, tcp_memory_bytes};
use crate::herd::{Herd, Return};
use crate::member::{Kind, Member, Reading, Told};
use crate::publisher::{Pace, Truth, publish};
use crate::{number, percentile_ms};

const PORT: u16 = 21_080;
/// Channel 0 is the busy one: all that stall read it, and so do a few that do not.
const CHANNELS: usize = 100;
const BUSY: usize = 0;
const BUSY_READERS: usize = 150;
const EVENT_BYTES: usize = 10_000;
const BYTES_PER_S: f64 = 1e6;
/// One in this many events goes to the other channels.
const BUSY_SHARE: usize = 10;
/// When the first of the stalled wake up: the busy channel has left them behind, and the kernel
/// does not yet consider them dead (`--dead-time`).
const EARLY: Duration = Duration::from_secs(22);
/// How many those are; from then on each of them reads most of the megabyte a second, too.
const EARLY_MEMBERS: usize = 60;
/// How long connecting, waking and catching up may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const RETURN_PAUSE: Duration = Duration::from_millis(500);

/// How much the server may grow while readers stall: history (by default a thousand events of a
/// channel), what the busy channel keeps for slow readers (`--replica-bytes`, 8 MiB), and a cursor
/// for each of them. Twice all that, for the allocator; and what each of two workers gathers for
/// those that catch up.
fn bound_bytes(stalled: usize) -> u64 {
    const HISTORY_BYTES: usize = 2 * 1000 * EVENT_BYTES;
    const REPLICA_BYTES: usize = 8 << 20;
    const CATCHING_UP_BYTES: usize = 4 << 20;
    (2 * (HISTORY_BYTES + REPLICA_BYTES + 256 * stalled) + CATCHING_UP_BYTES) as u64
}

#[test]
#[ignore = "takes minutes: scripts/stalls"]
fn stalls() {
    let subscribers = number("PUSHLINE_STALL_SUBSCRIBERS", 15_000) as usize;
    let seconds = number("PUSHLINE_STALL_SECONDS", 120);
    println!(
        "| policy | stalled | RSS MB: before, peak | kernel's TCP memory MB, peak | events to the \
         others | lost | their p50, p99, max ms | woken early: told by gap, 1013, 4000, cut | \
         woken late: the same | lost events told | resumed exactly |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    for policy in ["skip", "disconnect"] {
        for stalled in [subscribers / 15, subscribers / 3 * 2] {
            println!("{}", run(policy, subscribers, stalled, Duration::from_secs(seconds)));
        }
    }
}

/// The stalled first, of all kinds, then the others.
fn members(subscribers: usize, stalled: usize) -> Vec<Member> {
    let channel = |n: usize| match n < stalled + BUSY_READERS {
        true => BUSY,
        false => 1 + n % (CHANNELS - 1),
    };
    (0..subscribers).map(|n| Member::new(Kind::ALL[n % Kind::ALL.len()], channel(n))).collect()
}

/// How they were told of losses, in total.
fn told(members: &[Member]) -> Told {
    members.iter().fold(Told::default(), |sum, Member { told, .. }| Told {
        gaps: sum.gaps + told.gaps,
        slow: sum.slow + told.slow,
        gap_closes: sum.gap_closes + told.gap_closes,
        restarts: sum.restarts + told.restarts,
        cuts: sum.cuts + told.cuts,
    })
}

fn show(Told { gaps, slow, gap_closes, cuts, .. }: Told) -> String {
    format!("{gaps}, {slow}, {gap_closes}, {cuts}")
}

/// Which channel the event gets.
fn channel_of(n: usize) -> usize {
    if n.is_multiple_of(BUSY_SHARE) { 1 + n / BUSY_SHARE % (CHANNELS - 1) } else { BUSY }
}

/// Has everything that was published. A bare WebSocket that was closed has no cursor and continues
/// from now.
fn has_all(member: &Member, truth: &Truth) -> bool {
    let is_new = member.kind == Kind::WsBare && member.next.is_none();
    member.is_open() && (is_new || member.next == Some(truth.count(member.channel)))
}

fn run(policy: &str, subscribers: usize, stalled: usize, time: Duration) -> String {
    let server = Program::start(PORT, &["--slow", policy]);
    let truth = Truth::new(CHANNELS);
    let members = members(subscribers, stalled);
    let mut herd = Herd::new(server.addr, members, truth.clone());
    herd.gather(500, PATIENCE);
    greet(&mut herd, &server);
    for member in &mut herd.members[..stalled] {
        member.reading = Reading::Stalled;
    }
    herd.ages_us.clear();
    herd.back = Return::After(RETURN_PAUSE);
    let before = server.memory_bytes("VmRSS");
    let (mut peak, mut kernel_peak) = (before, 0);
    let mut look = |server: &Program| {
        peak = peak.max(server.memory_bytes("VmRSS"));
        kernel_peak = kernel_peak.max(tcp_memory_bytes());
        false
    };
    let per_s = BYTES_PER_S / EVENT_BYTES as f64;
    let events = (time.as_secs_f64() * per_s) as usize;
    let pace = Pace { events, per_s, bytes: EVENT_BYTES };
    let load = publish(server.addr, &truth, pace, channel_of);
    herd.live(EARLY, |_| look(&server));
    // Later the clients' own thread is busy with those that woke up.
    let mut ages = std::mem::take(&mut herd.ages_us);
    ages.sort_unstable();
    let early = EARLY_MEMBERS.min(stalled / 2);
    (0..early).for_each(|index| herd.wake(index));
    let delivered = herd.live(time + PATIENCE, |herd| {
        look(&server);
        load.is_finished() && herd.members[stalled..].iter().all(|other| has_all(other, &truth))
    });
    load.join().expect("it publishes");
    assert!(delivered, "the others did not get everything");
    assert_eq!(told(&herd.members[stalled..]), Told::default(), "the others were disturbed");
    let others = ages.len() + herd.ages_us.len();

    (early..stalled).for_each(|index| herd.wake(index));
    let woken = herd.live(PATIENCE, |herd| herd.members.iter().all(|one| has_all(one, &truth)));
    let exact = herd.members[..stalled].iter().filter(|one| has_all(one, &truth)).count();
    assert!(woken, "{exact} of {stalled} have caught up");
    greet(&mut herd, &server);
    assert!(peak - before <= bound_bytes(stalled), "RSS grew from {before} to {peak}");
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let lost: u64 = herd.members[..stalled].iter().map(|member| member.lost).sum();
    format!(
        "| {policy} | {stalled} of {subscribers} | {:.1}, {:.1} | {:.0} | {} | 0 | {:.1}, {:.1}, \
         {:.1} | {} | {} | {lost} | {exact} |",
        mb(before),
        mb(peak),
        mb(kernel_peak),
        others,
        percentile_ms(&ages, 0.5),
        percentile_ms(&ages, 0.99),
        percentile_ms(&ages, 1.0),
        show(told(&herd.members[..early])),
        show(told(&herd.members[early..stalled])),
    )
}

/// Publishes one more event in each channel; every member must get it: none was left behind.
fn greet(herd: &mut Herd, server: &Program) {
    let truth = herd.truth.clone();
    let pace = Pace { events: CHANNELS, per_s: 200.0, bytes: EVENT_BYTES };
    let greeting = publish(server.addr, &truth, pace, |n| n);
    let greeted = |member: &Member| member.next == Some(truth.count(member.channel));
    let all =
        herd.live(PATIENCE, |herd| greeting.is_finished() && herd.members.iter().all(greeted));
    greeting.join().expect("it publishes");
    assert!(all, "a member did not get the greeting");
}
