//! The commands, without `ktrdr dev`.
//!
//! | module | holds |
//! |---|---|
//! | [`by_filter`] | cancelling and repeating all operations that match |
//! | [`logs`] | log lines of one operation |
//! | [`names`] | worker types by their name or their domain |
//! | [`operations`] | listing, showing, changing, cancelling and repeating operations |
//! | [`schedules`] | operations that start by the clock |
//! | [`start`] | starting one, or many |
//! | [`system`] | workers, queues and worker types |
//! | [`watch`] | following operations until they end |
//! | [`workers`] | workers of a file |

mod by_filter;
pub mod logs;
mod names;
mod operations;
mod schedules;
mod start;
mod system;
mod watch;
mod workers;

use std::path::Path;

use ktrdr_client::Client;

use self::by_filter::{Asked, Verb};
use crate::args::{self, Args, Command, ConnectionArgs};
use crate::dev;
use crate::failure::Failure;
use crate::text::print;

/// Runs a command.
///
/// # Errors
/// [`Failure`].
pub async fn run(args: Args) -> Result<(), Failure> {
    let connection = &args.connection;
    let json = connection.json;
    match args.command {
        Command::Start(start) => start::run(&connect(connection)?, start, json).await,
        Command::Watch { ids } => watch::run(&connect(connection)?, &ids, json).await,
        Command::List(mut list) => {
            let client = connect(connection)?;
            names::resolve(&client, &mut list.filter.worker_type).await?;
            operations::list(&client, list, json).await
        }
        Command::Show { id } => operations::show(&connect(connection)?, &id, json).await,
        Command::Logs(logs) => logs::run(&connect(connection)?, &logs, json).await,
        Command::Result { id } => operations::result(&connect(connection)?, &id).await,
        Command::Priority { id, priority } => {
            operations::set_priority(&connect(connection)?, &id, priority, json).await
        }
        Command::Cancel { reason, mut which } => {
            let client = connect(connection)?;
            names::resolve(&client, &mut which.filter.worker_type).await?;
            match by_filter::asked(which)? {
                Asked::Ids(ids) => operations::cancel(&client, &ids, reason.as_deref(), json).await,
                Asked::All(_) if reason.is_some() => Err(Failure::Usage(
                    "--reason is for operations that are named by their id".to_owned(),
                )),
                Asked::All(asked) => by_filter::run(&client, Verb::Cancel, *asked, json).await,
            }
        }
        Command::Retry { resume, mut which } => {
            let client = connect(connection)?;
            names::resolve(&client, &mut which.filter.worker_type).await?;
            match by_filter::asked(which)? {
                Asked::Ids(ids) => operations::retry(&client, &ids, resume, json).await,
                Asked::All(_) if resume => Err(Failure::Usage(
                    "--resume is for operations that are named by their id".to_owned(),
                )),
                Asked::All(asked) => by_filter::run(&client, Verb::Retry, *asked, json).await,
            }
        }
        Command::Workers { command } => system::workers(&connect(connection)?, command, json).await,
        Command::Queues { command } => system::queues(&connect(connection)?, command, json).await,
        Command::Schedules { command } => {
            schedules::run(&connect(connection)?, command, json).await
        }
        Command::Types { domain } => {
            system::types(&connect(connection)?, domain.as_deref(), json).await
        }
        Command::Dev(options) => dev::run(options).await,
        Command::Run { file, settings } => workers::run(&file, &settings),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut args::complete_command(), "ktrdr", &mut script);
            print(String::from_utf8_lossy(&script).trim_end())
        }
    }
}

fn connect(connection: &ConnectionArgs) -> Result<Client, Failure> {
    // A person waits at the terminal, and a script has its own patience.
    let patience = std::time::Duration::from_secs(5);
    let client = match &connection.ca {
        Some(path) => Client::with_authority(&connection.url, &authority(path)?)?,
        None => Client::new(&connection.url)?,
    };
    let client = client.give_up_after(patience);
    match &connection.token {
        Some(token) => Ok(client.token(token)?),
        None => Ok(client),
    }
}

fn authority(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|source| Failure::File {
        path: path.to_owned(),
        source,
    })
}
