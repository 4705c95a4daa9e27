//! Cuts a byte stream into JSON objects (RFC 7047 section 4: messages follow one another, nothing is between them).
//!
//! Input: bytes as they arrive, in pieces of any size. Output: one text per message. Every byte is looked at once, however a
//! message is cut up; sizes and depths are bounded, so a hostile peer costs at most the limit. Must not: understand messages.

/// Messages of at least this size leave with the buffer they arrived in; smaller ones are copied out of it.
const LARGE: usize = 256 * 1024;
/// Free space to read into.
const READ: usize = 64 * 1024;
/// Deepest nesting accepted; `params` of an update need seven levels, serde_json refuses 128.
const MAX_DEPTH: u32 = 100;

/// Why a stream is no sequence of JSON objects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A message begins with something else than `{`.
    #[error("a message begins with byte {0:#04x} instead of a brace")]
    NotAnObject(u8),
    /// A message is larger than the limit.
    #[error("a message is larger than {0} bytes")]
    TooLarge(usize),
    /// Arrays and objects in one another.
    #[error("a message is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// An array closed by a brace, or an object by a bracket.
    #[error("a message has a bracket where a brace belongs, or the other way round")]
    Mismatch,
    /// Text that is not UTF-8.
    #[error("a message is not UTF-8")]
    NotUtf8,
}

/// The buffer and the state of the scan.
#[derive(Debug)]
pub(crate) struct Framer {
    buffer: Vec<u8>,
    /// Start of the current message.
    start: usize,
    /// First byte not yet looked at.
    next: usize,
    depth: u32,
    /// One bit for each open level, the innermost lowest: 1 for an object.
    objects: u128,
    in_string: bool,
    escaped: bool,
    max_message: usize,
}

impl Framer {
    pub(crate) fn new(max_message: usize) -> Framer {
        Framer {
            buffer: Vec::new(),
            start: 0,
            next: 0,
            depth: 0,
            objects: 0,
            in_string: false,
            escaped: false,
            max_message,
        }
    }

    /// The buffer, with room to append what is read.
    pub(crate) fn space(&mut self) -> &mut Vec<u8> {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            (self.start, self.next) = (0, 0);
        }
        if self.buffer.capacity() - self.buffer.len() < READ / 4 {
            if self.start > 0 {
                self.buffer.drain(..self.start);
                self.next -= self.start;
                self.start = 0;
            }
            // `reserve` at least doubles, so that a large message is moved a few times, not once per read.
            self.buffer.reserve(READ);
        }
        &mut self.buffer
    }

    /// The next complete message, `None` when more bytes are needed. After an error the stream is lost.
    pub(crate) fn next(&mut self) -> Result<Option<String>, FrameError> {
        if self.depth == 0 {
            self.find_start()?;
        }
        let complete = self.scan()?;
        if self.next - self.start > self.max_message {
            return Err(FrameError::TooLarge(self.max_message));
        }
        if !complete {
            return Ok(None);
        }
        let bytes = if self.next - self.start >= LARGE && self.start == 0 {
            let rest = self.buffer.split_off(self.next);
            let message = std::mem::replace(&mut self.buffer, rest);
            self.next = 0;
            message
        } else {
            let message = self.buffer[self.start..self.next].to_vec();
            self.start = self.next;
            message
        };
        String::from_utf8(bytes).map(Some).map_err(|_| FrameError::NotUtf8)
    }

    /// Skips white space up to the brace that opens a message.
    fn find_start(&mut self) -> Result<(), FrameError> {
        while let Some(&byte) = self.buffer.get(self.next) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.next += 1,
                b'{' => break,
                _ => return Err(FrameError::NotAnObject(byte)),
            }
        }
        self.start = self.next;
        Ok(())
    }

    /// Looks at new bytes; true when a message ends just before `next`.
    fn scan(&mut self) -> Result<bool, FrameError> {
        let Framer { buffer, next, depth, objects, in_string, escaped, .. } = self;
        for (at, &byte) in buffer.iter().enumerate().skip(*next) {
            if *in_string {
                match byte {
                    _ if *escaped => *escaped = false,
                    b'\\' => *escaped = true,
                    b'"' => *in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => *in_string = true,
                b'{' | b'[' => {
                    *depth += 1;
                    *objects = *objects << 1 | u128::from(byte == b'{');
                    if *depth > MAX_DEPTH {
                        return Err(FrameError::TooDeep);
                    }
                }
                b'}' | b']' => {
                    if *objects & 1 != u128::from(byte == b'}') {
                        return Err(FrameError::Mismatch);
                    }
                    *objects >>= 1;
                    *depth -= 1;
                    if *depth == 0 {
                        *next = at + 1;
                        return Ok(true);
                    }
                }
                _ => {}
            }
        }
        *next = buffer.len();
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed(framer: &mut Framer, bytes: &[u8]) -> Result<Vec<String>, FrameError> {
        framer.space().extend_from_slice(bytes);
        std::iter::from_fn(|| framer.next().transpose()).collect()
    }

    #[test]
    fn braces_in_strings_do_not_count() {
        let text = r#"{"a":"}{\"]\\"} {"b":[{}]}"#;
        let mut framer = Framer::new(1000);
        assert_eq!(feed(&mut framer, text.as_bytes()).unwrap(), [r#"{"a":"}{\"]\\"}"#, r#"{"b":[{}]}"#]);
    }

    #[test]
    fn limits_hold() {
        assert_eq!(feed(&mut Framer::new(10), br#"{"a":"0123456"#), Err(FrameError::TooLarge(10)));
        assert_eq!(feed(&mut Framer::new(1000), &[b'{'; 200]), Err(FrameError::TooDeep));
        assert_eq!(feed(&mut Framer::new(1000), b"{\"a\":[}"), Err(FrameError::Mismatch));
        assert_eq!(feed(&mut Framer::new(1000), b"{} x"), Err(FrameError::NotAnObject(b'x')));
        assert_eq!(feed(&mut Framer::new(1000), b"{\"\xff\"}"), Err(FrameError::NotUtf8));
    }

    #[test]
    fn large_messages_leave_with_their_buffer() {
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(2 * LARGE));
        let mut framer = Framer::new(10 * LARGE);
        let whole = format!("{large}{{}}{large}");
        let mut out = Vec::new();
        for piece in whole.as_bytes().chunks(10_000) {
            out.extend(feed(&mut framer, piece).unwrap());
        }
        assert_eq!(out, [large.clone(), "{}".to_owned(), large]);
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_messages(
            values in prop::collection::vec(("[\\PC\"\\\\{}\\[\\]]{0,20}", 0..4_u8), 0..8),
            cuts in prop::collection::vec(1..40_usize, 1..60),
        ) {
            let messages: Vec<String> = values.iter().map(|(text, spaces)| {
                let value = serde_json::json!({"k": text, "n": [{}, [text]]});
                format!("{value}{}", " ".repeat(usize::from(*spaces)))
            }).collect();
            let whole = messages.concat();
            let (mut framer, mut out, mut rest, mut cuts) = (Framer::new(10_000), Vec::new(), whole.as_bytes(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                out.extend(feed(&mut framer, piece).unwrap());
                rest = tail;
            }
            let expected: Vec<&str> = messages.iter().map(|m| m.trim_end()).collect();
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 1..20_usize) {
            let mut framer = Framer::new(100);
            for piece in bytes.chunks(cut) {
                if feed(&mut framer, piece).is_err() {
                    break;
                }
            }
        }
    }
}
