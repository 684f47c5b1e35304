//! What a backend signs of a start request, and the headers that carry the signature.
//!
//! The problem: whoever may publish on the bus can store a start request, and a worker runs what its
//! queue delivers.
//!
//! How it is solved: a backend signs a [`statement`] about each start request: its subject (which
//! names tenant, worker type and queue), its operation id, the time, and the digest of its exact
//! bytes. A worker that knows the backend's public key makes the same statement from the message
//! that it received. So a message that was changed, moved to another queue, type or tenant, or
//! published by somebody else does not fit its signature.
//!
//! The signature travels in headers, so workers that do not know it ignore it, and the body stays
//! the same.
//!
//! A copy of a signed message is another matter: its signature is right. It starts nothing while
//! the stream has the operation's log. After that it is refused by its time: [`is_timely`].
//!
//! Rejected: a signature inside the body. It would have to be cut out before the body is checked,
//! and both sides would have to write JSON in the same way.

use std::time::Duration;

use crate::id::OperationId;
use crate::time::Timestamp;

/// Header with the signature: Ed25519, 64 bytes in base64url without padding.
pub const SIGNATURE: &str = "Ktrdr-Signature";

/// Header with the public key that the signature is for, as an nkey.
pub const KEY: &str = "Ktrdr-Signature-Key";

/// Header with the time of the signature in milliseconds since 1970.
pub const TIME: &str = "Ktrdr-Signature-Time";

/// How far the time of a signature and the time at which the stream stored the message may be apart,
/// at most. Clocks of backends must be right within it.
const MAX_DISTANCE: Duration = Duration::from_secs(3_600);

/// The failure of an operation whose start request no worker runs because of its signature.
pub const NOT_SIGNED: &str = "not_signed";

/// The text that is signed. `digest` is the SHA-256 of the message's payload.
///
/// Its first line keeps it apart from everything else that the same kind of key may sign. Subjects
/// and ids have no line breaks, so no two messages have the same text.
///
/// ```
/// use ktrdr_protocol::id::OperationId;
/// use ktrdr_protocol::signed_start::statement;
/// use ktrdr_protocol::time::Timestamp;
///
/// let id = OperationId::new("op-1")?;
/// let text = statement("ktrdr.start.dummy.any", &id, Timestamp::from_millis(7), &[0xab; 32]);
/// assert!(text.starts_with("ktrdr start request, signed, version 1\nktrdr.start.dummy.any\nop-1\n7\nabab"));
/// # Ok::<(), ktrdr_protocol::id::InvalidName>(())
/// ```
pub fn statement(
    subject: &str,
    operation_id: &OperationId,
    signed_at: Timestamp,
    digest: &[u8; 32],
) -> String {
    use std::fmt::Write as _;

    let mut text = String::with_capacity(256);
    text.push_str("ktrdr start request, signed, version 1\n");
    for line in [subject, operation_id.as_str()] {
        text.push_str(line);
        text.push('\n');
    }
    // Writing into a string cannot fail.
    let _ = writeln!(text, "{}", signed_at.as_millis());
    for byte in digest {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    text
}

/// Whether a message was stored near the time of its signature: within an hour, or within a quarter
/// of the retention if that is shorter.
///
/// A copy of a signed message is stored later than the message itself. Within the retention it is
/// harmless, because the operation's log says what became of it. This check refuses it long before
/// the log is gone, also when the clocks of backend and stream differ by as much as it allows.
pub fn is_timely(signed_at: Timestamp, stored_at: Timestamp, retention: Duration) -> bool {
    let most = MAX_DISTANCE.min(retention / 4).as_millis();
    let distance = signed_at.as_millis().abs_diff(stored_at.as_millis());
    u128::from(distance) <= most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_changes_the_statement() {
        let id = |text: &str| OperationId::new(text).unwrap();
        let at = Timestamp::from_millis;
        let base = statement("a.start.b.any", &id("x"), at(1), &[0; 32]);

        for other in [
            statement("a.start.b.gpu", &id("x"), at(1), &[0; 32]),
            statement("a.start.c.any", &id("x"), at(1), &[0; 32]),
            statement("b.start.b.any", &id("x"), at(1), &[0; 32]),
            statement("a.start.b.any", &id("y"), at(1), &[0; 32]),
            statement("a.start.b.any", &id("x"), at(2), &[0; 32]),
            statement("a.start.b.any", &id("x"), at(1), &[1; 32]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_copy_is_refused_before_the_log_is_gone() {
        let (hour, week) = (Duration::from_secs(3_600), Duration::from_secs(7 * 86_400));
        let signed = Timestamp::EPOCH.plus(week);

        assert!(is_timely(signed, signed.plus(hour), week));
        assert!(is_timely(signed, signed.minus(hour), week));
        assert!(!is_timely(
            signed,
            signed.plus(hour + Duration::from_millis(1)),
            week
        ));
        assert!(!is_timely(signed, signed.minus(2 * hour), week));

        assert!(!is_timely(signed, signed.plus(hour), hour));
        assert!(is_timely(signed, signed.plus(hour / 4), hour));
    }
}
