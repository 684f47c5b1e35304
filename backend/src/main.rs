//! The backend as a program: settings, logs, the port, then [`ktrdr_backend::run`].

use std::process::ExitCode;

use ktrdr_backend::Config;
use ktrdr_bus::shutdown;
use ktrdr_bus::telemetry;

/// A projection consists of many small allocations. docs/performance.md has the measured gain.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::load();
    telemetry::init(&config.log);

    match start(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %telemetry::chain(error.as_ref()), "the backend stops because of an error");
            ExitCode::FAILURE
        }
    }
}

async fn start(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let shutdown = shutdown::on_signals()?;
    // Bound first, so that a port in use is reported at once and probes are answered from the
    // beginning.
    let listener = tokio::net::TcpListener::bind(&config.api_addr)
        .await
        .map_err(|error| {
            format!(
                "cannot listen on KTRDR_API_ADDR={}: {error}",
                config.api_addr
            )
        })?;
    Ok(ktrdr_backend::run(config, listener, shutdown).await?)
}
