//! Turns random bytes into edits of a well-formed input, so that an engine without coverage guidance gets past the first brace.
//!
//! Inputs: seeds and random bytes. Output: one seed with one to eight edits. The same bytes give the same output.

/// Texts that parsers of JSON, numbers and names stumble over.
const TOKENS: &[&str] = &[
    "null",
    "true",
    "{}",
    "[]",
    "[",
    "}",
    "\"",
    "\\",
    "\\ud800",
    "\u{0}",
    "é",
    "-1",
    "0",
    "1e999",
    "9223372036854775808",
    "4294967296",
    "[\"set\",[]]",
    "[\"map\",[]]",
    "[\"uuid\",\"x\"]",
    "[\"named-uuid\",\"x\"]",
    "\"\"",
    "/0",
    "/129",
    "::",
    "0.0.0.0",
    ";",
    "=",
    ",",
    "\n",
    "{\"insert\":{}}",
    "{\"delete\":null}",
    "{\"modify\":{}}",
];

/// A seed, edited as `random` says.
pub fn edited(seeds: &[&[u8]], random: &[u8]) -> Vec<u8> {
    let mut bytes = random.iter().map(|b| usize::from(*b));
    let mut pick = |below: usize| {
        let number = bytes.next().unwrap_or(0) << 8 | bytes.next().unwrap_or(0);
        if below == 0 { 0 } else { number % below }
    };
    let mut out = seeds.get(pick(seeds.len())).map_or(Vec::new(), |seed| seed.to_vec());
    for _ in 0..=pick(8) {
        let at = pick(out.len());
        let end = (at + pick(64)).min(out.len());
        match pick(5) {
            0 => drop(out.drain(at..end)),
            1 => out.truncate(at),
            2 => drop(out.splice(at..end, TOKENS[pick(TOKENS.len())].bytes())),
            3 => {
                let copy = out[at..end].to_vec();
                let to = pick(out.len());
                drop(out.splice(to..to, copy));
            }
            _ => {
                if let Some(byte) = out.get_mut(at) {
                    *byte = pick(256) as u8;
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_determined_and_total() {
        let seeds: &[&[u8]] = &[b"{\"a\":1}", b""];
        for random in 0..2000_u32 {
            let random: Vec<u8> = (0..40).map(|i| (random.wrapping_mul(2_654_435_761) >> (i % 24)) as u8 ^ i).collect();
            assert_eq!(edited(seeds, &random), edited(seeds, &random));
        }
        assert!(edited(&[], b"").is_empty());
    }
}
