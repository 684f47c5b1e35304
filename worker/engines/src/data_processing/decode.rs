//! Turns the bytes of a source file into UTF-8: gzip and other character encodings.
//!
//! The problem: a file of a few kilobytes can expand to terabytes. The reader of records holds one
//! record in memory, but the run would read, and write, all of it. So a gzip file may expand to a
//! multiple of its size and no further.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::rc::Rc;

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};
use flate2::read::MultiGzDecoder;

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// The first bytes of a gzip file.
const GZIP: &[u8] = b"\x1f\x8b";

/// How many times its size a gzip file may expand to. Tables expand 5 to 50 times.
const MAX_EXPANSION: u64 = 200;

/// A gzip file may expand to this many bytes, however small it is.
const ALWAYS_ALLOWED: u64 = 64 * 1024 * 1024;

/// A source of UTF-8 text.
pub(super) struct Decoded<'a> {
    input: Box<dyn Read + 'a>,
    /// Bytes of the file read so far. None when the text is the file.
    file_bytes: Option<Rc<Cell<u64>>>,
}

/// What a file is, by its first bytes and by the request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Coding {
    is_gzip: bool,
    /// None for UTF-8, which is not decoded.
    encoding: Option<&'static Encoding>,
}

impl Coding {
    /// Looks at the first bytes of `file`. `asked` is the encoding that the request gives.
    pub(super) fn of(
        mut file: &File,
        len: u64,
        asked: Option<&'static Encoding>,
    ) -> io::Result<Self> {
        file.rewind()?;
        let is_gzip = first_bytes(file)? == GZIP;
        let raw = Self {
            is_gzip,
            encoding: None,
        };
        let encoding = match asked {
            Some(encoding) => Some(encoding),
            None => mark(&first_bytes(raw.open(file, len)?)?),
        };

        Ok(Self {
            is_gzip,
            encoding: encoding.filter(|encoding| *encoding != UTF_8),
        })
    }

    /// Whether the text is the file, byte for byte.
    pub(super) fn is_plain(self) -> bool {
        !self.is_gzip && self.encoding.is_none()
    }

    /// Reads `file`, which has `len` bytes, from its first byte on.
    pub(super) fn open(self, mut file: &File, len: u64) -> io::Result<Decoded<'_>> {
        file.rewind()?;

        if self.is_plain() {
            return Ok(Decoded {
                input: Box::new(file),
                file_bytes: None,
            });
        }

        let file_bytes = Rc::new(Cell::new(0));
        let counted = Counted {
            file,
            read: Rc::clone(&file_bytes),
        };
        let bytes: Box<dyn Read + '_> = if self.is_gzip {
            Box::new(Limited {
                input: MultiGzDecoder::new(BufReader::with_capacity(CHUNK, counted)),
                left: len.saturating_mul(MAX_EXPANSION).max(ALWAYS_ALLOWED),
            })
        } else {
            Box::new(counted)
        };
        let input: Box<dyn Read + '_> = match self.encoding {
            Some(encoding) => Box::new(Transcoder::new(bytes, encoding)),
            None => bytes,
        };

        Ok(Decoded {
            input,
            file_bytes: Some(file_bytes),
        })
    }

    /// Reads `file` behind the first `offset` bytes of its text.
    pub(super) fn open_at(self, mut file: &File, len: u64, offset: u64) -> io::Result<Decoded<'_>> {
        if self.is_plain() {
            let decoded = self.open(file, len)?;
            file.seek(SeekFrom::Start(offset))?;
            return Ok(decoded);
        }

        // Neither form can be entered in the middle.
        let mut decoded = self.open(file, len)?;
        let skipped = io::copy(&mut decoded.by_ref().take(offset), &mut io::sink())?;
        if skipped < offset {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(decoded)
    }
}

impl Decoded<'_> {
    /// Bytes of the file read so far. None when the text is the file.
    pub(super) fn file_bytes(&self) -> Option<u64> {
        self.file_bytes.as_ref().map(|bytes| bytes.get())
    }
}

impl Read for Decoded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

/// The encoding that the byte order mark at the beginning stands for.
fn mark(first: &[u8]) -> Option<&'static Encoding> {
    match first {
        b"\xff\xfe" => Some(UTF_16LE),
        b"\xfe\xff" => Some(UTF_16BE),
        _ => None,
    }
}

/// The first two bytes, or fewer when there are no more.
fn first_bytes(input: impl Read) -> io::Result<Vec<u8>> {
    let mut first = Vec::new();
    match input.take(2).read_to_end(&mut first) {
        Ok(_) => Ok(first),
        // The run that reads on says what is wrong.
        Err(error) if is_bad_data(&error) => Ok(first),
        Err(error) => Err(error),
    }
}

/// Whether an error of a reader is about the content of the file. Another attempt fails the same
/// way.
pub(super) fn is_bad_data(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof
    )
}

/// Counts the bytes read from a file.
struct Counted<'a> {
    file: &'a File,
    read: Rc<Cell<u64>>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.read.set(self.read.get() + read as u64);
        Ok(read)
    }
}

/// Fails when more was read than allowed.
struct Limited<R> {
    input: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::new(
                ErrorKind::InvalidData,
                format!(
                    "the gzip file expands to more than {MAX_EXPANSION} times its size: decompress it first"
                ),
            )
        })?;
        Ok(read)
    }
}

/// Decodes text.
struct Transcoder<R> {
    input: R,
    encoding: &'static Encoding,
    decoder: Decoder,
    bytes: Vec<u8>,
    text: String,
    /// How much of the text was read.
    at: usize,
    at_end: bool,
}

impl<R: Read> Transcoder<R> {
    fn new(input: R, encoding: &'static Encoding) -> Self {
        Self {
            input,
            encoding,
            // A byte order mark in the file decides between the two forms of UTF-16.
            decoder: encoding.new_decoder(),
            bytes: vec![0; CHUNK],
            text: String::new(),
            at: 0,
            at_end: false,
        }
    }

    /// Decodes the next chunk.
    fn decode(&mut self) -> io::Result<()> {
        let read = self.input.read(&mut self.bytes)?;
        self.at_end = read == 0;
        self.text.clear();
        self.at = 0;

        let most = self
            .decoder
            .max_utf8_buffer_length_without_replacement(read);
        self.text.reserve(most.unwrap_or(4 * CHUNK));
        let (result, _) = self.decoder.decode_to_string_without_replacement(
            &self.bytes[..read],
            &mut self.text,
            self.at_end,
        );

        match result {
            DecoderResult::InputEmpty => Ok(()),
            DecoderResult::OutputFull | DecoderResult::Malformed(..) => Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("the text is not valid {}", self.encoding.name()),
            )),
        }
    }
}

impl<R: Read> Read for Transcoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.text.len() && !self.at_end {
            match self.decode() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                decoded => decoded?,
            }
        }

        let rest = &self.text.as_bytes()[self.at..];
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        self.at += read;

        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    }

    fn decode(bytes: &[u8], asked: Option<&'static Encoding>) -> io::Result<String> {
        let (file, len) = (file(bytes), bytes.len() as u64);
        let mut text = String::new();
        Coding::of(&file, len, asked)?
            .open(&file, len)?
            .read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn files_are_recognised() {
        let text = "a,b\n1,\u{20ac}\n";
        let with_mark = format!("\u{feff}{text}");

        for bytes in [
            text.as_bytes().to_vec(),
            gzip(text.as_bytes()),
            [gzip(b"a,b\n"), gzip("1,\u{20ac}\n".as_bytes())].concat(),
            utf16(&with_mark, u16::to_le_bytes),
            utf16(&with_mark, u16::to_be_bytes),
            gzip(&utf16(&with_mark, u16::to_be_bytes)),
        ] {
            assert_eq!(decode(&bytes, None).unwrap(), text);
        }

        let without_mark = utf16(text, u16::to_be_bytes);
        assert_eq!(decode(&without_mark, Some(UTF_16BE)).unwrap(), text);
        assert_eq!(
            decode(b"K\xf6ln", Some(encoding_rs::WINDOWS_1252)).unwrap(),
            "K\u{f6}ln"
        );
        assert_eq!(decode(b"", None).unwrap(), "");
        assert_eq!(decode(b"\x1f", None).unwrap(), "\x1f");
    }

    #[test]
    fn bad_content_is_told_from_a_bad_disk() {
        let mut damaged = gzip(b"a,b\n1,2\n");
        let crc = damaged.len() - 8;
        damaged[crc] ^= 1;
        let whole = gzip(b"a,b\n1,2\n");

        for (bytes, asked) in [
            (&damaged[..], None),
            (&whole[..whole.len() - 3], None),
            (b"\x1f\x8bno gzip", None),
            (b"a\xff\xff\xff", Some(encoding_rs::SHIFT_JIS)),
            (b"\xff\xfea\0b", None),
        ] {
            let error = decode(bytes, asked).unwrap_err();
            assert!(is_bad_data(&error), "{error}");
        }
    }

    #[test]
    fn a_small_file_does_not_expand_without_end() {
        let zeros = vec![b'0'; 16 * 1024 * 1024];
        let bomb: Vec<u8> = (0..8).flat_map(|_| gzip(&zeros)).collect();
        assert!(bomb.len() < 1024 * 1024);

        let error = decode(&bomb, None).unwrap_err();

        assert!(error.to_string().contains("expands to more"), "{error}");
    }

    #[test]
    fn reading_goes_on_behind_any_byte_of_the_text() {
        let text = "a,b\n1,\u{20ac}\n".repeat(100);
        for bytes in [
            text.as_bytes().to_vec(),
            gzip(text.as_bytes()),
            utf16(&format!("\u{feff}{text}"), u16::to_le_bytes),
        ] {
            let (file, len) = (file(&bytes), bytes.len() as u64);
            let coding = Coding::of(&file, len, None).unwrap();
            let mut rest = String::new();
            let mut decoded = coding.open_at(&file, len, 500).unwrap();
            decoded.read_to_string(&mut rest).unwrap();

            assert_eq!(rest, text[500..]);
        }
    }
}
