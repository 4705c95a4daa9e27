//! The client as a machine: what it says and when, by tables, and by a property that no server may break. It must not need a clock.

use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::super::message::tests::{MAC, ip};
use super::*;

const VIA: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn terms(address: &str, lease: u32) -> Terms {
    let address: Ipv4Net = address.parse().unwrap();
    Terms { address, router: None, mtu: None, routes: Vec::new(), lease, renewal: None, rebinding: None }
}

/// A client and what happens around it.
struct World {
    client: Client,
    now: Duration,
}

impl World {
    fn new() -> World {
        let who = Who { mac: MAC, host_name: "web".into() };
        World { client: Client::new(who, None, 7, secs(100)), now: secs(100) }
    }

    /// Waits for the next message; its kind and way.
    fn sends(&mut self) -> (Request, To) {
        self.now = self.now.max(self.client.deadline());
        let (sent, news) = self.client.tick(self.now);
        assert_eq!(news, None);
        sent.expect("a message")
    }

    fn hears(&mut self, said: Said, terms: Option<Terms>) -> Option<News> {
        let reply = Reply { said, xid: self.client.xid, mac: MAC, server: ip("192.168.100.250"), terms };
        self.client.receive(&reply, VIA, self.now)
    }

    fn bound(lease: u32) -> World {
        let mut world = World::new();
        assert_eq!(world.sends().0.kind, Kind::Discover);
        assert_eq!(world.hears(Said::Offer, Some(terms("192.168.100.50/24", lease))), None);
        let (request, to) = world.sends();
        assert_eq!((request.kind, request.requested, to), (Kind::Request, Some(ip("192.168.100.50")), To::ALL));
        assert_eq!((request.address, request.server), (Ipv4Addr::UNSPECIFIED, Some(ip("192.168.100.250"))));
        let news = world.hears(Said::Ack, Some(terms("192.168.100.50/24", lease)));
        assert!(matches!(news, Some(News::Granted(_))), "{news:?}");
        world
    }
}

#[test]
fn four_messages_give_an_address() {
    let world = World::bound(800);
    let grant = world.client.grant().unwrap();
    assert_eq!((grant.renew, grant.rebind, grant.end), (secs(500), secs(800), secs(900)), "from 100 on, by RFC 2131");
    assert!(!world.client.is_asking() && world.client.deadline() == secs(500));
}

#[test]
fn what_nobody_answers_is_sent_again_ever_more_seldom() {
    let mut world = World::new();
    let mut pauses = Vec::new();
    for _ in 0..9 {
        assert_eq!(world.sends().0.kind, Kind::Discover);
        pauses.push((world.client.deadline() - world.now).as_secs_f64());
    }
    for (pause, want) in pauses.iter().zip([1, 2, 4, 8, 16, 32, 64, 64, 64].map(f64::from)) {
        assert!((want * 0.87..want * 1.13).contains(pause), "{pauses:?}");
    }
    // A server that offers and is gone.
    world.hears(Said::Offer, Some(terms("192.168.100.50/24", 60)));
    for kind in [Kind::Request, Kind::Request, Kind::Request, Kind::Request, Kind::Discover] {
        assert_eq!(world.sends().0.kind, kind);
    }
}

#[test]
fn a_lease_is_renewed_with_its_server_then_with_any_then_lost() {
    let mut world = World::bound(800);
    let (request, to) = world.sends();
    assert_eq!((world.now, request.address, request.requested), (secs(500), ip("192.168.100.50"), None));
    assert_eq!(to, To { address: ip("192.168.100.250"), mac: VIA });
    assert_eq!(request.server, None, "section 4.3.6");
    let news = world.hears(Said::Ack, Some(terms("192.168.100.50/24", 800)));
    assert!(matches!(&news, Some(News::Granted(grant)) if grant.end == secs(1300)), "{news:?}");
    // Nobody answers any more.
    let mut ways = Vec::new();
    let lost = loop {
        world.now = world.client.deadline();
        match world.client.tick(world.now) {
            (Some((_, to)), None) => ways.push((world.now.as_secs(), to == To::ALL)),
            (_, news) => break news,
        }
    };
    assert_eq!(ways, [(900, false), (1050, false), (1125, false), (1185, false), (1200, true), (1260, true)]);
    assert_eq!((world.now, lost), (secs(1300), Some(News::Lost(ip("192.168.100.50"), Loss::Expired))));
    assert_eq!(world.client.grant(), None);
    // It asks for that address alone.
    let (request, _) = world.sends();
    assert_eq!((request.kind, request.requested), (Kind::Discover, Some(ip("192.168.100.50"))));
    world.hears(Said::Offer, Some(terms("192.168.100.51/24", 800)));
    assert_eq!(world.sends().0.kind, Kind::Discover);
    world.hears(Said::Offer, Some(terms("192.168.100.50/24", 800)));
    assert_eq!(world.sends().0.kind, Kind::Request);
    assert!(matches!(world.hears(Said::Ack, Some(terms("192.168.100.50/24", 800))), Some(News::Granted(_))));
}

#[test]
fn another_address_or_a_no_ends_it_at_once() {
    for (said, terms, why) in [
        (Said::Nak, None, Loss::Refused),
        (Said::Ack, Some(terms("192.168.100.51/24", 800)), Loss::Changed(ip("192.168.100.51"))),
    ] {
        let mut world = World::bound(800);
        world.sends();
        assert_eq!(world.hears(said, terms), Some(News::Lost(ip("192.168.100.50"), why)));
    }
    let mut world = World::new();
    world.sends();
    world.hears(Said::Offer, Some(terms("192.168.100.50/24", 800)));
    world.sends();
    assert_eq!(world.hears(Said::Nak, None), None, "nothing is lost that was not there");
    assert_eq!(world.sends().0.kind, Kind::Discover);
}

#[test]
fn after_a_restart_it_asks_for_what_it_had() {
    let held = World::bound(800).client.grant().cloned().unwrap();
    let who = Who { mac: MAC, host_name: "web".into() };
    let mut world = World { client: Client::rebooting(who, held, 9, secs(700)), now: secs(700) };
    let (request, to) = world.sends();
    assert_eq!(
        (request.kind, request.requested, request.server, to),
        (Kind::Request, Some(ip("192.168.100.50")), None, To::ALL)
    );
    assert_eq!(request.address, Ipv4Addr::UNSPECIFIED);
    let mut other = world.client.clone();
    assert!(matches!(world.hears(Said::Ack, Some(terms("192.168.100.50/24", 800))), Some(News::Granted(_))));
    // Nobody answers: it is used until its end.
    let lost = loop {
        let now = other.deadline();
        if let (_, Some(news)) = other.tick(now) {
            break (now, news);
        }
    };
    assert_eq!(lost, (secs(900), News::Lost(ip("192.168.100.50"), Loss::Expired)));
}

#[test]
fn what_is_given_back_says_so_to_its_server() {
    let world = World::bound(800);
    let (release, to) = world.client.end(Kind::Release).unwrap();
    assert_eq!(
        (release.address, release.requested, release.server),
        (ip("192.168.100.50"), None, Some(ip("192.168.100.250")))
    );
    assert_eq!(to.mac, VIA);
    let (decline, to) = world.client.end(Kind::Decline).unwrap();
    assert_eq!((decline.address, decline.requested), (Ipv4Addr::UNSPECIFIED, Some(ip("192.168.100.50"))));
    assert_eq!(to, To::ALL);
    assert_eq!(World::new().client.end(Kind::Release), None);
}

#[test]
fn times_that_make_no_sense_are_put_right() {
    for (lease, renewal, rebinding, want) in [
        (120, Some(5), Some(60), (5, 60, 120)),
        (120, Some(5), None, (5, 105, 120)),
        (120, Some(200), Some(0), (60, 105, 120)),
        (120, Some(100), Some(60), (60, 60, 120)),
        (1, None, None, (1, 1, 1)),
    ] {
        let mut world = World::new();
        world.sends();
        let terms = Terms { renewal, rebinding, ..terms("192.168.100.50/24", lease) };
        world.hears(Said::Offer, Some(terms.clone()));
        world.sends();
        world.hears(Said::Ack, Some(terms));
        let grant = world.client.grant().unwrap();
        let since = |at: Duration| (at - secs(100)).as_secs();
        assert_eq!((since(grant.renew), since(grant.rebind), since(grant.end)), want);
    }
    let world = World::bound(u32::MAX);
    assert_eq!(world.client.deadline(), NEVER);
}

proptest! {
    /// Whatever servers say and whenever: it never uses an address beyond its end, speaks finitely often, and wants one address for life.
    #[test]
    fn it_keeps_to_its_lease(
        steps in prop::collection::vec((0u8..4, 0u64..200, 1u32..400, 0u8..3, any::<bool>()), 1..120)
    ) {
        let mut world = World::new();
        let (mut end, mut first) = (None, None);
        for (what, wait, lease, address, ours) in steps {
            world.now += secs(wait);
            let mut messages = 0;
            while world.client.deadline() <= world.now {
                let at = world.client.deadline();
                let (sent, news) = world.client.tick(at);
                messages += 1;
                prop_assert!(messages < 200, "too many messages in {wait} s");
                prop_assert!(world.client.deadline() > at, "it goes round in circles");
                if let Some(News::Lost(..)) = news { end = None; }
                prop_assert!(sent.is_none() || end.is_none_or(|end| at < end), "used beyond its end");
            }
            let said = [Said::Offer, Said::Ack, Said::Nak, Said::Offer][usize::from(what)];
            let terms = terms(&format!("192.168.100.5{address}/24"), lease);
            let xid = if ours { world.client.xid } else { 1 };
            let reply = Reply { said, xid, mac: MAC, server: ip("192.168.100.250"), terms: Some(terms) };
            match world.client.receive(&reply, VIA, world.now) {
                Some(News::Granted(grant)) => {
                    prop_assert!(first.is_none_or(|first| first == grant.terms.address), "another address");
                    (first, end) = (Some(grant.terms.address), Some(grant.end));
                }
                Some(News::Lost(..)) => end = None,
                None => {}
            }
            prop_assert_eq!(world.client.grant().is_some(), end.is_some());
        }
    }
}
