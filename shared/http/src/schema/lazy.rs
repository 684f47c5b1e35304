//! Schemas that are compiled when they are needed, and compiled ones that are dropped again.
//!
//! The problem: a compiled schema takes up to a thousand times the memory of its text, and a backend
//! checks the requests of all worker types. Nobody knows which of them are needed next.
//!
//! How it is solved: everybody keeps the text. The compiled ones together take bounded memory by an
//! estimate ([`Cost::memory`](super::cost::Cost::memory)); those that are used least are dropped, and
//! compiled again when they are needed.
//!
//! Whether a schema compiles never changes, but how long it takes does: on a busy machine a good
//! schema may be too slow once. So only that answer is not kept for ever. It is kept for a while,
//! because a hostile schema takes a thread for seconds at each try.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ktrdr_protocol::schema_text::SchemaText;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, Weighter};
use tokio::time::Instant;

use super::{Schema, UnusableSchema, cost};

/// How long a schema that was too slow to compile is not tried again.
const PAUSE: Duration = Duration::from_secs(30);

/// Bytes that all compiled schemas take together, by the estimate.
const MAX_MEMORY: u64 = 64 * 1024 * 1024;

// The cache keeps nothing that takes almost all of it.
const _: () = assert!(cost::MAX_MEMORY <= MAX_MEMORY / 4 * 3);

/// Schemas that are expected to be compiled at a time.
const EXPECTED: usize = 64;

/// Numbers schemas, so that each is found among the compiled ones.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// What is known of a schema that is compiled when it is needed.
#[derive(Debug)]
pub struct LazySchema {
    number: u64,
    /// Why it can never be used.
    wrong: OnceLock<UnusableSchema>,
    /// When the last compilation was given up.
    given_up: Mutex<Option<Instant>>,
}

impl Default for LazySchema {
    fn default() -> Self {
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            wrong: OnceLock::new(),
            given_up: Mutex::default(),
        }
    }
}

impl LazySchema {
    /// One that is known to be unusable.
    pub fn unusable(reason: UnusableSchema) -> Self {
        Self {
            wrong: reason.into(),
            ..Self::default()
        }
    }

    /// Why the schema cannot be used now, if that is known.
    pub fn error(&self) -> Option<&UnusableSchema> {
        let is_given_up = || {
            let given_up = *self.given_up.lock();
            given_up.is_some_and(|at| at.elapsed() < PAUSE)
        };
        let wrong = self.wrong.get();
        wrong.or_else(|| is_given_up().then_some(&UnusableSchema::Slow))
    }

    /// Compiles it, and notes why that is not possible.
    async fn compile<F>(&self, compile: impl FnOnce() -> F) -> Result<Schema, UnusableSchema>
    where
        F: Future<Output = Result<Schema, UnusableSchema>>,
    {
        // Somebody may have found out while this one waited.
        if let Some(error) = self.error() {
            return Err(error.clone());
        }
        let compiled = compile().await;
        match &compiled {
            Ok(_) => {}
            Err(UnusableSchema::Slow) => *self.given_up.lock() = Some(Instant::now()),
            Err(wrong) => {
                // Nobody else compiles it at the same time.
                let _ = self.wrong.set(wrong.clone());
            }
        }
        compiled
    }
}

/// Compiled schemas, within a bound.
pub struct CompiledSchemas(Cache<u64, Schema, ByMemory>);

#[derive(Clone)]
struct ByMemory;

impl Weighter<u64, Schema> for ByMemory {
    fn weight(&self, _: &u64, schema: &Schema) -> u64 {
        schema.memory()
    }
}

impl Default for CompiledSchemas {
    fn default() -> Self {
        Self::within(MAX_MEMORY)
    }
}

impl fmt::Debug for CompiledSchemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledSchemas").finish_non_exhaustive()
    }
}

impl CompiledSchemas {
    fn within(bytes: u64) -> Self {
        let options = OptionsBuilder::new()
            // The bound is one for all.
            .shards(1)
            .estimated_items_capacity(EXPECTED)
            .weight_capacity(bytes)
            .build();
        let cache = match options {
            Ok(options) => {
                Cache::with_options(options, ByMemory, Default::default(), Default::default())
            }
            Err(_) => Cache::with_weighter(EXPECTED, bytes, ByMemory),
        };
        Self(cache)
    }

    /// The compiled form of a schema. `text` is its text, which must be the same at each call.
    ///
    /// # Errors
    /// [`UnusableSchema`]; `Slow` may be another answer later.
    pub async fn get(
        &self,
        schema: &LazySchema,
        text: impl FnOnce() -> SchemaText,
    ) -> Result<Schema, UnusableSchema> {
        self.get_by(schema, || Schema::compile_apart(text())).await
    }

    async fn get_by<F>(
        &self,
        schema: &LazySchema,
        compile: impl FnOnce() -> F,
    ) -> Result<Schema, UnusableSchema>
    where
        F: Future<Output = Result<Schema, UnusableSchema>>,
    {
        let compiled = schema.compile(compile);
        self.0.get_or_insert_async(&schema.number, compiled).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn fine() -> SchemaText {
        SchemaText::default()
    }

    fn wrong() -> SchemaText {
        SchemaText::of(&json!({"type": "nonsense"}))
    }

    #[tokio::test(start_paused = true)]
    async fn a_schema_that_was_too_slow_once_is_tried_again_after_a_while() {
        let (all, lazy) = (CompiledSchemas::default(), LazySchema::default());

        let slow = all.get_by(&lazy, async || Err(UnusableSchema::Slow)).await;
        assert_eq!(slow.unwrap_err(), UnusableSchema::Slow);
        assert_eq!(lazy.error(), Some(&UnusableSchema::Slow));
        assert!(all.get(&lazy, fine).await.is_err(), "too soon");

        tokio::time::advance(PAUSE).await;
        assert_eq!(lazy.error(), None);
        let compiled = all.get_by(&lazy, async || Schema::compile(&json!({})));
        assert!(compiled.await.is_ok());
        assert!(all.get(&lazy, wrong).await.is_ok(), "it is kept");
    }

    #[tokio::test]
    async fn a_schema_that_is_wrong_is_compiled_once() {
        let (all, lazy) = (CompiledSchemas::default(), LazySchema::default());

        let error = all.get(&lazy, wrong).await.unwrap_err();

        assert_eq!(all.get(&lazy, fine).await.unwrap_err(), error);
        assert_eq!(lazy.error(), Some(&error));
    }

    #[tokio::test]
    async fn a_schema_of_the_largest_allowed_memory_is_kept() {
        let (all, lazy) = (CompiledSchemas::default(), LazySchema::default());
        let largest = async || {
            let Schema(compiled) = Schema::compile(&json!({}))?;
            let mut compiled = Arc::into_inner(compiled).unwrap();
            compiled.cost.memory = cost::MAX_MEMORY;
            Ok(Schema(compiled.into()))
        };
        all.get_by(&lazy, largest).await.unwrap();

        assert!(all.get(&lazy, wrong).await.is_ok(), "it is compiled again");
    }

    #[tokio::test]
    async fn compiled_schemas_take_bounded_memory_and_those_in_use_stay() {
        let text = || SchemaText::of(&json!({"properties": {"a": {"type": "integer"}}}));
        let one = Schema::compile(&text().value().unwrap()).unwrap().memory();
        let all = CompiledSchemas::within(10 * one);
        let used = LazySchema::default();
        all.get(&used, text).await.unwrap();

        for _ in 0..100 {
            all.get(&LazySchema::default(), text).await.unwrap();
            let unneeded = async || -> Result<Schema, UnusableSchema> {
                panic!("it was dropped although it is used")
            };
            all.get_by(&used, unneeded).await.unwrap();
        }

        assert!(all.0.len() > 5 && all.0.weight() <= 10 * one);
    }
}
