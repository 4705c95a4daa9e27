//! Asks for a neighbour's MAC from inside a sandbox, as a host does that has just come (RFC 826; RFC 4861, section 4.3), until it answers. The kernel
//! asks too seldom to wait for: once a second.
//!
//! ```text
//! thread in the sandbox: packet socket on the link --> question, again and again --> answer, or nobody waits any more
//! ```
//!
//! Must not: judge answers; or change what the kernel knows of the neighbour.

use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use ovenbird_api::Mac;

use super::packet::{self, ADVERTISEMENT, ARP, EVERYTHING, IPV6};
use super::{NetError, netns};

/// Time until the second question; it doubles with each, up to the other.
const FIRST: Duration = Duration::from_millis(10);
/// See [`FIRST`].
const LAST: Duration = Duration::from_millis(160);
/// Who asks whom.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// MAC of the link.
    pub mac: Mac,
    /// Own address.
    pub from: IpAddr,
    /// The neighbour's, of the same family.
    pub to: IpAddr,
}

/// Returns when the neighbour answers on a link of the sandbox; a link that is down is waited for. Who does not wait any more drops the future.
///
/// # Errors
/// When the sandbox or the link is gone.
pub async fn ask(sandbox: &Path, ifname: &str, question: Question) -> Result<(), NetError> {
    let waits = Arc::new(());
    let (name, waiting) = (ifname.to_owned(), Arc::downgrade(&waits));
    let asked =
        netns::run(sandbox, move || insist(&name, question, &waiting).map_err(|e| NetError::Ask(question.to, e)));
    let answered = asked.await;
    drop(waits);
    answered
}

/// Asks until there is an answer, or nobody waits for it.
fn insist(ifname: &str, question: Question, waiting: &Weak<()>) -> io::Result<()> {
    let socket = packet::open(ifname, EVERYTHING, &[])?;
    let (frame, mut pause, mut buffer) = (question.frame(), FIRST, [0; 128]);
    while waiting.strong_count() > 0 {
        match socket.send(&frame) {
            Err(e) if !is_of(&e, &[Errno::ENETDOWN, Errno::ENOBUFS]) => return Err(e),
            _ => {}
        }
        let end = Instant::now() + pause;
        loop {
            // Zero would be for ever.
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
            socket.set_read_timeout(Some(left))?;
            match (&socket).read(&mut buffer) {
                Ok(length) if question.is_answer(&buffer[..length]) => return Ok(()),
                Err(e) if !is_of(&e, &[Errno::EAGAIN, Errno::EINTR, Errno::ENETDOWN]) => return Err(e),
                _ => {}
            }
            if Instant::now() >= end {
                break;
            }
        }
        pause = (pause * 2).min(LAST);
    }
    Ok(())
}

fn is_of(error: &io::Error, all: &[Errno]) -> bool {
    all.iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

impl Question {
    /// The frame that asks.
    fn frame(&self) -> Vec<u8> {
        packet::question(self.mac, self.from, self.to)
    }

    /// True when a frame says where the neighbour is.
    fn is_answer(&self, frame: &[u8]) -> bool {
        let at = |from: usize, to: usize| frame.get(from..to);
        match self.to {
            // An ARP reply by the sender's address.
            IpAddr::V4(to) => {
                at(12, 14) == Some(&ARP) && at(20, 22) == Some(&[0, 2]) && at(28, 32) == Some(&to.octets())
            }
            IpAddr::V6(to) => {
                at(12, 14) == Some(&IPV6) && at(54, 55) == Some(&[ADVERTISEMENT]) && at(62, 78) == Some(&to.octets())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::linux::tests::Netns;

    fn question(from: &str, to: &str) -> Question {
        Question { mac: "0a:58:0a:80:00:03".parse().unwrap(), from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    /// The kernel at the other end answers what is asked right, and nothing else.
    #[tokio::test]
    async fn a_neighbour_answers_once_it_is_there() {
        let (Some(other), Some(pod)) = (Netns::new("nh"), Netns::new("np")) else { return };
        let netns = pod.path().file_name().unwrap().to_string_lossy().into_owned();
        other.ip(&format!("link add host type veth peer name eth0 address 0a:58:0a:80:00:03 netns {netns}"));
        pod.ip("addr add fd01::3/64 dev eth0 nodad");
        other.ip("link set host up");
        for (from, to) in [("10.128.0.3", "10.128.0.1"), ("fd01::3", "fd01::1")] {
            pod.ip("link set eth0 down");
            let path = pod.path();
            let asked = tokio::spawn(async move { ask(&path, "eth0", question(from, to)).await });
            pod.ip("link set eth0 up");
            pod.ip("addr replace fd01::3/64 dev eth0 nodad");
            assert!(!asked.is_finished(), "nobody has {to}");
            other.ip(&format!(
                "addr add {to}/{} dev host{}",
                if to.contains(':') { "64" } else { "24" },
                if to.contains(':') { " nodad" } else { "" }
            ));
            asked.await.unwrap().unwrap();
        }
        let error = ask(&pod.path(), "eth1", question("10.128.0.3", "10.128.0.1")).await.unwrap_err();
        assert_eq!(error.to_string(), "asking 10.128.0.1 for its MAC");
    }

    #[test]
    fn what_is_no_answer() {
        let question = question("10.128.0.3", "10.128.0.1");
        let mut frame = question.frame();
        assert!(!question.is_answer(&frame), "the question itself");
        frame[21] = 2;
        assert!(!question.is_answer(&frame), "another's answer");
        frame[28..32].copy_from_slice(&[10, 128, 0, 1]);
        assert!(question.is_answer(&frame));
        (0..frame.len() - 10).for_each(|length| assert!(!question.is_answer(&frame[..length])));
    }
}
