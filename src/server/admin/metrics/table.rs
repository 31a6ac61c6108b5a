//! Every metric, with its name, its help and how it is read.

use std::sync::atomic::Ordering;

use super::Reading::{Durations, Each, EachBy, Server, ServerBy, ServerDurations, Sum, SumBy};
use super::{Metric, labelled, number};
use crate::metrics::{Counter, FALLBACKS, Flood, TRANSPORTS};
use crate::proto::stream::End;
use crate::reason::{AcceptFailure, CloseReason, Refused};

/// In the order in which they are shown. README's table and `tests/server/metrics/documented.rs`
/// list the same ones. Those about the process have the names every client library uses.
pub(super) const METRICS: &[Metric] = &[
    // --- the server ---
    (
        "pushline_build_info",
        "1, with the version as a label.",
        ServerBy("version", |_| vec![(env!("CARGO_PKG_VERSION"), 1)]),
    ),
    (
        "pushline_driver_info",
        "1, with the kernel interface that workers use as a label.",
        ServerBy("driver", |of| vec![(of.state.shared.driver.name(), 1)]),
    ),
    (
        "pushline_draining",
        "1 while the server is shutting down.",
        Server(|of| Some(f64::from(u8::from(of.state.draining.load(Ordering::Relaxed))))),
    ),
    (
        "pushline_connections_max",
        "Connections there is room for.",
        Server(|of| Some(of.state.shared.connection_count.max() as f64)),
    ),
    (
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        Server(|of| of.process.resident_bytes.map(|n| n as f64)),
    ),
    (
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        Server(|of| of.process.virtual_bytes.map(|n| n as f64)),
    ),
    (
        "process_open_fds",
        "Open file descriptors; connections have none.",
        Server(|of| of.process.open_fds.map(|n| n as f64)),
    ),
    (
        "process_max_fds",
        "Most file descriptors the process may open.",
        Server(|of| of.process.max_fds.map(|n| n as f64)),
    ),
    ("process_threads", "Threads.", Server(|of| of.process.threads.map(|n| n as f64))),
    (
        "process_cpu_seconds_total",
        "User and system CPU time spent in seconds.",
        Server(|of| of.process.cpu_s),
    ),
    (
        "process_start_time_seconds",
        "When the process started, in seconds since 1970.",
        Server(|of| Some(of.state.started_unix_s)),
    ),
    // --- connections ---
    (
        "pushline_connections",
        "Connections open now.",
        EachBy("transport", |of| labelled(TRANSPORTS, &of.open)),
    ),
    ("pushline_accepts_total", "Connections accepted.", Each(|of| number(&of.accepts))),
    (
        "pushline_accept_failures_total",
        "Times accepting had to pause, by what was lacking.",
        SumBy("reason", |of| {
            labelled(AcceptFailure::ALL.map(AcceptFailure::label), &of.accept_failures)
        }),
    ),
    (
        "pushline_connection_refusals_total",
        "Connections accepted only to be refused.",
        SumBy("reason", |of| labelled(Refused::ALL.map(Refused::label), &of.refused)),
    ),
    (
        "pushline_closes_total",
        "Connections that ended, by their first reason.",
        SumBy("reason", |of| labelled(CloseReason::LABELS, &of.closes)),
    ),
    (
        "pushline_tls_connections",
        "Connections with TLS now, by version; those with 1.2 take several times the memory.",
        SumBy("version", |of| labelled(["1.3", "1.2"], [&of.tls13, &of.tls12])),
    ),
    (
        "pushline_tls_handshakes_total",
        "TLS handshakes: with a signature, by a ticket, and failed ones.",
        SumBy("result", |of| {
            let counters = [&of.handshakes_full, &of.handshakes_resumed, &of.handshakes_failed];
            labelled(["full", "resumed", "failed"], counters)
        }),
    ),
    (
        "pushline_tls_waiting",
        "Connections whose TLS handshakes wait until others are made.",
        Sum(|of| &of.tls_waiting),
    ),
    (
        "pushline_http2_streams_total",
        "HTTP/2 streams that were opened.",
        Each(|of| number(&of.http2_streams)),
    ),
    (
        "pushline_http2_stream_closes_total",
        "HTTP/2 streams that ended, by their first reason.",
        SumBy("reason", |of| labelled(CloseReason::LABELS, &of.http2_stream_closes)),
    ),
    (
        "pushline_http2_floods_total",
        "HTTP/2 connections and streams ended because their client did too much of something.",
        SumBy("kind", |of| labelled(Flood::ALL.map(Flood::label), &of.http2_floods)),
    ),
    // --- requests ---
    ("pushline_http_requests_total", "HTTP requests, upgrades included.", Sum(|of| &of.requests)),
    (
        "pushline_http_errors_total",
        "HTTP requests answered with an error.",
        Server(|of| {
            let errors = of.workers().flat_map(|worker| &worker.request_errors);
            Some(errors.map(Counter::value).sum::<u64>() as f64)
        }),
    ),
    (
        "pushline_publishes_accepted_total",
        "Events the log took from publishers; repeats it recognised included.",
        Sum(|of| &of.published),
    ),
    (
        "pushline_publish_refusals_total",
        "Times the log refused what a publisher sent.",
        Sum(|of| &of.publish_refusals),
    ),
    ("pushline_received_bytes_total", "Bytes received from clients.", Sum(|of| &of.bytes_in)),
    ("pushline_sent_bytes_total", "Bytes that sockets accepted.", Sum(|of| &of.bytes_out)),
    // --- delivery ---
    (
        "pushline_deliveries_total",
        "Events that sockets accepted, counted once per subscriber.",
        Each(|of| number(&of.deliveries)),
    ),
    (
        "pushline_sends_total",
        "Sends to subscribers that are live, and to all other connections. Deliveries per send is \
         how well events are batched.",
        SumBy("kind", |of| labelled(["live", "explicit"], [&of.sends_live, &of.sends_explicit])),
    ),
    ("pushline_short_sends_total", "Sends a socket did not take whole.", Sum(|of| &of.sends_short)),
    ("pushline_heartbeats_total", "Heartbeats sent to idle streams.", Sum(|of| &of.heartbeats)),
    (
        "pushline_delivery_lag_seconds",
        "From the ordering of an event to its hand-out to the last live subscriber of a worker; \
         once per worker and batch of events.",
        Durations(|of| &of.delivery_lag),
    ),
    // --- subscribers ---
    (
        "pushline_subscriptions",
        "Subscriptions now: live ones have all there is, explicit ones a cursor of their own.",
        EachBy("state", |of| {
            let (live, all) = (of.live.value(), of.subscriptions.value());
            // The two were not read at the same moment.
            vec![("live", live), ("explicit", all.saturating_sub(live))]
        }),
    ),
    ("pushline_replays_total", "Joins with a cursor.", Sum(|of| &of.replays)),
    (
        "pushline_gaps_total",
        "Gaps that subscribers were told of.",
        SumBy("reason", |of| {
            let gaps = [&of.gaps_evicted, &of.gaps_epoch, &of.gaps_overrun];
            labelled(["evicted", "epoch", "overrun"], gaps)
        }),
    ),
    (
        "pushline_client_fallbacks_total",
        "Browser clients that changed between SSE and WebSocket, by reason.",
        SumBy("reason", |of| labelled(FALLBACKS, &of.client_fallbacks)),
    ),
    (
        "pushline_slow_consumers_total",
        "Times a subscriber was slower than its channel, by what the policy did.",
        SumBy("action", |of| {
            labelled(["skip", "disconnect"], [&of.gaps_overrun, &of.slow_disconnects])
        }),
    ),
    // --- presence and token streams ---
    (
        "pushline_presence_members",
        "Members of all channels with presence; a subject on two channels counts twice.",
        Server(|of| Some(of.log?.stats.members as f64)),
    ),
    (
        "pushline_streams_open",
        "Token streams that are open.",
        Server(|of| Some(of.log?.stats.streams as f64)),
    ),
    (
        "pushline_stream_events",
        "Events of token streams kept beside history.",
        Server(|of| Some(of.log?.stats.stream_events as f64)),
    ),
    (
        "pushline_stream_bytes",
        "Bytes of token streams kept beside history.",
        Server(|of| Some(of.log?.stats.stream_bytes as f64)),
    ),
    (
        "pushline_streams_ended_total",
        "Token streams that have ended, by reason.",
        ServerBy("reason", |of| {
            let ended = of.log.map(|log| log.stats.counters.streams_ended);
            ended.map_or(Vec::new(), |ended| End::LABELS.into_iter().zip(ended).collect())
        }),
    ),
    (
        "pushline_stream_cuts_total",
        "Events of token streams that were lost for want of room before their stream was.",
        Server(|of| Some(of.log?.stats.counters.cut_of_streams as f64)),
    ),
    // --- workers ---
    (
        "pushline_replicas",
        "Channels that a worker has subscribers on.",
        Each(|of| number(&of.channels)),
    ),
    (
        "pushline_replica_bytes",
        "Payload bytes a worker holds for slow readers and for sends under way.",
        Each(|of| number(&of.replica_bytes)),
    ),
    (
        "pushline_lane_depth",
        "Events and answers of the log that waited when the worker's last turn began.",
        Each(|of| number(&of.lane_depth)),
    ),
    (
        "pushline_lines_dropped_total",
        "Log lines dropped because the operator's log was full.",
        Sum(|of| &of.lines_dropped),
    ),
    ("pushline_turns_total", "Turns taken.", Each(|of| number(&of.turns))),
    (
        "pushline_busy_seconds_total",
        "Time a worker spent deciding, sleeps and system calls left out.",
        Each(|of| of.turn_time.sum_s()),
    ),
    (
        "pushline_turn_duration_seconds",
        "How long turns took, sleeps and system calls left out.",
        Durations(|of| &of.turn_time),
    ),
    // --- drivers ---
    (
        "pushline_ring_enters_total",
        "Times a worker entered its driver (io_uring_enter, epoll_wait).",
        Each(|of| number(&of.ring_enters)),
    ),
    (
        "pushline_ring_sq_full_total",
        "Batches that did not fit the submission queue at once.",
        Each(|of| number(&of.ring_sq_full)),
    ),
    (
        "pushline_ring_cq_overflows_total",
        "Times the kernel parked completions outside the completion queue.",
        Each(|of| number(&of.ring_cq_overflows)),
    ),
    (
        "pushline_ring_no_buffers_total",
        "Receives that found no buffer free.",
        Each(|of| number(&of.ring_no_buffers)),
    ),
    (
        "pushline_ring_stale_total",
        "Completions of connections that had ended.",
        Each(|of| number(&of.ring_stale)),
    ),
    // --- the log ---
    (
        "pushline_log_up",
        "1 while the log takes events, 0 while it is stalled or its journal can't be written.",
        Server(|of| {
            let is_up = of.log.as_ref().is_some_and(|log| !log.stats.store_is_down);
            Some(f64::from(u8::from(is_up)))
        }),
    ),
    (
        "pushline_events_published_total",
        "Events ordered.",
        Server(|of| of.log_number(|log| log.counters.published)),
    ),
    (
        "pushline_publish_repeats_total",
        "Publishes answered from history because their idempotency key was known.",
        Server(|of| of.log_number(|log| log.counters.repeated)),
    ),
    (
        "pushline_log_refusals_total",
        "Publishes and joins the log refused.",
        ServerBy("reason", |of| {
            of.log_numbers(|log| {
                let refused = &log.counters.refused;
                vec![
                    ("busy", refused.busy),
                    ("memory", refused.memory),
                    ("channels", refused.channels),
                    ("rate", refused.rate),
                    ("store", refused.store),
                    ("stream", refused.stream),
                    ("behind", refused.behind),
                ]
            })
        }),
    ),
    (
        "pushline_evictions_total",
        "Events that left history, by cause.",
        ServerBy("cause", |of| {
            of.log_numbers(|log| {
                vec![
                    ("count", log.counters.evicted_by_count),
                    ("age", log.counters.evicted_by_age),
                    ("bytes", log.counters.evicted_by_bytes),
                ]
            })
        }),
    ),
    (
        "pushline_head_seq",
        "Newest event of the log.",
        Server(|of| of.log_number(|log| log.head_seq)),
    ),
    (
        "pushline_history_events",
        "Events history holds.",
        Server(|of| of.log_number(|log| log.events)),
    ),
    ("pushline_history_bytes", "Bytes history holds.", Server(|of| of.log_number(|log| log.bytes))),
    (
        "pushline_history_bytes_max",
        "Bytes history may hold.",
        Server(|of| of.log_number(|log| log.bytes_max)),
    ),
    ("pushline_channels", "Channels that exist.", Server(|of| of.log_number(|log| log.channels))),
    (
        "pushline_tombstones",
        "Freed channels that are remembered.",
        Server(|of| of.log_number(|log| log.tombstones)),
    ),
    (
        "pushline_log_lane_depth",
        "Requests waiting for the log.",
        Server(|of| of.log.as_ref().map(|report| report.waiting as f64)),
    ),
    // --- the journal ---
    (
        "pushline_journal_bytes",
        "Bytes of the journal's segments.",
        Server(|of| Some(of.state.shared.journal.bytes.value() as f64)),
    ),
    (
        "pushline_journal_segments",
        "Segments of the journal.",
        Server(|of| Some(of.state.shared.journal.segments.value() as f64)),
    ),
    (
        "pushline_journal_pages_total",
        "Pages of history read from the journal because memory no longer held them.",
        Server(|of| Some(of.state.shared.journal.pages.value() as f64)),
    ),
    (
        "pushline_journal_recovery_seconds",
        "How long reading the journal took at start.",
        Server(|of| Some(of.state.shared.journal.recovery_us.value() as f64 / 1e6)),
    ),
    (
        "pushline_journal_commit_duration_seconds",
        "How long group commits to the disk took.",
        ServerDurations(|of| &of.journal.sync_time),
    ),
    // --- the cluster ---
    (
        "pushline_cluster_up",
        "1 while this node follows the stream that is its log.",
        Server(|of| Some(number(&of.state.shared.cluster.up))),
    ),
    (
        "pushline_cluster_behind_events",
        "Messages of the stream that have not come to this node.",
        Server(|of| Some(number(&of.state.shared.cluster.behind_events))),
    ),
    (
        "pushline_cluster_behind_seconds",
        "For how long this node has lacked messages of the stream.",
        Server(|of| Some(number(&of.state.shared.cluster.behind_ms) / 1e3)),
    ),
    (
        "pushline_cluster_events_received_total",
        "Events that came by the stream.",
        Server(|of| Some(number(&of.state.shared.cluster.received))),
    ),
    (
        "pushline_cluster_publishes_sent_total",
        "Publications sent to the broker.",
        Server(|of| Some(number(&of.state.shared.cluster.sent))),
    ),
    (
        "pushline_cluster_publishes_unanswered_total",
        "Publications that the broker refused or did not answer in time.",
        Server(|of| Some(number(&of.state.shared.cluster.unanswered))),
    ),
    (
        "pushline_cluster_openings_total",
        "Times this node opened the stream, or tried to.",
        Server(|of| Some(number(&of.state.shared.cluster.openings))),
    ),
    (
        "pushline_cluster_answer_duration_seconds",
        "From sending a publication to the broker's answer.",
        ServerDurations(|shared| &shared.cluster.answer_time),
    ),
];
