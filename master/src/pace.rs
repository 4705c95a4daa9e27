//! When the next transaction is sent. At once, as long as changes come one by one. In a storm of changes that can wait, such as the
//! endpoints of hundreds of Services, a little later than the one before, so that many go together: a server copies and logs, and northd
//! computes, for each transaction anew.
//!
//! A storm is seen by what gathers: something while a transaction is under way, then more during a pause than a calm cluster changes in
//! that time. What must not wait ends the pause for all. Must not: read a clock.

use std::time::Duration;

/// Changes that are enough for a transaction.
const FULL: usize = 100;
/// So many that come while transactions are under way are no coincidence. One is: who watches the database may see a transaction, and make
/// the next change, before its reply is here.
const CROWD: usize = 2;
/// The first pause of a storm, and the following ones. The second is what a change waits at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(40)];
/// A pause ends when nothing came for so long.
const QUIET: Duration = Duration::from_millis(8);
/// A pause during which a change came at least so often on average is followed by another.
const OFTEN: Duration = Duration::from_millis(4);

/// See the file header.
#[derive(Debug, Default)]
pub struct Pace {
    sent: Duration,
    pause: Duration,
    /// Changes that are not sent yet.
    gathered: usize,
    /// When the last of them came.
    last: Duration,
    urgent: bool,
    /// Changes that came before the replies to the last transactions, without a reply before which none came.
    crowd: usize,
}

impl Pace {
    /// Something is to be written. `patient`: it can wait for others.
    pub fn note(&mut self, now: Duration, patient: bool) {
        self.gathered += 1;
        self.last = now;
        self.urgent |= !patient;
    }

    /// From when on the next transaction may be sent.
    pub fn opens(&self) -> Duration {
        match self.gathered {
            1..FULL if !self.urgent => (self.sent + self.pause).min(self.last + QUIET),
            _ => Duration::ZERO,
        }
    }

    /// There was nothing to write after all.
    pub fn clear(&mut self) {
        self.gathered = 0;
        self.urgent = false;
    }

    /// Transactions with so many changes are sent; `more`: there was no room for all.
    pub fn sent(&mut self, now: Duration, changes: usize, more: bool) {
        let waited = now.saturating_sub(self.sent).min(self.pause);
        let [first, next] = PAUSES;
        self.pause = match self.pause {
            Duration::ZERO if self.crowd >= CROWD => first,
            Duration::ZERO => Duration::ZERO,
            _ if waited <= OFTEN * self.gathered as u32 => next,
            _ => Duration::ZERO,
        };
        self.sent = now;
        self.gathered = if more { self.gathered.saturating_sub(changes).max(1) } else { 0 };
        self.urgent &= more;
    }

    /// A transaction has ended.
    pub fn replied(&mut self) {
        self.crowd = if self.gathered > 0 { self.crowd + self.gathered } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Changes come every `every` microseconds for a while; a transaction takes one millisecond. When each transaction was sent, and the
    /// longest that a change waited.
    fn run(count: usize, every: u64, patient: bool) -> (Vec<Duration>, Duration) {
        let (mut pace, mut sent, mut waiting, mut longest) = (Pace::default(), Vec::new(), None, Duration::ZERO);
        let (mut now, mut come) = (Duration::from_secs(1), 0);
        let began = now;
        while come < count || waiting.is_some() {
            if sent.last().is_some_and(|last| now == *last + ms(1)) {
                pace.replied();
            }
            if come < count && now >= began + Duration::from_micros(every) * come as u32 {
                come += 1;
                pace.note(now, patient);
                waiting.get_or_insert(now);
            }
            let free = sent.last().is_none_or(|last| now >= *last + ms(1));
            if free && waiting.is_some() && now >= pace.opens() {
                longest = longest.max(now - waiting.take().expect("waits"));
                pace.sent(now, 1, false);
                sent.push(now);
            }
            now += Duration::from_micros(50);
        }
        (sent, longest)
    }

    #[test]
    fn changes_one_by_one_never_wait() {
        for every in [1_000, 2_500, 100_000] {
            let (sent, longest) = run(200, every, true);
            assert_eq!((sent.len(), longest), (200, Duration::ZERO), "every {every} us");
        }
    }

    #[test]
    fn a_change_that_overtakes_a_reply_is_no_storm() {
        let mut pace = Pace::default();
        for n in 1..100 {
            pace.note(ms(n), true);
            assert!(pace.opens() <= ms(n), "change {n} waits");
            pace.sent(ms(n), 1, false);
            if n % 2 == 0 {
                pace.note(ms(n), true);
                pace.replied();
                assert!(pace.opens() <= ms(n), "the one that overtakes reply {n} waits");
                pace.sent(ms(n), 1, false);
            }
            pace.replied();
        }
    }

    #[test]
    fn a_storm_goes_in_few_transactions_and_nothing_waits_long() {
        for every in [100, 250, 400] {
            let (sent, longest) = run(400, every, true);
            assert!(sent.len() <= 8, "every {every} us: {} transactions", sent.len());
            assert!(longest <= PAUSES[1], "every {every} us: {longest:?}");
        }
    }

    #[test]
    fn what_must_not_wait_does_not() {
        let (_, longest) = run(400, 250, false);
        assert!(longest <= ms(1), "the time of a transaction, not {longest:?}");
    }

    #[test]
    fn a_calm_after_the_storm_ends_the_pauses() {
        let (sent, _) = run(400, 250, true);
        let mut pace = Pace { sent: *sent.last().expect("sent"), pause: PAUSES[1], ..Pace::default() };
        let later = pace.sent + ms(500);
        pace.note(later, true);
        assert!(pace.opens() <= later, "the first change is sent at once");
        pace.sent(later, 1, false);
        pace.note(later, true);
        assert_eq!(pace.opens(), later, "and the one after it, too");
    }

    #[test]
    fn a_backlog_goes_on_at_once_and_its_rest_with_what_comes() {
        let mut pace = Pace { pause: PAUSES[1], ..Pace::default() };
        (0..250).for_each(|_| pace.note(ms(1), true));
        assert_eq!(pace.opens(), Duration::ZERO);
        pace.sent(ms(1), 100, true);
        assert_eq!(pace.opens(), Duration::ZERO);
        pace.sent(ms(2), 100, true);
        assert_eq!(pace.opens(), ms(1) + QUIET, "nothing new has come");
        pace.note(ms(5), true);
        assert_eq!(pace.opens(), ms(5) + QUIET);
    }
}
