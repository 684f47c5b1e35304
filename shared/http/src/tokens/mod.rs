//! Tokens: who may do what at a REST interface.
//!
//! The problem: whoever reaches a REST interface could start, read and cancel everything. On a
//! network that must depend on who asks.
//!
//! How it is solved: an operator lists tokens in a file. A request sends one as `Authorization:
//! Bearer …`, and the entry of the token says what the request may do. The file holds only the
//! SHA-256 of each token. Tokens are 256 random bits, so nobody finds one by trying, a slow hash
//! would only cost time, and a lookup by the hash tells an attacker nothing by how long it takes.
//! The file is read again when it changes.
//!
//! Rejected: cookies, which a browser sends to every port of a host; tokens in the query, which end
//! up in logs, histories and `Referer`; JWT, which needs keys, clocks and a list of revoked tokens.
//!
//! | module | holds |
//! |---|---|
//! | [`scope`] | what a token allows, and what a route needs |
//! | [`principal`] | who sent a request |
//! | [`mod@file`] | reads and writes the file of tokens |
//! | `recent` | the tokens that a thread has looked up last |
//! | [`check`] | finds the principal of a request, or refuses it |
//! | [`ending`] | ends answers that are still being sent when a token is revoked |
//! | [`reload`] | follows changes of the file |
//! | [`options`] | settings, and which addresses may be listened on |

pub mod check;
pub mod ending;
pub mod file;
#[cfg(test)]
mod fuzz;
pub mod options;
pub mod principal;
mod recent;
pub mod reload;
pub mod scope;
#[cfg(test)]
mod tests;

pub use self::check::{RefusedToken, Tokens, guard};
pub use self::file::TokensError;
pub use self::options::{ListenError, TokenOptions};
pub use self::principal::Principal;
pub use self::scope::{Access, Scope, Scopes};
