//! Answers to connections that get no other answer.

use std::sync::LazyLock;

use ktrdr_protocol::rest::{ErrorCode, Problem};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of a refused request that are read. A client that is still sending when the connection is
/// closed would lose the answer.
const MAX_DISCARDED: u64 = 64 * 1024;

/// The answer to a connection beyond the limit.
pub(super) static TOO_MANY: LazyLock<String> = LazyLock::new(|| {
    let text = "The server has as many connections as it can hold. Try again";
    let again = "retry-after: 1\r\n";
    answer(
        "503 Service Unavailable",
        again,
        ErrorCode::Overloaded,
        text,
    )
});

/// The answer to plain HTTP where TLS is spoken.
pub(super) static TLS_REQUIRED: LazyLock<String> = LazyLock::new(|| {
    let text = "This port takes only HTTPS: use https:// in the address";
    answer("400 Bad Request", "", ErrorCode::TlsRequired, text)
});

fn answer(status: &str, headers: &str, code: ErrorCode, text: &str) -> String {
    let problem = Problem::new(code, text);
    let body = serde_json::to_string(&problem).unwrap_or_default();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends the answer, and reads until the client has it.
pub(super) async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) {
    let refuse = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MAX_DISCARDED), &mut tokio::io::sink()).await
    };
    if let Err(error) = refuse.await {
        tracing::trace!(%error, "a refused client was gone");
    }
}
