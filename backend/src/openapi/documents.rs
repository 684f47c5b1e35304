//! The document as text, made once for the same worker types.
//!
//! The problem: the schemas of hostile worker types take a hundred times their text while the
//! document is made, and every client may ask for it at any time.
//!
//! How it is solved: one document is made at a time, on a thread where that delays nobody. Its text is
//! kept until the worker types change, and all clients that see the same types read the same bytes. A
//! text that is still being read counts until its last reader is gone.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use ktrdr_http::answer::{AnswerBudget, Share};
use ktrdr_http::openapi::{MAX_DOCUMENT, Route};
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::rest::ErrorCode;
use parking_lot::Mutex;

use super::document;
use crate::catalogue::CatalogueEntry;
use crate::error::ApiError;

/// Most texts that are kept: one for each set of worker types that clients see.
const MAX_KEPT: usize = 16;

/// Bytes of all texts, kept or still being read.
const MAX_TEXTS: usize = 2 * MAX_DOCUMENT;

/// How long a request waits for documents that others wait for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The documents of one REST interface.
#[derive(Debug)]
pub struct Documents {
    routes: Vec<Route>,
    tokens_needed: bool,
    texts: AnswerBudget,
    kept: Mutex<Vec<Kept>>,
    /// Held while a document is made.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A text with its share of the budget.
pub type Text = (Bytes, Arc<Share>);

#[derive(Debug)]
struct Kept {
    /// The worker types in the document. An entry that changes is another one.
    types: Vec<Arc<CatalogueEntry>>,
    text: Text,
}

impl Kept {
    fn is_of(&self, types: &[Arc<CatalogueEntry>]) -> bool {
        let mut pairs = self.types.iter().zip(types);
        self.types.len() == types.len() && pairs.all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

impl Documents {
    /// Documents of these routes. `tokens_needed` says whether requests need a token.
    pub fn new(routes: Vec<Route>, tokens_needed: bool) -> Self {
        Self {
            routes,
            tokens_needed,
            texts: AnswerBudget::new(MAX_TEXTS),
            kept: Mutex::default(),
            turn: Arc::default(),
        }
    }

    /// The document with those worker types of the catalogue that a client sees.
    ///
    /// # Errors
    /// 503 `overloaded` when too many others wait, or still read other texts.
    pub async fn text(
        self: &Arc<Self>,
        catalogue: &[Arc<CatalogueEntry>],
        sees: impl Fn(&CatalogueEntry) -> bool,
    ) -> Result<Text, ApiError> {
        let seen = catalogue.iter().filter(|entry| sees(entry));
        let types: Vec<_> = seen.cloned().collect();
        if let Some(text) = self.find(&types) {
            return Ok(text);
        }

        let turn = Arc::clone(&self.turn).lock_owned();
        let turn = tokio::time::timeout(PATIENCE, turn).await;
        let turn = turn.map_err(|_| overloaded())?;
        if let Some(text) = self.find(&types) {
            return Ok(text);
        }
        self.make_room(catalogue);
        let share = match self.texts.try_share(MAX_DOCUMENT) {
            Some(share) => share,
            None => {
                self.kept.lock().clear();
                self.texts
                    .share(&Principal::everybody(), MAX_DOCUMENT)
                    .await?
            }
        };

        let this = Arc::clone(self);
        let making = tokio::task::spawn_blocking(move || {
            // Also when the client has left meanwhile: the turn lasts as long as the work.
            let _turn = turn;
            this.make(types, share)
        });
        let text = making.await.map_err(ApiError::internal)?;
        text.map_err(ApiError::internal)
    }

    fn find(&self, types: &[Arc<CatalogueEntry>]) -> Option<Text> {
        let kept = self.kept.lock();
        let found = kept.iter().find(|kept| kept.is_of(types))?;
        Some(found.text.clone())
    }

    /// Drops texts with a worker type that has changed or is gone, and the oldest of too many.
    fn make_room(&self, catalogue: &[Arc<CatalogueEntry>]) {
        let is_current =
            |one: &Arc<CatalogueEntry>| catalogue.iter().any(|entry| Arc::ptr_eq(entry, one));
        let mut kept = self.kept.lock();
        kept.retain(|kept| kept.types.iter().all(is_current));

        let surplus = (kept.len() + 1).saturating_sub(MAX_KEPT);
        kept.drain(..surplus);
    }

    fn make(
        &self,
        types: Vec<Arc<CatalogueEntry>>,
        share: Share,
    ) -> Result<Text, serde_json::Error> {
        let document = document(self.tokens_needed, &self.routes, &types);
        let text = serde_json::to_vec(&document)?;
        let share = Arc::new(share.shrunk_to(text.len()));

        let text = (Bytes::from(text), share);
        let kept = Kept {
            types,
            text: text.clone(),
        };
        self.kept.lock().push(kept);
        Ok(text)
    }
}

fn overloaded() -> ApiError {
    let text = "Too many clients wait for this document while worker types change. Try again";
    ApiError::new(ErrorCode::Overloaded, text)
}
