//! A schema that is compiled when it is needed first.
//!
//! Whether a schema compiles never changes, but how long it takes does: on a busy machine a good
//! schema may be too slow once. So only that answer is not kept for ever. It is kept for a while,
//! because a hostile schema takes a thread for seconds at each try.

use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::{Schema, UnusableSchema};

/// How long a schema that was too slow to compile is not tried again.
const PAUSE: Duration = Duration::from_secs(30);

/// A schema that is compiled when it is needed first.
#[derive(Debug, Default)]
pub struct LazySchema {
    compiled: OnceCell<Result<Schema, UnusableSchema>>,
    /// When the last compilation was given up.
    given_up: Mutex<Option<Instant>>,
}

impl LazySchema {
    /// One that is known to be unusable.
    pub fn unusable(reason: UnusableSchema) -> Self {
        Self {
            compiled: OnceCell::new_with(Some(Err(reason))),
            given_up: Mutex::default(),
        }
    }

    /// The compiled form of `schema`, which is the same at each call.
    ///
    /// # Errors
    /// [`UnusableSchema`]; `Slow` may be another answer later.
    pub async fn get(&self, schema: &Value) -> Result<Schema, UnusableSchema> {
        self.get_by(|| Schema::compile_apart(schema.clone())).await
    }

    async fn get_by<F>(&self, compile: impl FnOnce() -> F) -> Result<Schema, UnusableSchema>
    where
        F: Future<Output = Result<Schema, UnusableSchema>>,
    {
        let compile = async || {
            if self.is_given_up() {
                return Err(UnusableSchema::Slow);
            }
            match compile().await {
                Err(UnusableSchema::Slow) => {
                    *self.given_up.lock() = Some(Instant::now());
                    Err(UnusableSchema::Slow)
                }
                compiled => Ok(compiled),
            }
        };
        self.compiled.get_or_try_init(compile).await?.clone()
    }

    /// Why the schema cannot be used now, if that is known.
    pub fn error(&self) -> Option<&UnusableSchema> {
        match self.compiled.get() {
            Some(compiled) => compiled.as_ref().err(),
            None => self.is_given_up().then_some(&UnusableSchema::Slow),
        }
    }

    fn is_given_up(&self) -> bool {
        let given_up = *self.given_up.lock();
        given_up.is_some_and(|at| at.elapsed() < PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_schema_that_was_too_slow_once_is_tried_again_after_a_while() {
        let lazy = LazySchema::default();

        let slow = lazy.get_by(async || Err(UnusableSchema::Slow)).await;
        assert_eq!(slow.unwrap_err(), UnusableSchema::Slow);
        assert_eq!(lazy.error(), Some(&UnusableSchema::Slow));
        assert!(lazy.get(&json!({})).await.is_err(), "too soon");

        tokio::time::advance(PAUSE).await;
        assert_eq!(lazy.error(), None);
        let compiled = lazy.get_by(async || Schema::compile(&json!({}))).await;
        assert!(compiled.is_ok());
        assert!(lazy.get(&json!(7)).await.is_ok(), "it is kept");
    }

    #[tokio::test]
    async fn a_schema_that_is_wrong_is_compiled_once() {
        let lazy = LazySchema::default();

        let wrong = lazy.get(&json!({"type": "nonsense"})).await.unwrap_err();

        assert_eq!(lazy.get(&json!({})).await.unwrap_err(), wrong);
        assert_eq!(lazy.error(), Some(&wrong));
    }
}
