//! A client of DHCP as a machine (RFC 2131, section 4.4): what came and the time go in, what is to be sent and when to look again come out.
//!
//! ```text
//! Selecting --offer--> Requesting --ack--> Bound --T1--> Renewing --T2--> Rebinding --end of the lease--> lost
//!     ^                    |                 ^--ack---------'---ack-----------'                              |
//!     '-------nak----------'                 '--ack-- Rebooting (a lease of before) --nak, end--> lost       |
//!     '------------------------------------------------------------------------------------------------------'
//! ```
//!
//! Who has lost its address goes on asking, but for that address alone: a pod gets no other one while it lives. `now` is the time since any fixed start.
//! Must not: send, wait, or read a clock.

use std::net::Ipv4Addr;
use std::time::Duration;

use ovenbird_api::Mac;

use super::frame::To;
use super::message::{Kind, Reply, Request, Said, Terms};

/// Time until a message is sent again; it doubles up to the other (RFC 2131, section 4.1, has 4 s, for networks slower than a pod can wait for).
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(64);
/// A request for what was offered is sent so often; then the server is gone.
const REQUESTS: u32 = 4;
/// Renewals that nobody answers follow each other no faster (section 4.4.5), unless the lease is too short for that.
const RENEWALS: Duration = Duration::from_secs(60);
/// No time at all.
pub const NEVER: Duration = Duration::MAX;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Who {
    /// Its MAC, by which servers know it.
    pub mac: Mac,
    /// Its name, which servers may publish.
    pub host_name: String,
}

/// An address that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// As the server has said.
    pub terms: Terms,
    /// The server.
    pub server: Ipv4Addr,
    /// The MAC that its answer came from.
    pub via: Mac,
    /// T1, T2 and the end, or [`NEVER`].
    pub renew: Duration,
    /// See there.
    pub rebind: Duration,
    /// See there.
    pub end: Duration,
}

/// Something that others must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// An address, new or for longer.
    Granted(Grant),
    /// The address must not be used any more.
    Lost(Ipv4Addr, Loss),
}

/// Why an address is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nobody has renewed it in time.
    Expired,
    /// A server says that it is not the pod's.
    Refused,
    /// A server gives another one.
    Changed(Ipv4Addr),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Selecting,
    Requesting { server: Ipv4Addr, address: Ipv4Addr },
    Rebooting,
    Bound,
    Renewing,
    Rebinding,
}

/// See the file header.
#[derive(Clone, Debug)]
pub struct Client {
    who: Who,
    phase: Phase,
    grant: Option<Grant>,
    /// The address to ask for.
    hint: Option<Ipv4Addr>,
    /// No other is of use.
    insists: bool,
    xid: u32,
    /// When the exchange began, and the last message was sent; how many were.
    began: Duration,
    sent: Duration,
    tries: u32,
    deadline: Duration,
}

/// A message and its way.
pub type Outgoing = (Request, To);

impl Client {
    /// One that has no address, and would like to have `hint` again. `seed` differs from start to start.
    pub fn new(who: Who, hint: Option<Ipv4Addr>, seed: u32, now: Duration) -> Client {
        let (phase, grant) = (Phase::Selecting, None);
        let tries = 0;
        Client { who, phase, grant, hint, insists: false, xid: seed, began: now, sent: now, tries, deadline: now }
    }

    /// One that uses an address, and asks whether it still may.
    pub fn rebooting(who: Who, held: Grant, seed: u32, now: Duration) -> Client {
        let hint = Some(held.terms.address.addr());
        Client { phase: Phase::Rebooting, grant: Some(held), insists: true, ..Client::new(who, hint, seed, now) }
    }

    /// What it has.
    pub fn grant(&self) -> Option<&Grant> {
        self.grant.as_ref()
    }

    /// An answer is waited for.
    pub fn is_asking(&self) -> bool {
        self.phase != Phase::Bound
    }

    /// When [`Client::tick`] is to be called.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The deadline has come.
    pub fn tick(&mut self, now: Duration) -> (Option<Outgoing>, Option<News>) {
        if now < self.deadline {
            return (None, None);
        }
        let (rebind, end) = self.grant.as_ref().map_or((NEVER, NEVER), |grant| (grant.rebind, grant.end));
        match self.phase {
            Phase::Bound => self.begin(Phase::Renewing, now),
            Phase::Requesting { .. } if self.tries >= REQUESTS => self.begin(Phase::Selecting, now),
            _ => {}
        }
        if self.phase == Phase::Renewing && now >= rebind {
            self.begin(Phase::Rebinding, now);
        }
        if matches!(self.phase, Phase::Rebooting | Phase::Rebinding) && now >= end {
            return (None, self.lose(Loss::Expired, now));
        }
        let message = self.message(now);
        self.sent = now;
        self.deadline = match self.phase {
            Phase::Renewing => now.saturating_add(self.patience(rebind, now)).min(rebind),
            Phase::Rebinding => now.saturating_add(self.patience(end, now)).min(end),
            Phase::Rebooting => now.saturating_add(self.pause()).min(end),
            _ => now.saturating_add(self.pause()),
        };
        self.tries += 1;
        (Some(message), None)
    }

    /// A server's message, and the MAC that it came from.
    pub fn receive(&mut self, reply: &Reply, via: Mac, now: Duration) -> Option<News> {
        if reply.xid != self.xid || reply.mac != self.who.mac {
            return None;
        }
        let own = self.grant.as_ref().map(|grant| grant.terms.address.addr());
        match (&self.phase, reply.said, &reply.terms) {
            (Phase::Selecting, Said::Offer, Some(terms)) => {
                let address = terms.address.addr();
                if !self.insists || self.hint == Some(address) {
                    (self.phase, self.tries, self.deadline) =
                        (Phase::Requesting { server: reply.server, address }, 0, now);
                }
                None
            }
            (Phase::Requesting { server, .. }, Said::Ack, Some(terms)) if *server == reply.server => {
                // It is not obliged to keep to its offer.
                if self.insists && self.hint != Some(terms.address.addr()) {
                    self.begin(Phase::Selecting, now);
                    return None;
                }
                self.bind(terms, reply.server, via)
            }
            (Phase::Requesting { server, .. }, Said::Nak, _) if *server == reply.server => {
                self.begin(Phase::Selecting, now);
                self.deadline = now.saturating_add(FIRST);
                None
            }
            (Phase::Rebooting | Phase::Renewing | Phase::Rebinding, Said::Ack, Some(terms)) => {
                let address = terms.address.addr();
                if own == Some(address) {
                    return self.bind(terms, reply.server, via);
                }
                self.lose(Loss::Changed(address), now)
            }
            (Phase::Rebooting | Phase::Renewing | Phase::Rebinding, Said::Nak, _) => self.lose(Loss::Refused, now),
            _ => None,
        }
    }

    /// The message that gives the address back, or says that somebody else has it.
    pub fn end(&self, kind: Kind) -> Option<Outgoing> {
        let grant = self.grant.as_ref()?;
        let own = grant.terms.address.addr();
        let blank = Request { kind, server: Some(grant.server), requested: None, ..self.request(0) };
        Some(match kind {
            Kind::Decline => (Request { requested: Some(own), ..blank }, To::ALL),
            _ => (Request { address: own, ..blank }, To { address: grant.server, mac: grant.via }),
        })
    }

    fn bind(&mut self, terms: &Terms, server: Ipv4Addr, via: Mac) -> Option<News> {
        let after = |seconds: u32| self.sent.saturating_add(Duration::from_secs(seconds.into()));
        let (lease, forever) = (terms.lease, terms.lease == u32::MAX);
        let eighths = |n: u32| lease / 8 * n + lease % 8 * n / 8;
        let rebind = terms.rebinding.filter(|t2| (1..lease).contains(t2)).unwrap_or(eighths(7).max(1));
        let renew = terms.renewal.filter(|t1| (1..=rebind).contains(t1)).unwrap_or(eighths(4).clamp(1, rebind));
        let at = |seconds| if forever { NEVER } else { after(seconds) };
        let (renew, rebind, end) = (at(renew), at(rebind), at(lease));
        let grant = Grant { terms: terms.clone(), server, via, renew, rebind, end };
        (self.phase, self.deadline, self.hint) = (Phase::Bound, renew, Some(terms.address.addr()));
        self.insists = true;
        self.grant = Some(grant.clone());
        Some(News::Granted(grant))
    }

    fn lose(&mut self, why: Loss, now: Duration) -> Option<News> {
        let lost = self.grant.take()?.terms.address.addr();
        self.begin(Phase::Selecting, now);
        self.deadline = now.saturating_add(FIRST);
        Some(News::Lost(lost, why))
    }

    /// Another exchange.
    fn begin(&mut self, phase: Phase, now: Duration) {
        self.phase = phase;
        // Numerical Recipes' generator: what follows cannot be told from outside, and is another one each time.
        self.xid = self.xid.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.began, self.tries, self.deadline) = (now, 0, now);
    }

    fn request(&self, secs: u16) -> Request {
        Request {
            kind: Kind::Request,
            xid: self.xid,
            secs,
            mac: self.who.mac,
            address: Ipv4Addr::UNSPECIFIED,
            requested: self.hint,
            server: None,
            host_name: self.who.host_name.clone(),
        }
    }

    fn message(&self, now: Duration) -> Outgoing {
        let blank = self.request(u16::try_from(now.saturating_sub(self.began).as_secs()).unwrap_or(u16::MAX));
        let grant = self.grant.as_ref();
        let renewal = || {
            let address = grant.map_or(Ipv4Addr::UNSPECIFIED, |grant| grant.terms.address.addr());
            Request { address, requested: None, ..blank.clone() }
        };
        match &self.phase {
            Phase::Selecting => (Request { kind: Kind::Discover, ..blank }, To::ALL),
            Phase::Requesting { server, address } => {
                (Request { requested: Some(*address), server: Some(*server), ..blank }, To::ALL)
            }
            Phase::Rebooting => (blank, To::ALL),
            Phase::Bound | Phase::Renewing => {
                (renewal(), grant.map_or(To::ALL, |grant| To { address: grant.server, mac: grant.via }))
            }
            Phase::Rebinding => (renewal(), To::ALL),
        }
    }

    /// Time until a renewal is sent again: half of what is left.
    fn patience(&self, until: Duration, now: Duration) -> Duration {
        let lease = self.grant.as_ref().map_or(u32::MAX, |grant| grant.terms.lease);
        let least = RENEWALS.min(Duration::from_secs((lease / 8).max(1).into()));
        (until.saturating_sub(now) / 2).max(least)
    }

    /// Time until anything else is sent again, a bit less or more so that many clients do not speak at once.
    fn pause(&self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.tries.min(10)).min(LAST);
        whole * 7 / 8 + whole / 4 * (self.xid >> 16 & 0xff) / 256
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
