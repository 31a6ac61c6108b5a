//! Pushline: a push server for Linux. Start reading here.
//!
//! **There is one ordered log of events, and every subscriber is a cursor into it.** Live delivery,
//! replay after a reconnect and slow readers are all "read the log from a cursor". What is added
//! should fit that sentence, or the sentence changes.
//!
//! # The trip of an event
//!
//! 1. A worker's driver reaps the bytes of `POST /channels/news` (`ring::uring::reap`, or
//!    `ring::epoll`), and `Core::received` in `worker::input` hands them to the connection's session.
//! 2. [`proto::http::head`] parses the head, `worker::session::route` names the request, and
//!    `worker::session::publish` asks the four questions: right, size, rate, room. The session says
//!    what it wants as an effect (`worker::effect`); the turn carries it out.
//! 3. `worker::link` puts the request into the log's lane, and the first worker that gets the log's
//!    lock runs what is in it ([`mesh::hand`]).
//! 4. The log gives the event its number and its place in history (`log::publish`,
//!    [`log::history`]), then sends it to each worker that has a subscriber (`log::interest`).
//! 5. Each of those takes its lane (`Core::from_log` in `worker::turn`) and puts the event into its
//!    replica of the channel (`worker::hub::replica`).
//! 6. `worker::hub::live` encodes it once per dialect ([`proto::dialect`]) for live subscribers,
//!    `worker::hub::explicit` writes what the others are due, and `worker::net::output` queues one
//!    send for each socket. One submit sends all of it.
//!
//! # The trip of a reconnect
//!
//! `GET /sse` with `Last-Event-ID` is read by `worker::session::subscribe`; [`proto::cursor`] parses
//! the header. If the worker's replica covers it, the subscriber joins at once
//! (`worker::hub::members`). Otherwise the log joins it at an exact place, and reports what is lost.
//! From there it reads the log page by page (`worker::hub::reading`, `log::read`), several channels
//! merged in log order, and once nothing is missing it is live.
//!
//! # Threads
//!
//! | role | how many | owns | never does |
//! |---|---|---|---|
//! | worker ([`worker`]) | one per core, pinned | its ring, its `SO_REUSEPORT` listener, its connections, its channel replicas | block, wait for a lock, touch another worker's state |
//! | clerk ([`server`]) | one | nothing: it ages the log's history and asks the log for the operator | touch a socket |
//! | store ([`journal`], `cluster`, `server::store_threads`) | one with `data_dir` or a broker | the journal's files, or the connection to the broker | touch a client's socket |
//! | reader ([`journal::reader`]) | one with `data_dir` | indexes of the journal's files | write, or make the store wait |
//! | admin ([`server`]) | a few, blocking | the operator's listener | slow a worker: it reads counters and asks by commands |
//! | backend ([`server`]) | 8 with `auth.url` | connections to the operator's backend | touch a client's socket |
//! | lines ([`server`]) | one | the operator's log lines, about connections and requests, and about counters that grow | make a worker wait: when its lane is full the line is dropped and counted |
//! | take-over ([`server`]) | one | the name at which a successor asks for the listeners | keep the server from running |
//! | signals ([`cli`]) | one | the signals of the process | anything but pass them on to main |
//! | main ([`cli`], [`server`]) | one | arguments, configuration, start (`server::start`), reload, balance, drain, join | anything hot |
//!
//! The log ([`log`]: it assigns `seq`, keeps history, knows which worker wants which channel) has
//! no thread: a worker that has a request for it runs it, unless another one does ([`mesh::hand`]).
//!
//! Lanes between threads ([`mesh`]) are bounded and FIFO; a doorbell wakes a worker that sleeps.
//! Besides lanes, and the log under its lock, workers share:
//!
//! | what | where |
//! |---|---|
//! | two counts: connections, and subscribers of a channel | [`worker::connection_count`], [`log::channel_name`] |
//! | whether a worker sleeps, for those who would wake it | [`mesh::SleepFlag`] |
//! | the configuration of handshakes, which a reload replaces | `ring::tls::HandshakeConfig` |
//! | the connection to NATS, for a lone publication | `cluster::nats::sending` |
//!
//! Of the last two a worker only tries the lock. Everything else is owned, or never changes.
//!
//! # Where each idea lives
//!
//! | idea | module |
//! |---|---|
//! | ids and cursors, `<epoch>-<seq>` | [`proto::cursor`] |
//! | the log is run by a worker that has a request for it; no worker waits | [`mesh::hand`], [`mesh::combine`] |
//! | one order, history bounded by count, age and bytes | [`log::sequencer`], [`log::history`] |
//! | the order has a home: ordered, committed and seen are three steps | [`log::store`], `log::commit`, `log::pending` |
//! | a state keeps the newest of each key, wherever it is, and beyond the place where it was | `log::history::states`, `log::carry` |
//! | history that memory has no room for is read from the store, and answered later | `log::older`, `log::history::runs`, [`journal::reader`] |
//! | many nodes follow one stream, which gives the order; any of them resumes any client | `cluster`, `cluster::broker`, `log::sent`, `log::ahead`, `server::node` |
//! | what nodes say to each other beside the stream | `cluster::peers` |
//! | an operator at one node asks the others | `server::admin::nodes` |
//! | a lone publication is sent by the thread that has it | `cluster::nats::sending` |
//! | a journal on disk: group commits, torn ends, an epoch that restarts keep | [`journal`], `server::store` |
//! | a start reads what memory has room for, and lists the rest | `journal::runs`, [`journal::feed`], [`log::restore`] |
//! | no loss is silent | [`log::tombstone`], `pushline.gap` in [`proto::envelope`] |
//! | a socket, a session and a subscriber are three things; only the turn knows all three | [`worker`], `worker::turn` |
//! | a session changes nothing but itself: it asks, and returns what it wants | `World` in `worker::session::world`, `worker::effect`, `worker::session::step` |
//! | a session sees itself and what all share, and no other session | `Cx` in `worker::session::world`, `worker::session::shared` |
//! | what a session is, apart from what is done with it | `worker::session::state` |
//! | one way out for a connection | `Ending` in `worker::effect`, `worker::ending` |
//! | one place where sends are queued and settled | `worker::net::output` |
//! | what only some events have, a pointer to the others | [`proto::attributes`] |
//! | who is on a channel: a set of members, and events that announce changes | `log::presence` |
//! | how each protocol writes events | [`proto::dialect`] |
//! | an exact join, at the log or at the worker | `worker::hub::members`, `worker::hub::replica` |
//! | a token stream: a stretch of its channel's events, kept whole beside history | [`log::stream`], [`proto::stream`] |
//! | streams over many nodes: every node comes to the same verdict about each part, in the log's order | `log::stream::nodes` |
//! | the tokens of a stream that has ended are merged, and cursors among them stay valid | `log::merge`, [`proto::stream::merged`] |
//! | streams over a WebSocket go to the log in the connection's order | `worker::session::ws_streams` |
//! | an event for others is not sent to its sender | [`proto::sender`], `worker::hub::live` |
//! | rights that the operator's backend decides: only the requests concerned wait for it | `auth::backend`, `worker::session::backend`, `server::backend` |
//! | tokens that come close behind each other are gathered: a worker is woken once for several | `worker::gathering` |
//! | a producer's body is a stream; a plain reader is a subscriber whose dialect has an end | `worker::session::produce`, `worker::session::view` |
//! | live subscribers: fan-out touches no memory of theirs, one send per slice | `worker::hub::live` |
//! | explicit subscribers: a cursor each, gathered in log order | `worker::hub::explicit` |
//! | replay is reading: a cursor behind its replica reads the log, a page at a time | `worker::hub::reading`, `log::read` |
//! | an idle connection is one cache line | `worker::net::socket`, `worker::session::state`, `worker::hub::subscriber` |
//! | a turn: settle, decide, lanes, fan-out, sends, heartbeats, one submit | `worker::turn`, `worker::sending` |
//! | what a turn may spend, estimated by the price of each step | `worker::budget` |
//! | one client cannot crowd out others at the log | `worker::waiting`, `Share` in [`log::message`] |
//! | unfinished input has one bound | `worker::session::unfinished` |
//! | no timer per connection | `worker::clock` |
//! | fire-and-forget sends, direct descriptors, provided buffers | [`ring`] (contract), [`ring::uring`] (the only `unsafe`) |
//! | TLS is a driver over a driver: rustls shakes hands, records are ours | [`ring::tls`], `server::tls` |
//! | a worker hears of a TLS connection when its handshake is near | `ring::tls::newcomers` |
//! | the same contract where io_uring is refused | `ring::epoll`, chosen in `server::driver` |
//! | the same worker on an in-memory network with faults | `ring::sim` (feature `sim`), `tests/simulation` |
//! | HTTP/1.1, HTTP/2, RFC 6455 and SSE as sans-IO codecs | [`proto`] |
//! | HTTP/2: one connection, many streams, each a connection of HTTP/1.1 to its session | [`proto::h2`], `worker::session::http2`, `worker::h2_streams` |
//! | a stream is a socket that another carries; a closed window is a full socket | `worker::net::carrying`, `worker::table` |
//! | what streams of HTTP/2 may be sent, and which is next: books that know no socket | `worker::net::h2_streams` |
//! | what an HTTP/2 client may do only so often | `worker::session::http2::floods`, [`limits::http2_per_second`] |
//! | every refusal is one value, written in one place for each way out | [`proto::reject`] |
//! | who may do what | [`auth`], `worker::session::access`, `worker::session::grant`; when that changes: `worker::session::vetting` |
//! | bad tokens cost others nothing: checks have a budget, and suspect addresses a line of their own | `worker::session::checks` |
//! | a subject's tokens are revoked | `auth::revoked` |
//! | which client a proxied connection belongs to | `worker::session::client`, [`proto::proxy`], `proto::forwarded` |
//! | every key of the configuration, defined once | `config::define` |
//! | what is missing at start is reported with its cure | [`ring::try_io_uring`], [`server::ServerError`], [`tools::doctor`] |
//! | a reload changes all it can and names the rest | `server::reload` |
//! | a drain leaves the port, and ends streams one after the other | `worker::drain` |
//! | a restart hands the listening sockets themselves to the next process | `server::takeover`, `server::listeners` |
//! | a browser's stream is refused so that it comes back | `refuse_for_now` in `worker::session::answer` |
//! | browsers get their client from the server itself | `web` |
//! | counters are plain memory of one core; a scrape only reads | [`metrics`], `server::admin::metrics` |
//! | slow readers of all channels share one bound | `worker::hub::bounds` |
//! | workers stay even under `--steer cpu` | `server::balance` |
//! | log lines, by the ids the operator's API knows | `worker::session::log_line`, `server::log_lines` |
//! | clients that resume on their own: `sub`, `pub` | `tools::client` |
//! | one reader of answers, for clients, the load generator, tests and the server's questions | [`tools::wire`] |
//! | one load generator for us and for rivals | `tools::bench`, `benches/rivals` |
//! | caps with their reasons, where more than one module needs them | [`limits`] |
//! | how often something may happen | `bucket` |
//! | facts of one bit | `bits` |
//! | what the host says about itself | [`host`] |
//! | why a connection ended or was refused | `reason` |
//!
//! # Where a change begins
//!
//! | to add | begin at |
//! |---|---|
//! | a dialect: how events look on a wire | a variant of [`proto::dialect::Dialect`]; the compiler names the matches |
//! | a refusal | its [`proto::reject::Reject`], beside the error it is for |
//! | a reason to end a connection | a variant of `reason::CloseReason`, and an `Ending` that has it |
//! | a request to the log | a variant of [`log::message::Ask`], and its `Effect` |
//! | a route | `worker::session::route`, and `src/web/openapi.json` |
//! | a setting | its group in `config::define`, and its field in [`config::Settings`] |
//! | a metric | `server::admin::metrics::table`, and its counter in [`metrics`] |
//! | a home for the order | an implementation of [`log::store::Store`], chosen in `server::store` |
//!
//! # Layers
//!
//! `proto <- log <- {reason, metrics} <- worker/{net, session, hub} <- worker/turn <- server <- cli`.
//! `bits`, `bucket`, `host`, `limits` and `web` name none of them. Neither does `ring`, which is named by what
//! runs on it (`worker`, `server`) and by what examines it (`cli`, and the doctor and the load
//! generator in `tools`). The worker's three parts do not name each other. `tests/architecture.rs` has
//! the whole table, and holds it and the `unsafe` rule.
//!
//! # Invariants worth naming
//!
//! - At most one send per connection between two reaps. A second one behind a short one would tear
//!   the stream. That is why the phases of a turn are in this order.
//! - The log only sends to workers under its lock, and nothing under it waits for a lane.
//! - A join is exact: the lane is FIFO, so when a worker handles `Joined{head_seq}` it has seen
//!   exactly the events up to `head_seq` of the channels it had.
//! - Several channels on one connection are delivered in log order, so one id is a cursor for all.
//! - A half-sent event pins its `Arc<Event>` and an offset; encoders are pure, so sending continues
//!   from there. There is no queue per connection.
//! - The log's answers always fit a worker's lane: events leave room for them, and a worker never
//!   waits for more answers than that room holds.

// `println!` panics when the pipe is closed.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod auth;
pub(crate) mod bits;
pub(crate) mod bucket;
pub mod cli;
pub(crate) mod cluster;
pub mod config;
pub mod host;
pub mod journal;
pub mod limits;
pub mod log;
pub mod mesh;
pub mod metrics;
pub mod proto;
pub(crate) mod reason;
pub mod ring;
pub mod server;
pub mod tools;
pub(crate) mod web;
pub mod worker;
