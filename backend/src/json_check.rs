//! Checks that bytes which arrive piece by piece are one JSON value.
//!
//! The problem: a large result is inserted into an answer while it is read from the object store.
//! Content that is not JSON could end the surrounding document early and forge its other fields.
//! To check it first, it would have to be read twice or kept in memory.
//!
//! How it is solved: every piece is checked before it is sent, so what a client received is always
//! the beginning of a JSON value. Only the open brackets are remembered between two pieces.
//!
//! Rejected: `serde_json`, which needs the whole text or a thread that waits for it; and push
//! parsers such as `actson`, which keep whole strings in memory.

use std::fmt;

/// Brackets that may be open at a time. Deeper content is refused, so that it cannot fill the
/// memory.
const MAX_DEPTH: usize = 10_000;

/// Where in a JSON text the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// A value.
    Value,
    /// A value, or the end of the array that has just begun.
    ValueOrEnd,
    /// The name of a member, or the end of the object that has just begun.
    NameOrEnd,
    /// The name of a member.
    Name,
    /// The colon behind a name.
    Colon,
    /// Whatever may follow a value: a comma, a closing bracket, or the end of the text.
    AfterValue,
    /// The rest of a string.
    Text(Text),
    /// The rest of `true`, `false` or `null`.
    Word(&'static [u8]),
    /// The rest of a number.
    Number(Number),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Plain,
    /// The character behind a backslash.
    Escape,
    /// So many hexadecimal digits.
    Hex(u8),
    /// So many further bytes of a character, of which the next one is within these bounds.
    Utf8 {
        left: u8,
        low: u8,
        high: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    /// Behind the minus sign.
    Minus,
    /// Behind a leading zero.
    Zero,
    Integer,
    /// Behind the decimal point.
    Point,
    Fraction,
    /// Behind the `e`.
    Exponent,
    /// Behind the sign of the exponent.
    Sign,
    ExponentDigits,
}

impl Number {
    /// Whether the number may end here.
    fn is_whole(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Integer | Self::Fraction | Self::ExponentDigits
        )
    }

    fn next(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Minus, b'0') => Some(Self::Zero),
            (Self::Minus, b'1'..=b'9') | (Self::Integer, b'0'..=b'9') => Some(Self::Integer),
            (Self::Zero | Self::Integer, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Integer | Self::Fraction, b'e' | b'E') => Some(Self::Exponent),
            (Self::Exponent, b'+' | b'-') => Some(Self::Sign),
            (Self::Exponent | Self::Sign | Self::ExponentDigits, b'0'..=b'9') => {
                Some(Self::ExponentDigits)
            }
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bracket {
    Array,
    Object,
}

/// The content is not one JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotJson;

impl std::error::Error for NotJson {}

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the content is not one JSON value")
    }
}

/// The check of one text.
#[derive(Debug)]
pub struct JsonCheck {
    expect: Expect,
    open: Vec<Bracket>,
    /// The string that is read is the name of a member.
    is_name: bool,
}

impl Default for JsonCheck {
    fn default() -> Self {
        Self {
            expect: Expect::Value,
            open: Vec::new(),
            is_name: false,
        }
    }
}

impl JsonCheck {
    /// Checks the next piece.
    ///
    /// # Errors
    /// [`NotJson`] when nothing that begins like this is a JSON value.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), NotJson> {
        for &byte in piece {
            self.expect = self.next(byte).ok_or(NotJson)?;
        }
        Ok(())
    }

    /// Checks that the value is whole.
    ///
    /// # Errors
    /// [`NotJson`] when something is missing.
    pub fn finish(&self) -> Result<(), NotJson> {
        let is_whole = match self.expect {
            Expect::AfterValue => true,
            Expect::Number(number) => number.is_whole(),
            _ => false,
        };
        if is_whole && self.open.is_empty() {
            Ok(())
        } else {
            Err(NotJson)
        }
    }

    /// What to expect behind this byte; `None` when it may not be here.
    fn next(&mut self, byte: u8) -> Option<Expect> {
        match self.expect {
            Expect::Text(text) => self.in_text(text, byte),
            Expect::Word(rest) => {
                let (first, rest) = rest.split_first()?;
                (*first == byte).then_some(if rest.is_empty() {
                    Expect::AfterValue
                } else {
                    Expect::Word(rest)
                })
            }
            Expect::Number(number) => match number.next(byte) {
                Some(number) => Some(Expect::Number(number)),
                // Only the byte behind a number says that it has ended.
                None if number.is_whole() && is_space(byte) => Some(Expect::AfterValue),
                None if number.is_whole() => self.after_value(byte),
                None => None,
            },
            expect if is_space(byte) => Some(expect),
            Expect::AfterValue => self.after_value(byte),
            Expect::Colon => (byte == b':').then_some(Expect::Value),
            Expect::ValueOrEnd if byte == b']' => self.close(Bracket::Array),
            Expect::NameOrEnd if byte == b'}' => self.close(Bracket::Object),
            Expect::Name | Expect::NameOrEnd => {
                self.is_name = true;
                (byte == b'"').then_some(Expect::Text(Text::Plain))
            }
            Expect::Value | Expect::ValueOrEnd => self.begin_value(byte),
        }
    }

    fn begin_value(&mut self, byte: u8) -> Option<Expect> {
        Some(match byte {
            b'"' => {
                self.is_name = false;
                Expect::Text(Text::Plain)
            }
            b'[' => return self.open(Bracket::Array, Expect::ValueOrEnd),
            b'{' => return self.open(Bracket::Object, Expect::NameOrEnd),
            b't' => Expect::Word(b"rue"),
            b'f' => Expect::Word(b"alse"),
            b'n' => Expect::Word(b"ull"),
            b'-' => Expect::Number(Number::Minus),
            b'0' => Expect::Number(Number::Zero),
            b'1'..=b'9' => Expect::Number(Number::Integer),
            _ => return None,
        })
    }

    fn after_value(&mut self, byte: u8) -> Option<Expect> {
        match (byte, self.open.last()?) {
            (b',', Bracket::Array) => Some(Expect::Value),
            (b',', Bracket::Object) => Some(Expect::Name),
            (b']', _) => self.close(Bracket::Array),
            (b'}', _) => self.close(Bracket::Object),
            _ => None,
        }
    }

    fn open(&mut self, bracket: Bracket, inside: Expect) -> Option<Expect> {
        if self.open.len() >= MAX_DEPTH {
            return None;
        }
        self.open.push(bracket);
        Some(inside)
    }

    fn close(&mut self, bracket: Bracket) -> Option<Expect> {
        (self.open.pop() == Some(bracket)).then_some(Expect::AfterValue)
    }

    fn in_text(&self, text: Text, byte: u8) -> Option<Expect> {
        let next = match (text, byte) {
            (Text::Plain, b'"') if self.is_name => return Some(Expect::Colon),
            (Text::Plain, b'"') => return Some(Expect::AfterValue),
            (Text::Plain, b'\\') => Text::Escape,
            (Text::Plain, 0x20..=0x7f) => Text::Plain,
            (Text::Plain, _) => utf8_behind(byte)?,
            (Text::Escape, b'u') => Text::Hex(4),
            (Text::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Text::Plain,
            (Text::Hex(1), _) if byte.is_ascii_hexdigit() => Text::Plain,
            (Text::Hex(left), _) if byte.is_ascii_hexdigit() => Text::Hex(left - 1),
            (Text::Utf8 { left, low, high }, _) if (low..=high).contains(&byte) => match left {
                1 => Text::Plain,
                _ => Text::Utf8 {
                    left: left - 1,
                    low: 0x80,
                    high: 0xbf,
                },
            },
            _ => return None,
        };
        Some(Expect::Text(next))
    }
}

/// Whether JSON allows the byte between values.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// What must follow the first byte of a character that is not ASCII (Unicode, table 3-7).
fn utf8_behind(first: u8) -> Option<Text> {
    let (left, low, high) = match first {
        0xc2..=0xdf => (1, 0x80, 0xbf),
        0xe0 => (2, 0xa0, 0xbf),
        0xe1..=0xec | 0xee | 0xef => (2, 0x80, 0xbf),
        0xed => (2, 0x80, 0x9f),
        0xf0 => (3, 0x90, 0xbf),
        0xf1..=0xf3 => (3, 0x80, 0xbf),
        0xf4 => (3, 0x80, 0x8f),
        _ => return None,
    };
    Some(Text::Utf8 { left, low, high })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn check(pieces: &[&[u8]]) -> bool {
        let mut check = JsonCheck::default();
        pieces.iter().all(|piece| check.push(piece).is_ok()) && check.finish().is_ok()
    }

    fn is_json(text: &[u8]) -> bool {
        std::str::from_utf8(text).is_ok() && serde_json::from_slice::<&RawValue>(text).is_ok()
    }

    #[test]
    fn what_is_json_is_accepted_and_nothing_else_is() {
        let texts = [
            "0",
            "-0",
            "-1.50e+9",
            "1E5",
            "01",
            "-",
            "1.",
            "1e",
            ".5",
            "+1",
            "1 2",
            "true",
            "tru",
            "truee",
            "null ",
            " [ ] ",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{}",
            "{\"a\":1}",
            "{\"a\" 1}",
            "{a:1}",
            "{\"a\":1,}",
            "{\"a\":{\"b\":[{}]}}",
            "{\"a\"}",
            "[}",
            "{]",
            "[[]",
            "]",
            "",
            " ",
            "\"\\u12aF\"",
            "\"\\u12g4\"",
            "\"\\x\"",
            "\"\\\\\"",
            "\"a",
            "\"a\nb\"",
            "\"\u{7f}\"",
            "\"é€😀\"",
            "1},\"status\":\"failed\"",
            "{}{}",
            "0 ",
            "[1 ,2\n]",
            "1 2",
            "{} \"x\"",
            "[1]]",
            "\u{feff}1",
            "\u{0}",
            "NaN",
            "\"\\ud800\"",
        ];
        for text in texts {
            assert_eq!(
                check(&[text.as_bytes()]),
                is_json(text.as_bytes()),
                "{text:?}"
            );
        }
        for bytes in [
            &b"\"\xff\""[..],
            b"\"\xc0\x80\"",
            b"\"\xed\xa0\x80\"",
            b"\"\xf4\x90\x80\x80\"",
            b"\"\xe2\x82\"",
        ] {
            assert!(!check(&[bytes]), "{bytes:?}");
        }
        let deep = "[".repeat(MAX_DEPTH + 1) + &"]".repeat(MAX_DEPTH + 1);
        assert!(!check(&[deep.as_bytes()]));
    }

    proptest! {
        #[test]
        fn it_agrees_with_serde_json_however_the_text_is_cut(
            text in "[\\[\\]{}:, \"a\\\\u0e1.\\-tné]{0,12}", cut in 0_usize..12,
        ) {
            let bytes = text.as_bytes();
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(check(&[head, tail]), is_json(bytes));
        }

        #[test]
        fn a_changed_byte_is_seen_as_serde_json_sees_it(at in 0_usize..60, byte: u8) {
            let mut text = br#"{"rows":[1,-2.5e3,null,true],"text":"a\"\u00e9 b","o":{"x":{}}}"#.to_vec();
            if let Some(changed) = text.get_mut(at) {
                *changed = byte;
            }
            prop_assert_eq!(check(&[&text]), is_json(&text));
        }
    }
}
