//! How fast bytes come from one place to another.
//!
//! In: two places, an address of the other. Out: the time it took. It must not judge it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ovenbird_lab::Place;

use crate::LIMIT;

/// Sends so many bytes by TCP, and returns how long it took until all were there.
///
/// # Errors
/// When there is no connection, or bytes are missing.
pub fn pour(from: &Place, to: &Place, ip: IpAddr, bytes: usize) -> Result<Duration> {
    let listener = to.run(|| TcpListener::bind((ip, 0)).context("listening"))?;
    let address = listener.local_addr().context("an address")?;
    let reader = std::thread::spawn(move || -> Result<usize> {
        let (mut stream, _) = listener.accept().context("accepting")?;
        stream.set_read_timeout(Some(LIMIT)).context("setting a time limit")?;
        let (mut all, mut buffer) = (0, vec![0; 1 << 16]);
        loop {
            match stream.read(&mut buffer).context("reading")? {
                0 => return Ok(all),
                length => all += length,
            }
        }
    });
    let mut stream = from.run(|| TcpStream::connect_timeout(&address, LIMIT).context("connecting"))?;
    stream.set_write_timeout(Some(LIMIT)).context("setting a time limit")?;
    let began = Instant::now();
    stream.write_all(&vec![7; bytes]).context("writing")?;
    drop(stream);
    let read = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    ensure!(read == bytes, "{read} of {bytes} bytes came");
    Ok(began.elapsed())
}
