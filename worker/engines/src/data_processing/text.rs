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

fn without_sign(text: &[u8]) -> &[u8] {
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

/// Replaces `text` with a computed value: fixed notation with `decimals` places, rounded half to
/// even on the exact binary value, without trailing zeros, and `0` for `-0`. A value that is not
/// finite gives an empty text, which is a missing cell.
pub(super) fn write_number(text: &mut Vec<u8>, value: f64, decimals: usize) {
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
}
