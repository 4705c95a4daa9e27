//! Constants: numbers and addresses, with or without a mask.
//!
//! Input: a text as it stands in a match or in `addresses` of an Address_Set. Output: bits and mask. Must not: know fields.

use std::net::{Ipv4Addr, Ipv6Addr};

/// How a constant is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Decimal or hexadecimal.
    Number,
    /// Dotted quad.
    V4,
    /// IPv6 address.
    V6,
    /// `aa:bb:cc:dd:ee:ff`.
    Mac,
}

/// See the file header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constant {
    /// Value; no bit outside the mask is set.
    pub value: u128,
    /// Bits that count; all when none is given.
    pub mask: u128,
    /// How it is written.
    pub format: Format,
}

impl Constant {
    /// Reads `VALUE` or `VALUE/MASK`; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Constant, String> {
        let (value, mask) = text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)));
        let (bits, format) = address(value).ok_or_else(|| format!("{value:?} is no constant"))?;
        let mask = match mask {
            None => u128::MAX,
            Some(mask) => self::mask(mask, format).ok_or_else(|| format!("{mask:?} is no mask of {value}"))?,
        };
        if bits & !mask != 0 {
            return Err(format!("{text} has bits outside its mask"));
        }
        Ok(Constant { value: bits, mask, format })
    }

    /// Whether a value is this one, as far as the mask says.
    pub fn contains(&self, value: u128) -> bool {
        value & self.mask == self.value
    }

    /// Whether part of the value does not count.
    pub fn is_masked(&self) -> bool {
        self.mask != u128::MAX
    }
}

fn address(text: &str) -> Option<(u128, Format)> {
    if let Ok(v4) = text.parse::<Ipv4Addr>() {
        return Some((v4.to_bits().into(), Format::V4));
    }
    if let Ok(v6) = text.parse::<Ipv6Addr>() {
        return Some((v6.to_bits(), Format::V6));
    }
    if let Some(mac) = mac(text) {
        return Some((mac.into(), Format::Mac));
    }
    let number = match text.strip_prefix("0x") {
        Some(digits) => u128::from_str_radix(digits, 16),
        None => text.parse(),
    };
    Some((number.ok()?, Format::Number))
}

fn mac(text: &str) -> Option<u64> {
    let parts: Vec<&str> = text.split(':').collect();
    let byte = |part: &&str| u8::from_str_radix(part, 16).ok().filter(|_| part.len() <= 2);
    let bytes: Vec<u8> = parts.iter().map(byte).collect::<Option<_>>()?;
    (bytes.len() == 6).then(|| bytes.iter().fold(0, |mac, byte| mac << 8 | u64::from(*byte)))
}

/// A length of prefix for addresses of IP, or a mask written like the value.
fn mask(text: &str, format: Format) -> Option<u128> {
    let width: u32 = match format {
        Format::Number => 128,
        Format::V4 => 32,
        Format::V6 => 128,
        Format::Mac => 48,
    };
    match (address(text)?, format) {
        ((length, Format::Number), Format::V4 | Format::V6) => {
            let low = width.checked_sub(u32::try_from(length).ok()?)?;
            Some(u128::MAX.checked_shl(low).unwrap_or(0))
        }
        ((bits, other), _) => (other == format).then_some(bits),
    }
}
