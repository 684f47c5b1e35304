//! Texts and numbers in cells (`docs/engines/data_processing.md`, "Cells").

use std::io::Write;
use std::ops::Range;

/// The range of a cell without white space (Unicode `White_Space`) at both ends.
pub(super) fn trimmed_range(cell: &[u8]) -> Range<usize> {
    let visible = |byte: Option<&u8>| byte.is_none_or(|&b| b > b' ' && b < 0x7f);
    // Fast path: nearly every cell begins and ends with a visible ASCII character.
    if visible(cell.first()) && visible(cell.last()) {
        return 0..cell.len();
    }

    let Ok(text) = std::str::from_utf8(cell) else {
        return 0..cell.len();
    };
    let start = text.len() - text.trim_start().len();

    start..start + text.trim().len()
}

/// A cell without the white space at both ends.
pub(super) fn trim(cell: &[u8]) -> &[u8] {
    &cell[trimmed_range(cell)]
}

/// Whether the cell is an integer: `[+-]?digits`.
pub(super) fn is_integer(cell: &[u8]) -> bool {
    let digits = without_sign(cell);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// Whether the cell is a number: `[+-]?(digits[.digits*] | .digits)([eE][+-]?digits)?`.
pub(super) fn is_number(cell: &[u8]) -> bool {
    let rest = without_sign(cell);
    let (whole, rest) = digits(rest);
    let (fraction, rest) = match rest.split_first() {
        Some((b'.', after)) => digits(after),
        _ => (0, rest),
    };

    if whole + fraction == 0 {
        return false;
    }

    match rest.split_first() {
        None => true,
        Some((b'e' | b'E', exponent)) => is_integer(exponent),
        Some(_) => false,
    }
}

/// The value of a cell that is a number. Infinite for `1e999`.
pub(super) fn number(cell: &[u8]) -> Option<f64> {
    if !is_number(cell) {
        return None;
    }
    std::str::from_utf8(cell).ok()?.parse().ok()
}

/// The text behind a sign.
pub(super) fn without_sign(text: &[u8]) -> &[u8] {
    match text.split_first() {
        Some((b'+' | b'-', rest)) => rest,
        _ => text,
    }
}

/// The number of leading digits of `text`, and the rest.
fn digits(text: &[u8]) -> (usize, &[u8]) {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (count, &text[count..])
}

/// The most decimal places of a small number: a double has no more.
const MAX_PLACES: i32 = 330;

/// Decimal places when the request gives none.
const DEFAULT_PLACES: usize = 6;

/// How computed numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    places: usize,
    /// Whether the request gives the places. Then small numbers are rounded too.
    exact: bool,
}

impl Places {
    /// As many places as the request gives. None for the default.
    pub(super) fn new(places: Option<u8>) -> Self {
        Self {
            places: places.map_or(DEFAULT_PLACES, usize::from),
            exact: places.is_some(),
        }
    }

    /// Replaces `text` with a value in the unit of a column, such as its mean.
    ///
    /// Prices can be small. So where less than three digits would be left, six are written.
    pub(super) fn write_value(self, text: &mut Vec<u8>, value: f64) {
        // Below the first limit a value is the rounding error of a sum.
        write_number(text, value, self.places_for(value, 1e-15, 1e-4));
    }

    /// Replaces `text` with the value of a computed column.
    ///
    /// Those have no unit and are near 1. So six digits are written only where none would be left.
    pub(super) fn write_computed(self, text: &mut Vec<u8>, value: f64) {
        write_number(text, value, self.places_for(value, 1e-12, 1e-6));
    }

    fn places_for(self, value: f64, least: f64, small: f64) -> usize {
        let size = value.abs();
        if self.exact || !(least..small).contains(&size) {
            return self.places;
        }
        // Six digits from the first one on that is not zero.
        let places = DEFAULT_PLACES as i32 - 1 - size.log10().floor() as i32;
        places.clamp(0, MAX_PLACES) as usize
    }
}

/// Replaces `text` with a computed value: fixed notation with `decimals` places, rounded half to
/// even on the exact binary value, without trailing zeros, and `0` for `-0`. A value that is not
/// finite gives an empty text, which is a missing cell.
fn write_number(text: &mut Vec<u8>, value: f64, decimals: usize) {
    text.clear();

    if !value.is_finite() || write!(text, "{value:.decimals$}").is_err() {
        return;
    }

    if decimals > 0 {
        let zeros = text.iter().rev().take_while(|&&byte| byte == b'0').count();
        text.truncate(text.len() - zeros);
        if text.last() == Some(&b'.') {
            text.pop();
        }
    }

    if text == b"-0" {
        text.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_integers() {
        for good in [
            "0", "29.0", "5.", ".5", "+1", "-2.5e-3", "1E5", "007", "1e999",
        ] {
            assert!(
                is_number(good.as_bytes()) && number(good.as_bytes()).is_some(),
                "{good}"
            );
        }

        for bad in [
            "", ".", "+", "-", "1,000", "inf", "nan", "[98]", "1e", "1e+", "e5", "1 ", " 1", "0x1",
            "1_0", "--1", "1.2.3", "٣",
        ] {
            assert!(
                !is_number(bad.as_bytes()) && number(bad.as_bytes()).is_none(),
                "{bad}"
            );
        }

        for (text, integer) in [
            ("1", true),
            ("-12", true),
            ("+0", true),
            ("29.0", false),
            ("1e3", false),
            ("", false),
            ("-", false),
        ] {
            assert_eq!(is_integer(text.as_bytes()), integer, "{text}");
        }
    }

    #[test]
    fn trims_unicode_white_space() {
        for (cell, trimmed) in [
            ("a", "a"),
            ("", ""),
            (" ", ""),
            ("\t a b\u{b}", "a b"),
            ("\u{a0}x\u{3000}", "x"),
            ("\u{85}ä\u{2029}", "ä"),
            ("\u{200b}a", "\u{200b}a"),
            ("é", "é"),
        ] {
            assert_eq!(trim(cell.as_bytes()), trimmed.as_bytes(), "{cell:?}");
        }
    }

    #[test]
    fn computed_numbers() {
        for (value, decimals, text) in [
            (28.0, 6, "28"),
            (0.000460, 6, "0.00046"),
            (0.5, 0, "0"),
            (1.5, 0, "2"),
            (2.5, 0, "2"),
            (0.125, 2, "0.12"),
            (0.375, 2, "0.38"),
            (-0.0, 6, "0"),
            (-1e-9, 6, "0"),
            (100.0, 0, "100"),
            (100.0, 2, "100"),
            (-1.5, 3, "-1.5"),
            (1e20, 2, "100000000000000000000"),
            (f64::NAN, 6, ""),
            (f64::INFINITY, 6, ""),
        ] {
            let mut out = b"old".to_vec();
            write_number(&mut out, value, decimals);

            assert_eq!(
                String::from_utf8(out).unwrap(),
                text,
                "{value} with {decimals}"
            );
        }
    }

    #[test]
    fn small_numbers_keep_their_digits() {
        let written = |places: Places, value, computed| {
            let mut text = Vec::new();
            if computed {
                places.write_computed(&mut text, value);
            } else {
                places.write_value(&mut text, value);
            }
            String::from_utf8(text).unwrap()
        };
        let default = Places::new(None);

        for (value, text) in [
            (0.00000013, "0.00000013"),
            (-0.0000122, "-0.0000122"),
            (0.0001236, "0.000124"),
            (1.0 / 3.0, "0.333333"),
            (1.23456789e-7, "0.000000123457"),
            (9.999999e-5, "0.0001"),
            (28.0, "28"),
            (0.0, "0"),
            (1e-17, "0"),
        ] {
            assert_eq!(written(default, value, false), text, "{value}");
        }
        for (value, text) in [
            (0.0000122, "0.000012"),
            (0.00000013, "0.00000013"),
            (1e-13, "0"),
        ] {
            assert_eq!(written(default, value, true), text, "{value}");
        }

        // A request that gives the places gets them.
        assert_eq!(written(Places::new(Some(6)), 0.00000013, false), "0");
    }
}
