//! Pod bandwidth limits (`kubernetes.io/ingress-bandwidth`, `kubernetes.io/egress-bandwidth`): a Kubernetes quantity in bits
//! per second from 1k to 1P, the rules of the kubelet.
//!
//! Quantity grammar: `[+-]digits[.digits]` and a suffix: n u m k M G T P E, Ki Mi Gi Ti Pi Ei, or an exponent such as e3.
//! Must not: know how the limit is enforced.

use crate::annotation::{At, quote};
use crate::{AnnotationError, annotation};

const REMEDY: &str = "write a quantity of bits per second from 1k to 1P, e.g. 10M";
const LEAST: u64 = 1_000;
const MOST: u64 = 1_000_000_000_000_000;
/// More digits than any value in range needs; they fit in a u128.
const MOST_DIGITS: usize = 36;

/// Limits of one pod, in bits per second; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// Traffic to the pod.
    pub ingress: Option<u64>,
    /// Traffic from the pod.
    pub egress: Option<u64>,
}

impl Bandwidth {
    /// Reads the limits from a pod's annotations, given by a look-up.
    ///
    /// # Errors
    /// When a limit is not a quantity from 1k to 1P.
    pub fn parse<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Result<Bandwidth, AnnotationError> {
        let read = |key| annotation(key).map(|text| parse_limit(key, text)).transpose();
        Ok(Bandwidth { ingress: read(annotation::INGRESS_BANDWIDTH)?, egress: read(annotation::EGRESS_BANDWIDTH)? })
    }
}

/// One limit, in bits per second.
///
/// # Errors
/// When the text is not a quantity from 1k to 1P.
pub fn parse_limit(key: &'static str, text: &str) -> Result<u64, AnnotationError> {
    let at = At { annotation: key, field: "", remedy: REMEDY };
    match quantity(text.trim()) {
        None => Err(at.error(format!("{} is not a quantity", quote(text)))),
        Some(Some(value)) if (LEAST..=MOST).contains(&value) => Ok(value),
        Some(_) => Err(at.error(format!("{} is outside 1k to 1P", quote(text)))),
    }
}

/// A quantity rounded up to a whole number. `None`: not a quantity; `Some(None)`: negative or beyond u64.
fn quantity(text: &str) -> Option<Option<u64>> {
    let negative = text.starts_with('-');
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') || whole.len() + fraction.len() > MOST_DIGITS {
        return None;
    }
    let mantissa: u128 = [whole, fraction].concat().parse().ok()?;
    let (base, power) = scale(suffix)?;
    let places = i32::try_from(fraction.len()).ok()?;
    let value = if base == 2 {
        // At most 36 digits times 2^60 overflows for large mantissas: those are out of range anyhow.
        mantissa.checked_mul(1u128 << power).and_then(|v| times_power_of_ten(v, -places))
    } else {
        times_power_of_ten(mantissa, power - places)
    };
    Some(value.filter(|_| !negative || mantissa == 0).and_then(|v| u64::try_from(v).ok()))
}

/// (base, exponent) of a suffix: `k` is 10^3, `Ki` is 2^10.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "n" => (10, -9),
        "u" => (10, -6),
        "m" => (10, -3),
        "" => (10, 0),
        "k" => (10, 3),
        "M" => (10, 6),
        "G" => (10, 9),
        "T" => (10, 12),
        "P" => (10, 15),
        "E" => (10, 18),
        "Ki" => (2, 10),
        "Mi" => (2, 20),
        "Gi" => (2, 30),
        "Ti" => (2, 40),
        "Pi" => (2, 50),
        "Ei" => (2, 60),
        _ => (10, i32::from(suffix.strip_prefix(['e', 'E'])?.parse::<i8>().ok()?)),
    })
}

/// `value * 10^power` rounded up; `None` on overflow.
fn times_power_of_ten(value: u128, power: i32) -> Option<u128> {
    let factor = 10u128.checked_pow(power.unsigned_abs());
    match (factor, power < 0) {
        (Some(factor), false) => value.checked_mul(factor),
        (Some(factor), true) => Some(value.div_ceil(factor)),
        (None, false) => (value == 0).then_some(0),
        (None, true) => Some(u128::from(value > 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_from_1k_to_1p() {
        for (text, want) in [
            ("1k", 1_000),
            ("10M", 10_000_000),
            ("1.5M", 1_500_000),
            ("1P", MOST),
            ("1000", 1_000),
            ("1Ki", 1_024),
            ("+2Mi", 2_097_152),
            ("0.5Mi", 524_288),
            ("1e6", 1_000_000),
            ("1E6", 1_000_000),
            ("1000000m", 1_000),
            ("1000.1", 1_001),
            ("999999m", 1_000),
            (".5M", 500_000),
            ("1500000e-3", 1_500),
        ] {
            assert_eq!(parse_limit(annotation::INGRESS_BANDWIDTH, text), Ok(want), "{text}");
        }
    }

    #[test]
    fn all_else_is_an_error_that_says_what_to_do() {
        for (text, problem) in [
            ("999", "outside"),
            ("1.1P", "outside"),
            ("1E", "outside"),
            ("-10M", "outside"),
            ("0", "outside"),
            ("1e127", "outside"),
            ("1e-127", "outside"),
            ("99999999999999999999999999999999999Ei", "outside"),
            ("", "not a quantity"),
            (".", "not a quantity"),
            ("10MB", "not a quantity"),
            ("10 M", "not a quantity"),
            ("1.2.3M", "not a quantity"),
            ("--1k", "not a quantity"),
            ("1e400", "not a quantity"),
            ("k", "not a quantity"),
            ("9999999999999999999999999999999999999999999", "not a quantity"),
            ("١k", "not a quantity"),
        ] {
            let error = parse_limit(annotation::EGRESS_BANDWIDTH, text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(error.starts_with("annotation kubernetes.io/egress-bandwidth: ") && error.contains("1k to 1P"));
        }
    }
}
