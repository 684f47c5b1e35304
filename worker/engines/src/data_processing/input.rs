//! How the source file is written: the parameter `input`.

use std::borrow::Cow;

use encoding_rs::Encoding;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::clean::different_separators;
use super::error::DataError;
use super::numbers::{Decimal, NumberFormat, Thousands};
use super::reader::Dialect;
use crate::defaults::is_default;

/// The most lines that can be skipped.
const MAX_SKIPPED: u32 = 1_000_000;

/// How the source file is written. The default is CSV as in RFC 4180, in UTF-8.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("allOf" = different_characters()))]
pub struct InputOptions {
    /// The character between two cells. By default a comma.
    #[serde(skip_serializing_if = "is_default")]
    pub delimiter: Delimiter,
    /// The character around a cell that holds delimiters. By default a double quote; null when no
    /// cell is quoted.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(with = "Option<QuoteMark>")]
    pub quote: Quote,
    /// The character encoding. By default UTF-8, or UTF-16 when the file begins with its mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<EncodingName>,
    /// The mark before the decimals of a number. By default a point.
    #[serde(skip_serializing_if = "is_default")]
    pub decimal: Decimal,
    /// The separator between groups of three digits. By default there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thousands: Option<Thousands>,
    /// Lines to skip at the beginning, before the header.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(range(max = 1_000_000))]
    pub skip_rows: u32,
    /// Lines that begin with this character are skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<Comment>,
    /// What to do with a record that has more or fewer cells than the header. By default it fails
    /// an operation that writes, and is counted by one that only validates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ragged: Option<Ragged>,
    /// Records may end with a delimiter: an empty last cell that is one too many is dropped, and so
    /// is a last column without a name.
    #[serde(skip_serializing_if = "is_default")]
    pub trailing_delimiter: bool,
}

/// What to do with a record that has more or fewer cells than the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ragged {
    /// The operation fails.
    Fail,
    /// The row is dropped.
    Drop,
    /// Missing cells are added at the end; cells that are too many are cut off.
    Pad,
}

/// A delimiter: one ASCII character that is no letter, digit, quote or line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Delimiter(u8);

impl Default for Delimiter {
    fn default() -> Self {
        Self(b',')
    }
}

impl TryFrom<String> for Delimiter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_bytes() {
            [byte]
                if byte.is_ascii()
                    && !byte.is_ascii_alphanumeric()
                    && !matches!(byte, b'"' | b'\n' | b'\r' | 0) =>
            {
                Ok(Self(*byte))
            }
            _ => Err(format!(
                "delimiter {text:?} is not one ASCII character that is no letter, digit, quote or line end"
            )),
        }
    }
}

impl From<Delimiter> for String {
    fn from(delimiter: Delimiter) -> Self {
        char::from(delimiter.0).to_string()
    }
}

impl JsonSchema for Delimiter {
    fn schema_name() -> Cow<'static, str> {
        "Delimiter".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[\\x01-\\x09\\x0b\\x0c\\x0e-!#-/:-@\\[-`{-~]$",
            "examples": [",", ";", "\t", "|"],
        })
    }
}

/// The quote of a file; none when cells are not quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quote(Option<QuoteMark>);

/// A quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum QuoteMark {
    /// A double quote.
    #[serde(rename = "\"")]
    Double,
    /// A single quote.
    #[serde(rename = "'")]
    Single,
}

impl Default for Quote {
    fn default() -> Self {
        Self(Some(QuoteMark::Double))
    }
}

impl Quote {
    fn byte(self) -> Option<u8> {
        self.0.map(|mark| match mark {
            QuoteMark::Double => b'"',
            QuoteMark::Single => b'\'',
        })
    }
}

/// The character that begins a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each is the character that it is renamed to")]
pub enum Comment {
    #[serde(rename = "#")]
    Hash,
    #[serde(rename = ";")]
    Semicolon,
    #[serde(rename = "%")]
    Percent,
    #[serde(rename = "!")]
    Exclamation,
    #[serde(rename = "/")]
    Slash,
}

impl Comment {
    fn byte(self) -> u8 {
        match self {
            Self::Hash => b'#',
            Self::Semicolon => b';',
            Self::Percent => b'%',
            Self::Exclamation => b'!',
            Self::Slash => b'/',
        }
    }
}

/// The name of a character encoding, as the WHATWG Encoding Standard has it. Case does not matter.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EncodingName {
    name: String,
    encoding: &'static Encoding,
}

/// Names in the schema. All of them are known to `encoding_rs`.
const ENCODINGS: &[&str] = &[
    "utf-8",
    "utf-16",
    "utf-16le",
    "utf-16be",
    "windows-1252",
    "iso-8859-1",
    "latin1",
    "iso-8859-2",
    "iso-8859-3",
    "iso-8859-4",
    "iso-8859-5",
    "iso-8859-6",
    "iso-8859-7",
    "iso-8859-8",
    "iso-8859-9",
    "iso-8859-10",
    "iso-8859-13",
    "iso-8859-14",
    "iso-8859-15",
    "iso-8859-16",
    "windows-1250",
    "windows-1251",
    "windows-1253",
    "windows-1254",
    "windows-1255",
    "windows-1256",
    "windows-1257",
    "windows-1258",
    "windows-874",
    "ibm866",
    "koi8-r",
    "koi8-u",
    "macintosh",
    "gbk",
    "gb18030",
    "big5",
    "euc-jp",
    "shift_jis",
    "iso-2022-jp",
    "euc-kr",
];

impl TryFrom<String> for EncodingName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let lower = name.to_ascii_lowercase();
        match Encoding::for_label_no_replacement(lower.as_bytes()) {
            Some(encoding) if ENCODINGS.contains(&&*lower) => Ok(Self { name, encoding }),
            _ => Err(format!(
                "encoding {name:?} is not known: use a name such as utf-8, utf-16le or windows-1252"
            )),
        }
    }
}

impl From<EncodingName> for String {
    fn from(encoding: EncodingName) -> Self {
        encoding.name
    }
}

impl JsonSchema for EncodingName {
    fn schema_name() -> Cow<'static, str> {
        "EncodingName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": ENCODINGS })
    }
}

impl InputOptions {
    /// The encoding that the request gives.
    pub(super) fn encoding(&self) -> Option<&'static Encoding> {
        self.encoding.as_ref().map(|name| name.encoding)
    }

    /// How the file writes numbers.
    ///
    /// # Errors
    /// A request error when decimals and thousands have the same separator.
    pub(super) fn numbers(&self) -> Result<NumberFormat, DataError> {
        NumberFormat::new(self.decimal, self.thousands)
            .map_err(|error| DataError::Request(format!("input: {error}")))
    }

    /// How records are written.
    ///
    /// # Errors
    /// A request error when one character has two meanings.
    pub(super) fn dialect(&self) -> Result<Dialect, DataError> {
        let (delimiter, quote) = (self.delimiter.0, self.quote.byte());
        let comment = self.comment.map(Comment::byte);
        let refuse = |reason: &str| Err(DataError::Request(format!("input: {reason}")));

        if quote == Some(delimiter) {
            return refuse("delimiter and quote are the same character: give different ones");
        }
        if comment == Some(delimiter) {
            return refuse("delimiter and comment are the same character: give different ones");
        }
        if self.skip_rows > MAX_SKIPPED {
            return refuse("skip_rows may be at most 1000000");
        }

        Ok(Dialect {
            delimiter,
            quote,
            comment,
            skip_lines: self.skip_rows,
        })
    }
}

/// The conditions that one character has one meaning, for a schema.
fn different_characters() -> serde_json::Value {
    const COMMENTS: [&str; 5] = ["#", ";", "%", "!", "/"];

    let mut conditions = different_separators();
    let delimiter = |mark: &str| serde_json::json!({"properties": {"delimiter": {"const": mark}}, "required": ["delimiter"]});
    // A list of what is allowed: a violation shows it.
    let only = |name: &str, allowed: &[&str]| {
        let allowed: Vec<_> = allowed.iter().copied().map(Some).chain([None]).collect();
        serde_json::json!({"properties": {name: {"enum": allowed}}})
    };

    if let Some(conditions) = conditions.as_array_mut() {
        conditions.push(serde_json::json!({"if": delimiter("'"), "then": only("quote", &["\""])}));
        for mark in COMMENTS {
            let others: Vec<_> = COMMENTS
                .into_iter()
                .filter(|other| *other != mark)
                .collect();
            let condition =
                serde_json::json!({"if": delimiter(mark), "then": only("comment", &others)});
            conditions.push(condition);
        }
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_schema_and_the_options_agree() {
        let schema = schemars::schema_for!(InputOptions).to_value();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let options = |value: &serde_json::Value| {
            let options: InputOptions = serde_json::from_value(value.clone()).ok()?;
            options.numbers().ok()?;
            options.dialect().ok()
        };

        for good in [
            json!({}),
            json!({"delimiter": "\t", "quote": "'", "comment": "#", "skip_rows": 3}),
            json!({"delimiter": ";", "decimal": ",", "thousands": ".", "ragged": "pad"}),
            json!({"quote": null, "delimiter": "'", "trailing_delimiter": true}),
            json!({"delimiter": "\u{1}", "thousands": " ", "encoding": "windows-1252"}),
        ] {
            assert!(validator.is_valid(&good), "{good}");
            assert!(options(&good).is_some(), "{good}");
        }
        for bad in [
            json!({"delimiter": ""}),
            json!({"delimiter": ";;"}),
            json!({"delimiter": "a"}),
            json!({"delimiter": "\n"}),
            json!({"delimiter": "\""}),
            json!({"quote": "`"}),
            json!({"delimiter": "'", "quote": "'"}),
            json!({"delimiter": ";", "comment": ";"}),
            json!({"decimal": ",", "thousands": ","}),
            json!({"thousands": "."}),
            json!({"decimal": ";"}),
            json!({"encoding": "utf-7"}),
            json!({"encoding": "replacement"}),
            json!({"ragged": "ignore"}),
            json!({"skip_rows": -1}),
            json!({"skip_rows": 1_000_001}),
            json!({"header": true}),
        ] {
            assert!(!validator.is_valid(&bad), "{bad}");
            assert!(options(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn every_encoding_of_the_schema_is_known() {
        for name in ENCODINGS {
            assert!(
                EncodingName::try_from(String::from(*name)).is_ok(),
                "{name}"
            );
        }
    }
}
