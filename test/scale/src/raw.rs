//! The floor of the OVSDB cases: a blocking socket, prepared bytes out, and a count of braces to see a reply's end.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, ensure};
use ovsdb::Op;

/// A raw connection.
#[derive(Debug)]
pub struct Raw {
    stream: UnixStream,
    buffer: Vec<u8>,
    used: usize,
}

impl Raw {
    /// Connects.
    pub fn connect(socket: &Path) -> anyhow::Result<Raw> {
        let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
        Ok(Raw { stream, buffer: vec![0; 1 << 20], used: 0 })
    }

    /// Sends bytes.
    pub fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(message).context("write")
    }

    /// Receives whole messages until `count` have come; their bytes.
    pub fn receive(&mut self, count: usize) -> anyhow::Result<&[u8]> {
        let (mut next, mut depth, mut in_string, mut escaped, mut messages) = (0, 0, false, false, 0);
        self.used = 0;
        while messages < count {
            if self.used == self.buffer.len() {
                self.buffer.resize(2 * self.used, 0);
            }
            let read = self.stream.read(&mut self.buffer[self.used..]).context("read")?;
            ensure!(read > 0, "the server closed the connection");
            self.used += read;
            for &byte in &self.buffer[next..self.used] {
                match (in_string, byte) {
                    (true, _) if escaped => escaped = false,
                    (true, b'\\') => escaped = true,
                    (_, b'"') => in_string = !in_string,
                    (false, b'{' | b'[') => depth += 1,
                    (false, b'}' | b']') => {
                        depth -= 1;
                        messages += usize::from(depth == 0);
                    }
                    _ => {}
                }
            }
            next = self.used;
        }
        ensure!(messages == count && depth == 0, "more messages came than asked for");
        Ok(&self.buffer[..self.used])
    }
}

/// A transaction of the Northbound (RFC 7047 section 4.1.3), ready to be sent.
pub fn transact(ops: impl IntoIterator<Item = Op>) -> Vec<u8> {
    let mut out = br#"{"method":"transact","params":["OVN_Northbound""#.to_vec();
    for op in ops {
        out.push(b',');
        op.write_json(&mut out);
    }
    out.extend_from_slice(br#"],"id":2}"#);
    out
}
