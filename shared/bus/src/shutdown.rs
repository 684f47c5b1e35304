//! Signals. The first one asks the process to stop, the second one ends it at once.
//!
//! The problem: a worker that is stopped must give its operations back and send its farewell, which
//! takes a moment. An operator who does not want to wait must still be able to end it.
//!
//! How it is solved: the first SIGTERM, SIGINT or SIGHUP cancels a token that all parts of the
//! program watch. SIGHUP means that the terminal was closed; nothing has to be reloaded by hand.
//! Each program then stops its parts in its own order and within its own grace. A second signal
//! exits with status 130; the leases then expire and other workers take over.

use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM, SIGINT or SIGHUP; a second signal exits with
/// status 130.
///
/// # Errors
/// When signal handlers cannot be installed.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let token = CancellationToken::new();
    let stop = token.clone();
    // Runs as long as the process. It holds nothing, so nobody has to wait for it.
    tokio::spawn(async move {
        for signals in 0.. {
            // All arms are cancel safe: the streams keep a signal that arrives in between.
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hangup.recv() => "SIGHUP",
            };

            if signals == 0 {
                tracing::info!(
                    signal = name,
                    "stopping; a second signal ends the process at once"
                );
                stop.cancel();
            } else {
                tracing::warn!(signal = name, "second signal; exiting at once");
                std::process::exit(130);
            }
        }
    });

    Ok(token)
}
