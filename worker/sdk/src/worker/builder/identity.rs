//! How a worker process is reached, and who its workers are.

use std::net::SocketAddr;

use ktrdr_http::tls::{Scheme, Tls};
use ktrdr_protocol::id::{InvalidName, WorkerId, WorkerType};
use tokio::net::TcpListener;

use super::{Address, WorkerError};
use crate::dynamic::EngineInfo;
use crate::worker::config::Config;

/// How the REST interface of this process is reached.
pub(super) struct Endpoint {
    pub(super) listener: Option<TcpListener>,
    pub(super) tls: Option<Tls>,
    pub(super) scheme: Scheme,
    pub(super) url: String,
    /// Tells this process from others on the same host: the port, or else the process id.
    pub(super) number: u32,
}

impl Endpoint {
    pub(super) async fn of(address: Address, config: &Config) -> Result<Self, WorkerError> {
        let listener = match address {
            // The program decides about TLS, and says it in the URL.
            Address::Mounted(url) => {
                return Ok(Self {
                    listener: None,
                    tls: None,
                    scheme: Scheme::of_url(&url),
                    url: url.trim_end_matches('/').to_owned(),
                    number: std::process::id(),
                });
            }
            Address::Listener(listener) => listener,
            Address::Configured => {
                let address = format!("{}:{}", config.host, config.port);
                TcpListener::bind(&address)
                    .await
                    .map_err(|source| WorkerError::Http { address, source })?
            }
        };

        let address = listener.local_addr().map_err(WorkerError::Process)?;
        let tls = config.tls.load()?;
        let scheme = config.tls.scheme();
        config.tokens.check_address(address, tls.is_some())?;
        let url = config
            .endpoint_url
            .clone()
            .unwrap_or_else(|| default_url(scheme, address, &config.host));
        Ok(Self {
            listener: Some(listener),
            tls,
            scheme,
            url,
            number: u32::from(address.port()),
        })
    }
}

pub(super) fn default_url(scheme: Scheme, address: SocketAddr, configured_host: &str) -> String {
    let host = if address.ip().is_unspecified() {
        host_name()
    } else {
        configured_host.to_owned()
    };
    format!("{scheme}://{host}:{}", address.port())
}

/// Who one worker of this process is.
pub(super) struct Identity {
    pub(super) worker_type: WorkerType,
    pub(super) worker_id: WorkerId,
    pub(super) endpoint_url: String,
}

impl Identity {
    pub(super) fn of(
        info: &EngineInfo,
        config: &Config,
        endpoint: &Endpoint,
        several: bool,
    ) -> Result<Self, InvalidName> {
        let worker_type = WorkerType::new(info.worker_type.as_ref())?;
        let worker_id = match &config.worker_id {
            Some(id) if several => WorkerId::new(format!("{id}-{}", dashed(&worker_type)))?,
            Some(id) => id.clone(),
            None => default_worker_id(&worker_type, &host_name(), endpoint.number)?,
        };
        let endpoint_url = if several {
            format!("{}/{worker_type}", endpoint.url)
        } else {
            endpoint.url.clone()
        };
        Ok(Self {
            worker_type,
            worker_id,
            endpoint_url,
        })
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() {
        "localhost".to_owned()
    } else {
        name.trim().to_owned()
    }
}

/// `data-processing-worker-<host>-<port>`: the guide's style, and unique among the workers of one
/// machine.
fn default_worker_id(
    worker_type: &WorkerType,
    host: &str,
    number: u32,
) -> Result<WorkerId, InvalidName> {
    let host: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(64)
        .collect();
    let worker_type: String = dashed(worker_type).chars().take(48).collect();
    WorkerId::new(format!("{worker_type}-worker-{host}-{number}"))
}

fn dashed(worker_type: &WorkerType) -> String {
    worker_type.as_str().replace('_', "-")
}
