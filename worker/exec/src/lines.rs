//! Lines from a pipe, whatever comes: none is longer than a limit.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is read at once.
const CHUNK: usize = 16 * 1024;

/// What happens to a line that is longer than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overlong {
    /// It is an error.
    Refuse,
    /// It becomes several lines.
    Cut,
}

/// Reads lines.
pub(crate) struct Lines<R> {
    reader: R,
    buffer: BytesMut,
    /// How many bytes of `buffer` are known to hold no end of a line.
    searched: usize,
    limit: usize,
    overlong: Overlong,
    is_at_end: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R, limit: usize, overlong: Overlong) -> Self {
        Self {
            reader,
            buffer: BytesMut::new(),
            searched: 0,
            limit,
            overlong,
            is_at_end: false,
        }
    }

    /// The next line without its end; `None` at the end of the input. What follows the last end of a
    /// line is a line, too. Cancel safe: what was read stays in the buffer.
    ///
    /// # Errors
    /// When the pipe cannot be read, or a line is too long.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        loop {
            if let Some(line) = self.whole_line() {
                return Ok(Some(line));
            }
            if self.buffer.len() > self.limit {
                return match self.overlong {
                    Overlong::Cut => Ok(Some(self.take(self.limit, 0))),
                    Overlong::Refuse => Err(std::io::Error::other(format!(
                        "a line is longer than {} bytes",
                        self.limit
                    ))),
                };
            }
            if self.is_at_end {
                let left = self.buffer.len();
                return Ok((left > 0).then(|| self.take(left, 0)));
            }

            self.buffer.reserve(CHUNK);
            self.is_at_end = self.reader.read_buf(&mut self.buffer).await? == 0;
        }
    }

    fn whole_line(&mut self) -> Option<Bytes> {
        let new = &self.buffer[self.searched..];
        let Some(at) = new.iter().position(|&byte| byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let end = self.searched + at;
        (end <= self.limit).then(|| self.take(end, 1))
    }

    /// Takes a line of this length, and skips as many bytes behind it.
    fn take(&mut self, length: usize, skip: usize) -> Bytes {
        let mut line = self.buffer.split_to(length + skip).freeze();
        line.truncate(length);
        self.searched = 0;
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(input: &[u8], overlong: Overlong) -> Vec<Result<String, String>> {
        let mut lines = Lines::new(input, 5, overlong);
        let mut found = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(line)) => found.push(Ok(String::from_utf8_lossy(&line).into_owned())),
                Ok(None) => return found,
                Err(error) => {
                    found.push(Err(error.to_string()));
                    return found;
                }
            }
        }
    }

    #[tokio::test]
    async fn lines_are_taken_whole_and_the_last_one_needs_no_end() {
        let found = all(b"a\n\nbcdef\ng", Overlong::Refuse).await;
        let texts: Vec<_> = found.into_iter().map(Result::unwrap).collect();
        assert_eq!(texts, ["a", "", "bcdef", "g"]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_refused_or_cut() {
        let refused = all(b"a\nbcdefg\n", Overlong::Refuse).await;
        assert_eq!(refused[0], Ok("a".to_owned()));
        assert!(refused[1].clone().unwrap_err().contains("longer than 5"));

        let cut = all(b"abcdefgh\nx\n", Overlong::Cut).await;
        let texts: Vec<_> = cut.into_iter().map(Result::unwrap).collect();
        assert_eq!(texts, ["abcde", "fgh", "x"]);
    }
}
