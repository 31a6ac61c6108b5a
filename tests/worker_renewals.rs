//! A connection that shows new tokens for ever costs a worker no more than one that shows none: the
//! ends of earlier tokens, hours away, are not kept for each of them.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::ws::{TEXT, frame, upgrade};
use crossbeam_channel::bounded;
use jsonwebtoken::{EncodingKey, Header};
use pushline::auth::{AuthSettings, Gate};
use pushline::config::Settings;
use pushline::log::SharedHasher;
use pushline::metrics::WorkerMetrics;
use pushline::proto::cursor::Epoch;
use pushline::ring::{BufferId, Completion, Token};
use pushline::worker::census::{ByAddress, Census};
use pushline::worker::core::{Core, Setup};
use serde_json::json;

const NOW: u64 = 1_800_000_000;

fn guarded_worker() -> Core {
    let auth: AuthSettings =
        toml::from_str("hmac_secrets = [{ env = 'PUSHLINE_SECRET' }]").expect("a section");
    let setup = Setup {
        worker: 0,
        epoch: Epoch::from_random(1),
        hasher: SharedHasher::from_seed(1),
        settings: Arc::new(Settings::default()),
        slots: 1000,
        census: Arc::new(Census::new(1000, ByAddress::Ignored)),
        gate: Arc::new(Gate::from_settings(&auth, &common::auth_env).expect("good settings")),
        seed: 1,
    };
    Core::new(setup, bounded(8).0, Arc::new(WorkerMetrics::default()))
}

fn token(hours: u64) -> String {
    let claims = json!({"exp": NOW + 3600 * hours, "pushline": {"subscribe": ["*"]}});
    let key = EncodingKey::from_secret(common::SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("a token")
}

fn turn(core: &mut Core, completion: Completion, bytes: &[u8]) {
    core.batch().ops.clear();
    core.begin_turn(Duration::from_millis(1), NOW, &[completion]);
    core.complete(completion, bytes);
    core.end_turn();
}

#[test]
fn renewals_do_not_pile_up() {
    let mut core = guarded_worker();
    let received =
        Completion::Received { token: Token { slot: 0, generation: 0 }, buffer: BufferId(0) };
    turn(&mut core, Completion::Accepted { slot: 0, peer: None }, b"");
    let offer = format!("pushline.v1, bearer.{}", token(1));
    turn(&mut core, received, &upgrade("/ws", &[("Sec-WebSocket-Protocol", &offer)]));
    let renewals = [token(2), token(3)].map(|token| {
        frame(true, TEXT, json!({"op": "auth", "token": token}).to_string().as_bytes())
    });
    for renewal in renewals.iter().cycle().take(5000) {
        turn(&mut core, received, renewal);
    }
    core.check_invariants();
}
