//! What a token allows, and what a route needs.

use std::fmt;
use std::str::FromStr;

/// One kind of thing that a token may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Read operations, results, workers, live events and the OpenAPI document.
    Read,
    /// Start, retry and resume operations.
    Start,
    /// Cancel operations.
    Cancel,
    /// Read the Prometheus metrics.
    Metrics,
    /// Everything.
    Admin,
}

/// A word that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no scope {0:?}; the scopes are read, start, cancel, metrics, admin")]
pub struct UnknownScope(pub String);

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 5] = [
        Self::Read,
        Self::Start,
        Self::Cancel,
        Self::Metrics,
        Self::Admin,
    ];

    /// The word of the scope in the file of tokens and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Start => "start",
            Self::Cancel => "cancel",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(word: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == word)
            .ok_or_else(|| UnknownScope(word.chars().take(64).collect()))
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// Whether these scopes allow what `scope` stands for. `admin` allows everything.
    pub const fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }

    /// Whether no scope is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |all, scope| all | scope.bit()))
    }
}

/// What a request must bring to reach the handler of a route. Every route names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: probes, and pages that hold no data.
    Open,
    /// A token with this scope.
    Needs(Scope),
}
