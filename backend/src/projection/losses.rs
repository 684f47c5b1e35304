//! How often the stream that was read was gone afterwards.

use ktrdr_http::metrics::register;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counted since the backend started.
#[derive(Debug, Default)]
pub struct StreamLosses {
    /// The stream was another one than before.
    pub streams: Counter,
    /// The stream was the same and ended earlier than before.
    pub tails: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LossLabels {
    lost: &'static str,
}

impl StreamLosses {
    /// Adds the counters to the page.
    pub fn register(&self, page: &mut Registry) {
        let family = Family::<LossLabels, Counter>::default();
        for (lost, counter) in [("stream", &self.streams), ("tail", &self.tails)] {
            family
                .get_or_create(&LossLabels { lost })
                .inc_by(counter.get());
        }
        register(
            page,
            "ktrdr_stream_losses_total",
            "Times that the operations stream was another one, or ended earlier, than before.",
            family,
        );
    }
}
