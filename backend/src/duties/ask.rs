//! Asks the NATS server something every second, to know whether it answers and how soon.

use std::time::Duration;

use ktrdr_bus::telemetry::Repeated;
use tokio::time::{Instant, sleep, timeout};

use crate::state::AppState;

/// How long an answer may take before the server counts as silent. It is longer than a round trip
/// over a very slow network.
const PATIENCE: Duration = Duration::from_secs(3);

/// Pause after an answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Works until the task is dropped.
pub async fn run(state: &AppState) {
    let jetstream = &state.connection.jetstream;
    let stream = state.names.stream();
    let short_lease = Repeated::new();

    loop {
        let asked = Instant::now();
        let question = timeout(PATIENCE, jetstream.get_stream(&stream));
        // Boxed: the future of the whole duty would have room for it.
        let Some(answer) = state.connection.while_up(Box::pin(question)).await else {
            continue;
        };
        let took = asked.elapsed();

        // A refusal is an answer, too.
        if let Ok(answer) = answer {
            if let Ok(stream) = answer {
                let info = stream.cached_info();
                state.projection.note_stream_end_of(
                    info.created.unix_timestamp_nanos(),
                    info.state.last_sequence,
                );
            }
            state.connection.round_trips.note(took);
            if state.nats_answers.note_answer() {
                tracing::info!("NATS answers again");
            }
            check_lease(state, &short_lease);
            sleep(PAUSE).await;
        // Much longer: this process itself stood still.
        } else if took < PATIENCE * 2 && state.nats_answers.note_silence() {
            tracing::warn!(
                waited = ?took,
                "NATS does not answer although there is a connection; refusing what needs it until it does"
            );
        }
    }
}

/// Warns when workers with the same distance to the server would lose operations that they run.
fn check_lease(state: &AppState, lines: &Repeated) {
    let lease = state.settings.get().lease;
    if let Some(needed) = state.connection.round_trips.needed_lease(lease)
        && let Some(count) = lines.note()
    {
        tracing::warn!(
            round_trip = ?state.connection.round_trips.shortest(), ?lease, ?needed, count,
            "the lease is too short for this network: healthy workers lose their operations. Raise it with `ktrdr-backend configure --lease`"
        );
    }
}
