//! Follows changes of the file of tokens.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ktrdr_bus::file_stamp::FileStamp;
use ktrdr_bus::followed::Followed;
use ktrdr_bus::telemetry::chain;
use ktrdr_protocol::time::Timestamp;

use super::check::{Shared, Table, Tokens};
use super::file::{self, Entry, TokensError};
use super::principal::KnownToken;

/// How often the file is looked at, and expired tokens are ended.
const INTERVAL: Duration = Duration::from_secs(1);

/// A file that was just changed may be half written. It is read when it has been the same for so
/// long.
const QUIET: Duration = Duration::from_millis(50);

/// A file that changes all the time is read after so many looks.
const MAX_LOOKS: usize = 10;

/// What tells one version of the file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Version {
    /// There is no file, or it cannot be looked at.
    Gone(io::ErrorKind),
    /// The file is there, in this state.
    There(FileStamp),
}

/// Why the tokens from before stay in use.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the file is gone: {0}")]
    Gone(io::ErrorKind),
    #[error(transparent)]
    Unusable(#[from] TokensError),
    #[error("reading was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl Fault {
    fn tell(&self, path: &Path) {
        let path = path.display();
        if let Self::Gone(why) = self {
            tracing::warn!(
                %path, %why,
                "the file of tokens is gone; the tokens stay valid. Restore the file, or remove its entries instead"
            );
        } else {
            tracing::error!(
                error = chain(self),
                "the file of tokens was changed and cannot be used; the tokens from before stay valid"
            );
        }
    }
}

impl Version {
    /// The version that is there now.
    async fn of(path: &Path) -> Self {
        match tokio::fs::metadata(path).await {
            Ok(found) => Self::There(found.into()),
            Err(error) => Self::Gone(error.kind()),
        }
    }
}

impl Tokens {
    /// Reads the file again whenever it changes, and ends tokens that expire. A file that cannot be
    /// used, or that is gone, changes nothing; the log says so once. Runs until it is dropped.
    pub async fn keep_current(&self) {
        let Some(shared) = self.shared() else {
            return std::future::pending().await;
        };
        // Read once more at the beginning: it may have changed since it was loaded.
        let mut file = Followed::unread();
        loop {
            let mut version = Version::of(&shared.path).await;
            if file.must_read(&version) {
                version = shared.settled(version).await;
                let outcome = shared.read_again(&version).await;
                if let Some(fault) = file.note(version, outcome) {
                    fault.tell(&shared.path);
                }
            }
            shared.end_expired();
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

impl Shared {
    /// Waits until the file stays as it is. Returns the version that is there then.
    async fn settled(&self, mut version: Version) -> Version {
        for _ in 0..MAX_LOOKS {
            tokio::time::sleep(QUIET).await;
            let newer = Version::of(&self.path).await;
            if newer == version {
                break;
            }
            version = newer;
        }
        version
    }

    /// Reads the file, and puts its tokens in the place of all others.
    async fn read_again(&self, version: &Version) -> Result<(), Fault> {
        if let Version::Gone(why) = version {
            return Err(Fault::Gone(*why));
        }
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read_entries(&path));
        let (entries, is_open) = read.await??;
        let count = entries.len();
        if self.replace(entries) {
            tell(&self.path, count, is_open);
        }
        Ok(())
    }

    /// Puts these entries in the place of all others. A token whose entry is the same as before
    /// goes on; every other is revoked. Returns whether anything is different.
    fn replace(&self, entries: Vec<Entry>) -> bool {
        let old = self.table.load_full();
        let mut same = 0;
        let table: Table = file::by_digest(entries)
            .into_iter()
            .map(|(digest, entry)| {
                let before = old.get(&digest).filter(|known| known.entry == entry);
                same += usize::from(before.is_some());
                let known = before.cloned();
                (
                    digest,
                    known.unwrap_or_else(|| Arc::new(KnownToken::new(entry))),
                )
            })
            .collect();
        let changed = same != old.len() || same != table.len();
        let table = Arc::new(table);
        self.table.store(Arc::clone(&table));

        // After the swap, so that nobody gets the token once more.
        for (digest, known) in old.iter() {
            let goes_on = table
                .get(digest)
                .is_some_and(|kept| Arc::ptr_eq(kept, known));
            if !goes_on {
                known.revoked.cancel();
            }
        }
        changed
    }

    /// Ends what goes on with a token that has expired.
    fn end_expired(&self) {
        let now = Timestamp::now();
        for known in self.table.load().values() {
            if known.has_expired(|| now) {
                known.revoked.cancel();
            }
        }
    }
}

fn read_entries(path: &Path) -> Result<(Vec<Entry>, bool), TokensError> {
    let (text, is_open) = file::read(path)?;
    Ok((file::parse(&text, path)?, is_open))
}

/// Logs what was read.
pub(super) fn tell(path: &Path, count: usize, is_open: bool) {
    let path = path.display();
    tracing::info!(%path, count, "the tokens were read");
    if count == 0 {
        tracing::warn!(%path, "the file of tokens has no entry: only open routes answer. `ktrdr-backend token new` adds one");
    }
    if is_open {
        tracing::warn!(%path, "others may read the file of tokens, which tells them the names and scopes; chmod 600 it");
    }
}
