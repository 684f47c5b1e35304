//! Signals: the first asks the process to stop in order, the second ends it at once.

use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT; a second signal exits with status 130.
///
/// # Errors
/// When the process may not install signal handlers.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let stop = token.clone();
    // Lives as long as the process: nobody waits for it, and it holds nothing.
    tokio::spawn(async move {
        for signals in 0.. {
            // Both arms are cancel safe: a signal that arrives in between is kept by its stream.
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if signals == 0 {
                tracing::info!(
                    signal = name,
                    "stopping; a second signal ends the process at once"
                );
                stop.cancel();
            } else {
                tracing::warn!(signal = name, "second signal: exiting without order");
                std::process::exit(130);
            }
        }
    });
    Ok(token)
}
