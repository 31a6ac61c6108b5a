//! Clients that end while something of theirs is under way. A client that ends after its last
//! request gets every answer, even if its socket is full when the end is seen.

use std::time::Duration;

use crate::common::request;
use crate::common::ws::frame;
use pushline::auth::Gate;
use pushline::log::message::{Answer, Ask, FromLog, Published, Refusal, ToLog};
use pushline::ring::{BufferId, Completion, Layer, Op, RecvEnd, Token};
use pushline::worker::Core;

const SLOT: Token = Token { slot: 0, generation: 0 };

fn worker() -> Core {
    crate::common::core(Gate::open(), 1000).0
}

/// One turn; what it sends to the client, and whether it closes.
fn turn(core: &mut Core, completions: &[Completion], bytes: &[u8]) -> (Vec<u8>, bool) {
    turn_at(core, Duration::from_millis(1), completions, bytes)
}

fn turn_at(
    core: &mut Core,
    now: Duration,
    completions: &[Completion],
    bytes: &[u8],
) -> (Vec<u8>, bool) {
    core.batch().ops.clear();
    core.begin_turn(now, 1_800_000_000, completions);
    for completion in completions {
        core.complete(*completion, bytes);
    }
    core.end_turn();
    core.check_invariants();
    let batch = core.batch();
    let closes = batch.ops.iter().any(|op| matches!(op, Op::Close(_)));
    let sent = batch.ops.iter().filter_map(|op| match op {
        Op::Send { from, to, .. } => Some(&batch.arena[*from as usize..*to as usize]),
        _ => None,
    });
    (sent.collect::<Vec<_>>().concat(), closes)
}

#[test]
fn a_full_socket_at_the_end_of_a_client_loses_no_answer() {
    const REQUESTS: usize = 600;
    // As much as a first send may take: from nothing to almost all of it.
    for taken in [0, 1, 30_000, 60_000] {
        let mut core = worker();
        turn(&mut core, &[Completion::Accepted { slot: 0, peer: None, layer: Layer::Plain }], b"");
        let received = Completion::Received { token: SLOT, buffer: BufferId(0) };
        let requests = request("GET", "/", &[], None).repeat(REQUESTS);
        let (mut answers, _) = turn(&mut core, &[received], &requests);
        answers.truncate(taken as usize);
        let short = Completion::SendShort { token: SLOT, taken };
        turn(&mut core, &[short, Completion::RecvEnded { token: SLOT, why: RecvEnd::Eof }], b"");
        let mut next = [Completion::Writable { token: SLOT }].to_vec();
        loop {
            let (sent, closes) = turn(&mut core, &next, b"");
            next.clear();
            answers.extend(sent);
            if closes {
                break;
            }
        }
        let answered = String::from_utf8_lossy(&answers).matches("HTTP/1.1 200 OK").count();
        assert_eq!(answered, REQUESTS, "{taken} bytes taken at first");
    }
}

/// The log is slow, and a WebSocket that closes does not wait for it for ever. The answer then
/// finds a connection that only waits for its peer to close.
#[test]
fn an_answer_of_the_log_behind_a_closed_websocket_is_for_no_one() {
    let (mut core, asked) = crate::common::core(Gate::open(), 1000);
    let received = Completion::Received { token: SLOT, buffer: BufferId(0) };
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", "pushline.v1"),
    ];
    turn(&mut core, &[Completion::Accepted { slot: 0, peer: None, layer: Layer::Plain }], b"");
    turn(&mut core, &[received], &request("GET", "/ws", &upgrade, None));
    turn(&mut core, &[], b"");
    let publish = br#"{"op":"publish","channel":"c","data":"x","ref":1}"#;
    turn(&mut core, &[received], &frame(true, 1, publish));
    let Ok(ToLog::Worker { body: Ask::Publish { ticket, .. }, .. }) = asked.try_recv() else {
        panic!("the log is asked");
    };
    turn(&mut core, &[received], &frame(true, 8, &1000_u16.to_be_bytes()));
    // Longer than a closing handshake may take; then the close frame is read.
    let later = Duration::from_secs(6);
    let (sent, _) = turn_at(&mut core, later, &[], b"");
    assert_eq!(sent, [0x88, 2, 3, 232]);
    turn_at(&mut core, later, &[], b"");
    assert!(core.batch().ops.contains(&Op::Shutdown(SLOT)), "it waits for its peer to end");
    let refusal = Some(Refusal::Busy);
    let outcome = Published {
        accepted: 0,
        first_seq: 0,
        last_seq: 0,
        subscribers: 0,
        elsewhere: None,
        refusal,
        stream: None,
    };
    core.from_log(FromLog::Answer {
        ticket,
        answer: Answer::Published { outcome, unaccepted: Vec::new() },
    });
    let (sent, _) = turn_at(&mut core, later, &[], b"");
    assert_eq!(sent, b"", "nothing follows a close frame");
}

/// Were it dropped, the request would wait for ever.
#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "JoinRefused(Busy) answers Describe")]
fn an_answer_to_another_kind_of_request_is_noticed() {
    let (mut core, asked) = crate::common::core(Gate::open(), 1000);
    let received = Completion::Received { token: SLOT, buffer: BufferId(0) };
    turn(&mut core, &[Completion::Accepted { slot: 0, peer: None, layer: Layer::Plain }], b"");
    turn(&mut core, &[received], &request("GET", "/channels/c", &[], None));
    let Ok(ToLog::Worker { body: Ask::Describe { ticket, .. }, .. }) = asked.try_recv() else {
        panic!("the log is asked");
    };
    core.from_log(FromLog::Answer { ticket, answer: Answer::JoinRefused(Refusal::Busy) });
}
