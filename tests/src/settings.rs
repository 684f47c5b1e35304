//! Settings with short times: what takes half a minute in production happens within a second.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ktrdr_bus::permissions::Role;
use ktrdr_protocol::id::WorkerType;

use crate::client::Client;
use crate::process::program;
use crate::secure;
use crate::tokens::TokensFile;

/// The settings that backend and workers of one test share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The NATS server, or the proxy in front of it.
    pub nats_url: String,
    /// First token of every subject.
    pub prefix: String,
    /// The interval of heartbeats; three missed ones make a worker unavailable.
    pub heartbeat: Duration,
    /// How long a worker may be silent before its operation goes to another one.
    pub lease: Duration,
    /// How long a worker may ignore a cancel.
    pub cancel_grace: Duration,
    /// When a silent worker is forgotten.
    pub remove_after: Duration,
    /// The workers' data directory.
    pub data_dir: PathBuf,
    /// The log filter of the processes.
    pub log: String,
    /// The directory of the programs; `None` for those of this build.
    pub programs: Option<PathBuf>,
    /// The limit of open files of the processes; `None` for that of the test.
    pub descriptors: Option<u32>,
    /// The token of the test's own requests; `None` without tokens.
    pub token: Option<String>,
    /// Whether the programs connect as users with few permissions ([`crate::secure`]).
    pub secure: bool,
    /// Further environment of the processes; wins over everything above.
    pub extra: Vec<(String, String)>,
}

impl Settings {
    /// Short times: heartbeat 200 ms, lease and cancel grace 1 s. The data directory is the one in
    /// the repository.
    pub fn fast(nats_url: impl Into<String>) -> Self {
        Self {
            nats_url: nats_url.into(),
            prefix: "ktrdr".to_owned(),
            heartbeat: Duration::from_millis(200),
            lease: Duration::from_secs(1),
            cancel_grace: Duration::from_secs(1),
            remove_after: Duration::from_secs(60),
            data_dir: repository().join("data"),
            log: "debug,async_nats=info,hyper=info,h2=info,reqwest=info".to_owned(),
            programs: None,
            descriptors: None,
            token: None,
            secure: secure::is_wanted(),
            extra: Vec::new(),
        }
    }

    /// With one more environment variable for the processes.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.extra.push((key.to_owned(), value.into()));
        self
    }

    /// With a file of tokens. The test's own requests send a token that allows everything.
    #[must_use]
    pub fn tokens(self, file: &TokensFile) -> Self {
        let token = file.token("test");
        let path = file.path().display().to_string();
        Self {
            token: Some(token),
            ..self.with("KTRDR_TOKENS_FILE", path)
        }
    }

    /// A client of the REST interface at `base`, with the test's token if there is one.
    pub fn client(&self, base: impl Into<String>) -> Client {
        let client = Client::new(base);
        match &self.token {
            None => client,
            Some(token) => client.with_token(token),
        }
    }

    /// With another data directory.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = path.into();
        self
    }

    /// A command that runs a program within the limit of open files.
    pub fn command(&self, name: &str) -> Command {
        let program = self.program(name);
        match self.descriptors {
            None => Command::new(program),
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell
                    .args(["-c", "ulimit -n \"$1\" && shift && exec \"$@\"", "sh"])
                    .arg(limit.to_string())
                    .arg(program);
                shell
            }
        }
    }

    /// The path of a program.
    ///
    /// # Panics
    /// When it was not built.
    pub fn program(&self, name: &str) -> PathBuf {
        match &self.programs {
            None => program(name),
            Some(directory) => {
                let path = directory.join(name);
                assert!(path.is_file(), "{} is missing", path.display());
                path
            }
        }
    }

    fn common_env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("NATS_URL", self.nats_url.clone()),
            ("KTRDR_SUBJECT_PREFIX", self.prefix.clone()),
            ("KTRDR_HEARTBEAT_INTERVAL", millis(self.heartbeat)),
            ("KTRDR_LEASE", millis(self.lease)),
            ("RUST_LOG", self.log.clone()),
        ]
    }

    /// The environment with which a program connects as the user of its role, if it is to do so.
    pub fn user_env(&self, role: &Role) -> Vec<(&'static str, String)> {
        // The users are those of the default prefix.
        if self.secure && self.prefix == "ktrdr" {
            secure::environment(role).to_vec()
        } else {
            Vec::new()
        }
    }

    /// The environment of a `ktrdr-backend`.
    pub fn backend_env(&self) -> Vec<(&'static str, String)> {
        let mut env = self.common_env();
        env.extend(self.user_env(&Role::Backend));
        env.push(("KTRDR_CANCEL_GRACE", millis(self.cancel_grace)));
        env.push(("KTRDR_WORKER_REMOVE_AFTER", millis(self.remove_after)));
        env
    }

    /// The environment of a `ktrdr-worker`.
    ///
    /// # Panics
    /// When the worker type is not valid.
    pub fn worker_env(&self, worker_type: &str) -> Vec<(&'static str, String)> {
        let mut env = self.common_env();
        let worker_type = WorkerType::new(worker_type).expect("a worker type");
        env.extend(self.user_env(&Role::Worker(worker_type)));
        if self.secure {
            // No worker of version 0.1.0 is there, and the old keys name no worker type.
            env.push(("KTRDR_OLD_CHECKPOINT_KEYS", "false".to_owned()));
        }
        env.push(("KTRDR_DATA_DIR", self.data_dir.display().to_string()));
        env
    }
}

fn millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace above this crate")
        .to_owned()
}

/// The blocks of one language in a Markdown page.
pub fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    page.split(&format!("```{language}\n"))
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect()
}
