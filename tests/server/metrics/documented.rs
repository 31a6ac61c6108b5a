//! Every documented metric is there and no other, and what asks for metrics asks for those.

use std::collections::BTreeSet;

use super::scrape::Scrape;
use crate::common::TestServer;

/// What the README documents: name, type, labels.
const DOCUMENTED: [(&str, &str, &[&str]); 81] = [
    ("process_cpu_seconds_total", "counter", &[]),
    ("process_max_fds", "gauge", &[]),
    ("process_open_fds", "gauge", &[]),
    ("process_resident_memory_bytes", "gauge", &[]),
    ("process_start_time_seconds", "gauge", &[]),
    ("process_threads", "gauge", &[]),
    ("process_virtual_memory_bytes", "gauge", &[]),
    ("pushline_accept_failures_total", "counter", &["reason"]),
    ("pushline_accepts_total", "counter", &["worker"]),
    ("pushline_build_info", "gauge", &["version"]),
    ("pushline_driver_info", "gauge", &["driver"]),
    ("pushline_busy_seconds_total", "counter", &["worker"]),
    ("pushline_channels", "gauge", &[]),
    ("pushline_client_fallbacks_total", "counter", &["reason"]),
    ("pushline_closes_total", "counter", &["reason"]),
    ("pushline_connection_refusals_total", "counter", &["reason"]),
    ("pushline_connections", "gauge", &["transport", "worker"]),
    ("pushline_connections_max", "gauge", &[]),
    ("pushline_deliveries_total", "counter", &["worker"]),
    ("pushline_delivery_lag_seconds", "histogram", &[]),
    ("pushline_draining", "gauge", &[]),
    ("pushline_events_published_total", "counter", &[]),
    ("pushline_evictions_total", "counter", &["cause"]),
    ("pushline_gaps_total", "counter", &["reason"]),
    ("pushline_head_seq", "gauge", &[]),
    ("pushline_heartbeats_total", "counter", &[]),
    ("pushline_history_bytes", "gauge", &[]),
    ("pushline_history_bytes_max", "gauge", &[]),
    ("pushline_history_events", "gauge", &[]),
    ("pushline_http2_floods_total", "counter", &["kind"]),
    ("pushline_http2_stream_closes_total", "counter", &["reason"]),
    ("pushline_http2_streams_total", "counter", &["worker"]),
    ("pushline_http_errors_total", "counter", &[]),
    ("pushline_http_requests_total", "counter", &[]),
    ("pushline_cluster_answer_duration_seconds", "histogram", &[]),
    ("pushline_cluster_behind_events", "gauge", &[]),
    ("pushline_cluster_behind_seconds", "gauge", &[]),
    ("pushline_cluster_events_received_total", "counter", &[]),
    ("pushline_cluster_openings_total", "counter", &[]),
    ("pushline_cluster_publishes_sent_total", "counter", &[]),
    ("pushline_cluster_publishes_unanswered_total", "counter", &[]),
    ("pushline_cluster_up", "gauge", &[]),
    ("pushline_journal_bytes", "gauge", &[]),
    ("pushline_journal_commit_duration_seconds", "histogram", &[]),
    ("pushline_journal_pages_total", "counter", &[]),
    ("pushline_journal_recovery_seconds", "gauge", &[]),
    ("pushline_journal_segments", "gauge", &[]),
    ("pushline_lane_depth", "gauge", &["worker"]),
    ("pushline_lines_dropped_total", "counter", &[]),
    ("pushline_log_lane_depth", "gauge", &[]),
    ("pushline_log_refusals_total", "counter", &["reason"]),
    ("pushline_log_up", "gauge", &[]),
    ("pushline_presence_members", "gauge", &[]),
    ("pushline_publish_refusals_total", "counter", &[]),
    ("pushline_publish_repeats_total", "counter", &[]),
    ("pushline_publishes_accepted_total", "counter", &[]),
    ("pushline_received_bytes_total", "counter", &[]),
    ("pushline_replays_total", "counter", &[]),
    ("pushline_replica_bytes", "gauge", &["worker"]),
    ("pushline_replicas", "gauge", &["worker"]),
    ("pushline_ring_cq_overflows_total", "counter", &["worker"]),
    ("pushline_ring_enters_total", "counter", &["worker"]),
    ("pushline_ring_no_buffers_total", "counter", &["worker"]),
    ("pushline_ring_sq_full_total", "counter", &["worker"]),
    ("pushline_ring_stale_total", "counter", &["worker"]),
    ("pushline_sends_total", "counter", &["kind"]),
    ("pushline_sent_bytes_total", "counter", &[]),
    ("pushline_short_sends_total", "counter", &[]),
    ("pushline_slow_consumers_total", "counter", &["action"]),
    ("pushline_stream_bytes", "gauge", &[]),
    ("pushline_stream_cuts_total", "counter", &[]),
    ("pushline_stream_events", "gauge", &[]),
    ("pushline_streams_ended_total", "counter", &["reason"]),
    ("pushline_streams_open", "gauge", &[]),
    ("pushline_subscriptions", "gauge", &["state", "worker"]),
    ("pushline_tls_connections", "gauge", &["version"]),
    ("pushline_tls_handshakes_total", "counter", &["result"]),
    ("pushline_tls_waiting", "gauge", &[]),
    ("pushline_tombstones", "gauge", &[]),
    ("pushline_turn_duration_seconds", "histogram", &[]),
    ("pushline_turns_total", "counter", &["worker"]),
];

#[test]
fn every_documented_metric_is_there_and_no_other() {
    let server = TestServer::start();
    let scrape = Scrape::of(server.admin);
    let found: BTreeSet<(&str, &str)> =
        scrape.types.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
    let documented: BTreeSet<(&str, &str)> =
        DOCUMENTED.iter().map(|(name, kind, _)| (*name, *kind)).collect();
    assert_eq!(found, documented);
    for (name, kind, labels) in DOCUMENTED {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        assert_eq!(
            kind == "histogram",
            name.ends_with("_duration_seconds") || name.ends_with("_lag_seconds"),
            "{name}"
        );
        let units = ["_ms", "_us", "_ns", "_minutes", "_kb", "_kib", "_mib", "_percent"];
        assert!(units.iter().all(|unit| !name.contains(unit)), "{name}: not a base unit");
        let of = scrape.samples.keys().filter(|key| {
            key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        });
        let mut count = 0;
        for key in of {
            count += 1;
            let written = key.split_once('{').map_or("", |(_, labels)| labels);
            let names: Vec<&str> =
                written.split(',').filter_map(|label| label.split_once('=')).map(|l| l.0).collect();
            assert_eq!(names, labels, "{key}");
        }
        assert_eq!(count > 0, kind != "histogram", "{name} has no samples");
    }
}

/// `scripts/check-prometheus` has their expressions read by promtool.
#[test]
fn alerts_and_the_grafana_dashboard_ask_for_metrics_that_are_there() {
    let files = [
        include_str!("../../../tuning/prometheus/alerts.yml"),
        include_str!("../../../tuning/prometheus/grafana.json"),
    ];
    for file in files {
        let words = file.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let named: BTreeSet<&str> = words.filter(|word| word.starts_with("pushline_")).collect();
        assert!(named.len() > 5, "{named:?}");
        for name in named {
            let name = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(DOCUMENTED.iter().any(|(known, ..)| *known == name), "{name}");
        }
    }
}
