//! The backend as a program: the command line, logs, the port, then [`ktrdr_backend::run`].

use std::process::ExitCode;

use ktrdr_backend::commands::Task;
use ktrdr_backend::{Config, RunError};
use ktrdr_bus::settings::BAD_SETTING;
use ktrdr_bus::shutdown;
use ktrdr_bus::telemetry;

/// A projection consists of many small allocations. docs/performance.md has the measured gain.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Task::from_args() {
        Task::Run(command) => command.run(),
        Task::Serve(config) => serve(*config),
    }
}

#[tokio::main]
async fn serve(config: Config) -> ExitCode {
    telemetry::init(&config.log);

    match start(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %telemetry::chain(error.as_ref()), "the backend stops because of an error");
            let error = error.downcast_ref::<RunError>();
            match error.is_some_and(RunError::is_about_settings) {
                true => ExitCode::from(BAD_SETTING),
                false => ExitCode::FAILURE,
            }
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
