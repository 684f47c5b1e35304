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

    pub(crate) fn reader(&self) -> &R {
        &self.reader
    }

    /// The next line without its end; `None` at the end of the input. What follows the last end of a
    /// line is a line, too. Cancel safe: what was read stays in the buffer.
    ///
    /// # Errors
    /// When the pipe cannot be read, or a line is too long.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        loop {
            if let Some(line) = self.take_line()? {
                return Ok(Some(line));
            }
            if self.is_at_end {
                return Ok(self.rest());
            }
            self.fill().await?;
        }
    }

    /// The next line of what was read already.
    ///
    /// # Errors
    /// When it is too long.
    pub(crate) fn take_line(&mut self) -> std::io::Result<Option<Bytes>> {
        if let Some(line) = self.whole_line() {
            return Ok(Some(line));
        }
        if self.buffer.len() <= self.limit {
            return Ok(None);
        }
        match self.overlong {
            Overlong::Cut => {
                let end = char_border(&self.buffer, self.limit);
                Ok(Some(self.take(end, 0)))
            }
            Overlong::Refuse => Err(std::io::Error::other(format!(
                "a line is longer than {} bytes",
                self.limit
            ))),
        }
    }

    /// What was read and has no end of a line.
    pub(crate) fn rest(&mut self) -> Option<Bytes> {
        let left = self.buffer.len();
        (left > 0).then(|| self.take(left, 0))
    }

    /// Reads once. Returns how many bytes came: 0 at the end of the input. Cancel safe.
    ///
    /// # Errors
    /// When the pipe cannot be read.
    pub(crate) async fn fill(&mut self) -> std::io::Result<usize> {
        self.buffer.reserve(CHUNK);
        let read = self.reader.read_buf(&mut self.buffer).await?;
        self.is_at_end = read == 0;
        Ok(read)
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

/// Where to cut a text, so that no character is cut: at `limit` bytes or a little before.
pub(crate) fn char_border(text: &[u8], limit: usize) -> usize {
    let begins_char = |at: usize| text.get(at).is_none_or(|byte| byte & 0xC0 != 0x80);
    // A character has at most four bytes. What is no text is cut anywhere.
    let border = (limit.saturating_sub(3)..=limit).rev();
    border
        .filter(|&at| at > 0)
        .find(|&at| begins_char(at))
        .unwrap_or(limit)
        .min(text.len())
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

    #[tokio::test]
    async fn a_line_is_cut_between_two_characters() {
        let cut = all("abcdéf€\n".as_bytes(), Overlong::Cut).await;

        let texts: Vec<_> = cut.into_iter().map(Result::unwrap).collect();
        assert_eq!(texts, ["abcd", "éf", "€"]);
        assert_eq!(char_border(&[0x80; 9], 5), 5);
        assert_eq!(char_border(b"ab", 5), 2);
    }
}
