//! Looks for a text among operations.
//!
//! The problem: an index of all words of a million operations would take more memory than the
//! operations themselves, and to look at each of them takes about a second.
//!
//! How it is solved: everything else that is asked for narrows them first, by its index. The others
//! are looked at in rounds, each under a short lock, on a thread where that harms nobody, and one
//! search at a time.

use std::sync::Arc;
use std::time::Duration;

use ktrdr_protocol::rest::ErrorCode;
use roaring::RoaringBitmap;

use super::Projection;
use super::filter::{Page, Search, Wanted};
use super::model::Model;
use super::model::archiving::Listed;
use crate::error::ApiError;

/// Operations that are looked at in one round.
const ROUND: usize = 4096;

/// Tries of a page while the model numbers its operations again. It does so rarely.
pub const TRIES: u32 = 3;

/// How long a search waits for the one before it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whoever holds a model and lets others look at it for a moment.
pub trait Look {
    /// Looks at the model.
    fn look<T>(&self, look: impl FnOnce(&Model) -> T) -> T;
}

impl Look for Projection {
    fn look<T>(&self, look: impl FnOnce(&Model) -> T) -> T {
        look(&self.model.read())
    }
}

/// Leaves only the operations that have the text.
pub fn narrow(models: &impl Look, listed: &mut Listed, search: &Search) {
    let mut found = RoaringBitmap::new();
    let mut numbers = listed.numbers();
    loop {
        let round: Vec<u32> = numbers.by_ref().take(ROUND).collect();
        if round.is_empty() {
            break;
        }
        let records = models.look(|model| model.records_listed(listed, &round));
        let matching = records.iter().filter(|(_, record)| search.finds(record));
        found.extend(matching.map(|(number, _)| *number));
    }
    drop(numbers);
    listed.keep(&found);
}

impl Projection {
    /// One page of operations, newest first.
    ///
    /// # Errors
    /// 503 `overloaded` when too many look for a text.
    pub async fn list(self: &Arc<Self>, wanted: Wanted) -> Result<Page, ApiError> {
        let Some(search) = wanted.filter.search.clone() else {
            return Ok(self.model.read().list(&wanted));
        };

        // The semaphore is never closed.
        let Ok(turn) = tokio::time::timeout(PATIENCE, self.searches.acquire()).await else {
            return Err(ApiError::new(
                ErrorCode::Overloaded,
                "Too many requests look for a text. Try again, or narrow them by a type, a status or a time",
            ));
        };
        let projection = Arc::clone(self);
        let looking = tokio::task::spawn_blocking(move || projection.find(&wanted, &search));
        let found = looking.await.map_err(ApiError::internal);
        drop(turn);
        found
    }

    fn find(&self, wanted: &Wanted, search: &Search) -> Page {
        for _ in 0..TRIES {
            let mut listed = self.look(|model| model.listed(&wanted.filter));
            narrow(self, &mut listed, search);
            if let Some(page) = self.look(|model| model.page_listed(&listed, wanted)) {
                return page;
            }
        }
        Page::default()
    }
}

#[cfg(test)]
mod tests;
