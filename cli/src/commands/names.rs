//! Worker types by their name or their domain. `ktrdr start` takes the domain, and what takes a worker type
//! takes it, too.

use ktrdr_client::{Client, Error, WorkerType};

use crate::failure::Failure;

/// Puts the name of a worker type in the place of each domain. What is neither stays: operations may be of a
/// type that was forgotten.
///
/// # Errors
/// [`Failure::Usage`] when a text can be no name of a worker type, and other [`Failure`]s.
pub async fn resolve(client: &Client, names: &mut [String]) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    let types = match client.worker_types().await {
        Ok(types) => types,
        // A token may allow what was asked and not this.
        Err(Error::Refused(_)) => Vec::new(),
        Err(error) => return Err(error.into()),
    };

    for name in names {
        if types.iter().any(|of| of.worker_type.as_str() == name) {
            continue;
        }
        if let Some(of) = types.iter().find(|of| of.domain == *name) {
            *name = of.worker_type.to_string();
        }
        worker_type(name)?;
    }
    Ok(())
}

/// The worker type with this name or domain.
///
/// # Errors
/// As [`resolve`].
pub async fn resolve_one(client: &Client, name: String) -> Result<WorkerType, Failure> {
    let mut names = [name];
    resolve(client, &mut names).await?;
    let [name] = names;
    worker_type(&name)
}

fn worker_type(name: &str) -> Result<WorkerType, Failure> {
    name.parse().map_err(|_| {
        Failure::Usage(format!(
            "{name:?} is neither a worker type nor a domain; `ktrdr types` lists them"
        ))
    })
}
