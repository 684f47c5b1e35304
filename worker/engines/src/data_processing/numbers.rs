//! How a file writes numbers: with a point or a comma, and with or without separators of thousands.
//!
//! Operations compute with plain numbers, `1299.99`. A column of the source keeps the form of the
//! file until `clean` checks its type: then its cells are rewritten in the plain form.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{is_integer, is_number, number, without_sign};

/// The mark before the decimals of a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Decimal {
    /// A point: `1299.99`.
    #[default]
    #[serde(rename = ".")]
    Point,
    /// A comma: `1299,99`.
    #[serde(rename = ",")]
    Comma,
}

/// The separator between groups of three digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Thousands {
    /// A comma: `1,299.99`.
    #[serde(rename = ",")]
    Comma,
    /// A point: `1.299,99`.
    #[serde(rename = ".")]
    Point,
    /// A space, also one that does not break: `1 299,99`.
    #[serde(rename = " ")]
    Space,
    /// An apostrophe: `1'299.99`.
    #[serde(rename = "'")]
    Apostrophe,
    /// An underscore: `1_299.99`.
    #[serde(rename = "_")]
    Underscore,
}

impl Thousands {
    /// The characters that are accepted.
    fn characters(self) -> &'static [char] {
        match self {
            Self::Comma => &[','],
            Self::Point => &['.'],
            Self::Space => &[' ', '\u{a0}', '\u{202f}'],
            Self::Apostrophe => &['\'', '\u{2019}'],
            Self::Underscore => &['_'],
        }
    }
}

/// How numbers are written. The default is the plain form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct NumberFormat {
    decimal: Decimal,
    thousands: Option<Thousands>,
}

/// The same character separates decimals and thousands.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "decimal and thousands are the same character: give different ones, such as decimal \",\" with thousands \".\""
)]
pub(super) struct SameSeparator;

impl NumberFormat {
    /// Numbers with these separators.
    pub(super) fn new(
        decimal: Decimal,
        thousands: Option<Thousands>,
    ) -> Result<Self, SameSeparator> {
        match (decimal, thousands) {
            (Decimal::Point, Some(Thousands::Point)) | (Decimal::Comma, Some(Thousands::Comma)) => {
                Err(SameSeparator)
            }
            _ => Ok(Self { decimal, thousands }),
        }
    }

    /// These numbers, with the separators of a request where it gives some.
    pub(super) fn or(
        self,
        decimal: Option<Decimal>,
        thousands: Option<Thousands>,
    ) -> Result<Self, SameSeparator> {
        match (decimal, thousands) {
            (None, None) => Ok(self),
            // The other separator of the file may be the one that is given here.
            (Some(decimal), None) => {
                Self::new(decimal, self.thousands).or_else(|_| Self::new(decimal, None))
            }
            (None, Some(thousands)) => Self::new(self.decimal, Some(thousands)),
            (Some(decimal), Some(thousands)) => Self::new(decimal, Some(thousands)),
        }
    }

    /// Whether numbers have the plain form already.
    pub(super) fn is_plain(self) -> bool {
        self == Self::default()
    }

    /// The number in `cell`, in the plain form. None when the cell is no number.
    pub(super) fn plain(self, cell: &[u8]) -> Option<Cow<'_, [u8]>> {
        let text = if self.is_plain() {
            Cow::Borrowed(cell)
        } else {
            Cow::Owned(self.convert(cell)?)
        };
        is_number(&text).then_some(text)
    }

    /// Whether `cell` is a number.
    pub(super) fn is_number(self, cell: &[u8]) -> bool {
        self.plain(cell).is_some()
    }

    /// Whether `cell` is an integer.
    pub(super) fn is_integer(self, cell: &[u8]) -> bool {
        self.plain(cell).is_some_and(|text| is_integer(&text))
    }

    /// The value of `cell`, if it is a number. Infinite for `1e999`.
    pub(super) fn number(self, cell: &[u8]) -> Option<f64> {
        if self.is_plain() {
            return number(cell);
        }
        number(&self.convert(cell)?)
    }

    /// Writes a plain number as this format has it, without separators of thousands.
    pub(super) fn localize(self, text: &mut [u8]) {
        if self.decimal == Decimal::Comma
            && let Some(point) = text.iter_mut().find(|byte| **byte == b'.')
        {
            *point = b',';
        }
    }

    /// Removes the separators of thousands and writes a point before the decimals. None when groups
    /// do not have three digits. The result may still be no number.
    fn convert(self, cell: &[u8]) -> Option<Vec<u8>> {
        let unsigned = without_sign(cell);
        let mut plain = cell[..cell.len() - unsigned.len()].to_vec();
        let text = std::str::from_utf8(unsigned).ok()?;
        let decimal = match self.decimal {
            Decimal::Point => '.',
            Decimal::Comma => ',',
        };
        let (whole, rest) = text.split_at(text.find([decimal, 'e', 'E']).unwrap_or(text.len()));
        let separators = self.thousands.map_or(&[][..], Thousands::characters);

        if whole.contains(separators) {
            let mut groups = whole.split(separators);
            let first = groups.next().unwrap_or_default();
            if !(1..=3).contains(&first.len()) || groups.any(|group| group.len() != 3) {
                return None;
            }
        }

        plain.extend(whole.chars().filter(|c| !separators.contains(c)).map(byte));

        match rest.strip_prefix(decimal) {
            Some(decimals) => {
                plain.push(b'.');
                plain.extend_from_slice(decimals.as_bytes());
            }
            None => plain.extend_from_slice(rest.as_bytes()),
        }

        // A plain point would make a second number of a text such as `1.5`.
        Some(plain)
    }
}

/// An ASCII character as a byte; another one as a byte that is in no number.
fn byte(c: char) -> u8 {
    match u8::try_from(c) {
        // In the whole part a point is no separator of decimals.
        Ok(byte) if byte.is_ascii() && byte != b'.' => byte,
        _ => b'?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(format: NumberFormat, cell: &str) -> Option<String> {
        let text = format.plain(cell.as_bytes())?;
        Some(String::from_utf8(text.into_owned()).unwrap())
    }

    #[test]
    fn numbers_of_other_places() {
        let german = NumberFormat::new(Decimal::Comma, Some(Thousands::Point)).unwrap();
        let french = NumberFormat::new(Decimal::Comma, Some(Thousands::Space)).unwrap();
        let american = NumberFormat::new(Decimal::Point, Some(Thousands::Comma)).unwrap();

        for (format, cell, text) in [
            (german, "1.299,99", Some("1299.99")),
            (german, "-1.234.567", Some("-1234567")),
            (german, "1299,99", Some("1299.99")),
            (german, "7", Some("7")),
            (german, ",5", Some(".5")),
            (german, "1,5e-3", Some("1.5e-3")),
            (german, "1299.99", None),
            (german, "1.29.999", None),
            (german, "1.299.99", None),
            (german, ".299", None),
            (german, "1,2,3", None),
            (german, "1,2.345", None),
            (german, "29.01.1945", None),
            (german, "", None),
            (french, "1 299,99", Some("1299.99")),
            (french, "1\u{a0}299", Some("1299")),
            (french, "1\u{202f}299", Some("1299")),
            (french, "1.5", None),
            (french, "１", None),
            (american, "1,299.99", Some("1299.99")),
            (american, "1,000", Some("1000")),
            (american, "1,00", None),
        ] {
            assert_eq!(plain(format, cell).as_deref(), text, "{format:?} {cell}");
            assert_eq!(format.number(cell.as_bytes()).is_some(), text.is_some());
        }

        assert!(german.is_integer(b"1.299") && !german.is_integer(b"1,5"));
        assert_eq!(
            NumberFormat::new(Decimal::Point, Some(Thousands::Point)),
            Err(SameSeparator)
        );
    }

    #[test]
    fn the_plain_form_is_not_touched() {
        let plain_form = NumberFormat::default();

        assert_eq!(plain(plain_form, "29.0").as_deref(), Some("29.0"));
        assert_eq!(plain(plain_form, "1,000"), None);
    }
}
