//! Prometheus metrics of the connection to NATS. Backend and workers both serve them.

use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::nats::Connection;

/// Adds the current metrics of `connection`. Counters are rendered with the suffix `_total`.
pub fn register(registry: &mut Registry, connection: &Connection) {
    let link = *connection.link.borrow();
    registry.register(
        "ktrdr_nats_connected",
        "Whether there is a connection to NATS",
        ConstGauge::new(u64::from(link.up)),
    );

    let round_trip = connection.round_trips.shortest().unwrap_or_default();
    registry.register(
        "ktrdr_nats_round_trip_seconds",
        "Time that the NATS server takes to answer, the shortest of the last ten; 0 before the first",
        ConstGauge::new(round_trip.as_secs_f64()),
    );

    let traffic = connection.client.statistics();
    let counters = [
        (
            "ktrdr_nats_reconnects",
            "Connections to NATS after the first",
            link.epoch.saturating_sub(1),
        ),
        (
            "ktrdr_nats_received_messages",
            "Messages received from NATS",
            traffic.in_messages.load(Relaxed),
        ),
        (
            "ktrdr_nats_sent_messages",
            "Messages sent to NATS",
            traffic.out_messages.load(Relaxed),
        ),
        (
            "ktrdr_nats_received_bytes",
            "Bytes received from NATS",
            traffic.in_bytes.load(Relaxed),
        ),
        (
            "ktrdr_nats_sent_bytes",
            "Bytes sent to NATS",
            traffic.out_bytes.load(Relaxed),
        ),
    ];
    for (name, help, count) in counters {
        registry.register(name, help, ConstCounter::new(count));
    }
}
