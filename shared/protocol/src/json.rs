//! Measures JSON without keeping it.

use std::io;

use serde::Serialize;

/// Bytes of `value` as JSON text; 0 when it cannot be written.
///
/// ```
/// assert_eq!(ktrdr_protocol::json::length(&serde_json::json!({"a": [1, "é"]})), 14);
/// ```
pub fn length(value: &impl Serialize) -> usize {
    struct Counted(usize);
    impl io::Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut counted = Counted(0);
    match serde_json::to_writer(&mut counted, value) {
        Ok(()) => counted.0,
        Err(_) => 0,
    }
}
