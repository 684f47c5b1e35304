//! Prints every message under the subject prefix, one line each: a `nats sub 'ktrdr.>'`
//! for machines without the `nats` program.
//!
//! ```sh
//! cargo run --example tap                           # nats://127.0.0.1:4222, everything
//! cargo run --example tap -- 'ktrdr.op.>'           # only state changes
//! NATS_URL=nats://127.0.0.1:4333 cargo run --example tap
//! ```

use std::error::Error;
use std::io::Write;

use clap::Parser;
use futures::StreamExt;
use ktrdr_bus::nats;
use ktrdr_bus::settings::NatsOptions;
use ktrdr_bus::shutdown;
use ktrdr_bus::telemetry::{self, LogOptions};

#[derive(Parser)]
#[command(about = "Prints everything that is said under the subject prefix, one line each.")]
struct Options {
    /// What to listen to, with the wildcards * and >; everything under the prefix by default.
    subject: Option<String>,
    #[command(flatten)]
    nats: NatsOptions,
    #[command(flatten)]
    log: LogOptions,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    telemetry::init(&options.log);
    let stop = shutdown::on_signals()?;

    let connection = nats::connect(&options.nats, "tap").await?;
    let subject = options
        .subject
        .unwrap_or_else(|| format!("{}.>", options.nats.subject_prefix.prefix()));
    let mut messages = connection.client.subscribe(subject).await?;

    loop {
        // Both arms are cancel safe: a message that was not taken stays in the subscription.
        let message = tokio::select! {
            message = messages.next() => message,
            () = stop.cancelled() => None,
        };
        let Some(message) = message else {
            return Ok(());
        };

        let line = format!(
            "{} {}",
            message.subject,
            String::from_utf8_lossy(&message.payload).replace('\n', " ")
        );
        // The reader of a pipe may close it when it has seen enough. That is not an error.
        if writeln!(std::io::stdout().lock(), "{line}").is_err() {
            return Ok(());
        }
    }
}
