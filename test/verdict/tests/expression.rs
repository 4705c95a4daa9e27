//! The language of matches: what a match says of frames, and what is refused. The cases follow ovn-sb(5).

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use ovenbird_verdict::expression::{Constant, Expression, Sets};
use ovenbird_verdict::frame::{Content, Frame};
use ovenbird_verdict::{Packet, Protocol};

fn sets() -> Sets {
    let constants = |texts: &[&str]| -> Arc<[Constant]> { texts.iter().map(|t| Constant::parse(t).unwrap()).collect() };
    let names = |names: &[&str]| -> Arc<HashSet<String>> { Arc::new(names.iter().map(|n| (*n).to_owned()).collect()) };
    let mut sets = Sets::default();
    sets.addresses.insert("v4".into(), constants(&["10.0.0.1", "192.0.2.0/24"]));
    sets.addresses.insert("v6".into(), constants(&["fd00::1", "2001:db8::/32"]));
    sets.addresses.insert("none".into(), constants(&[]));
    sets.groups.insert("pg_1.x".into(), names(&["x_a", "x_b"]));
    sets.groups.insert("empty".into(), names(&[]));
    sets
}

fn ip(source: &str, destination: &str, protocol: Protocol, port: u16) -> Content {
    let parse = |text: &str| -> IpAddr { text.parse().unwrap() };
    Content::Ip(Packet { source: parse(source), destination: parse(destination), protocol, source_port: 40000, port })
}

/// The frames, each with a letter.
fn frames() -> Vec<(char, Content)> {
    let Content::Ip(solicitation) = ip("fd00::1", "fd00::2", Protocol::Icmp, 0) else { panic!() };
    vec![
        ('t', ip("10.0.0.1", "10.0.0.2", Protocol::Tcp, 80)),
        ('T', ip("fd00::1", "fd00::2", Protocol::Tcp, 8080)),
        ('u', ip("192.0.2.9", "10.0.0.2", Protocol::Udp, 80)),
        ('s', ip("10.9.9.9", "224.0.0.1", Protocol::Sctp, 81)),
        ('i', ip("10.0.0.1", "10.0.0.2", Protocol::Icmp, 0)),
        ('I', ip("2001:db8::7", "ff02::1", Protocol::Icmp, 0)),
        ('a', Content::Arp),
        ('n', Content::Solicitation(solicitation)),
    ]
}

/// Matches, and the letters of the frames that match.
const MEANINGS: &[(&str, &str)] = &[
    ("1", "tTusiIan"),
    ("0", ""),
    ("!0", "tTusiIan"),
    ("!(1)", ""),
    ("ip", "tTusiIn"),
    ("ip4", "tusi"),
    ("ip6", "TIn"),
    ("arp", "a"),
    ("arp || nd", "an"),
    ("nd_ns || nd_na", "n"),
    ("nd_rs || nd_ra", ""),
    ("tcp", "tT"),
    ("udp", "u"),
    ("sctp", "s"),
    ("icmp", "iIn"),
    ("icmp4", "i"),
    ("icmp6", "In"),
    ("icmp4.type == 8", "i"),
    ("icmp6.type == {128, 135} && icmp6.code == 0", "In"),
    ("ip.proto == 6", "tT"),
    ("ip.proto == {6 17 132}", "tTus"),
    ("eth.type == 0x806", "a"),
    // Addresses.
    ("ip4.src == 10.0.0.1", "ti"),
    ("10.0.0.1 == ip4.src", "ti"),
    ("ip4.src == 10.0.0.0/8", "tsi"),
    ("ip4.src == 10.0.0.0/255.0.0.0", "tsi"),
    ("ip4.src == 0.0.0.0/0", "tusi"),
    ("ip4.src == 10.0.0.1/32", "ti"),
    ("ip4.src == {10.0.0.1, 192.0.2.9,}", "tui"),
    ("ip4.src == $v4", "tui"),
    ("ip4.src == {$v4, 10.9.9.9}", "tusi"),
    ("ip4.src == $none", ""),
    ("ip4.src != $none", "tusi"),
    ("ip6.src == $v6", "TIn"),
    ("ip6.src == fd00::/16", "Tn"),
    ("ip6.src == ::/0", "TIn"),
    ("ip4.mcast || ip6.mcast", "sI"),
    ("!ip4.mcast", "tTuiIan"),
    // Exceptions. A comparison asks for the header, also when negated.
    ("ip4.src == 10.0.0.0/8 && ip4.src != 10.9.0.0/16", "ti"),
    ("ip4.src != {10.0.0.1, 10.9.9.9}", "u"),
    ("!(ip4.src == {10.0.0.1, 10.9.9.9})", "u"),
    ("ip4.src == 10.0.0.0/8 && ip4.src != {10.9.9.9, 10.8.8.8}", "ti"),
    // Ports.
    ("tcp.dst == 80", "t"),
    ("tcp.dst != 80", "T"),
    ("!(tcp.dst == 80)", "T"),
    ("!(!(tcp.dst == 80))", "t"),
    ("udp.dst == 80 && udp.src == 40000", "u"),
    ("80 <= tcp.dst <= 8080", "tT"),
    ("81 <= tcp.dst <= 8080", "T"),
    ("8080 >= tcp.dst > 80", "T"),
    ("79 < tcp.dst < 81", "t"),
    ("!(79 < tcp.dst < 81)", "T"),
    ("tcp.dst >= 8080", "T"),
    ("tcp.dst < 0", ""),
    ("tcp.dst < 8080", "t"),
    ("tcp.dst > 8080", ""),
    ("tcp.dst == 0x50", "t"),
    ("tcp.dst == {80, 8080} || sctp.dst == 81", "tTs"),
    ("tcp.dst == 0x1f90/0xfff0", "T"),
    ("(tcp && tcp.dst == 80) || (udp && udp.dst == 80)", "tu"),
    ("!(tcp.dst == 80 || udp.dst == 80)", ""),
    ("!(tcp.dst != 80 && tcp.dst != 8080)", "tT"),
    // Where.
    (r#"inport == "x_a""#, "tTusiIan"),
    (r#"inport == "x_b""#, ""),
    (r#"inport == {"x_b", "x_a"}"#, "tTusiIan"),
    (r#"!(inport != "x_a")"#, "tTusiIan"),
    ("inport == @pg_1.x", "tTusiIan"),
    ("inport == @empty", ""),
    ("outport == @pg_1.x && ip4", ""),
    (r#"outport == "y_a""#, "tTusiIan"),
    (r#""x_a" == inport"#, "tTusiIan"),
    ("eth.src == 0a:58:0a:80:00:05", "tTusiIan"),
    ("eth.dst == ff:ff:ff:ff:ff:ff", ""),
    ("!eth.bcast && !eth.mcast", "tTusiIan"),
    ("  ip4&&tcp  ", "t"),
];

#[test]
fn matches_mean_what_ovn_sb_says() {
    for (text, expected) in MEANINGS {
        let expression = Expression::parse(text, &sets()).unwrap_or_else(|e| panic!("{text}: {e}"));
        let at = |content| Frame {
            inport: "x_a",
            outport: "y_a",
            eth_src: 0x0a58_0a80_0005,
            eth_dst: 0x0a58_0a80_0001,
            content,
        };
        let found: String = frames()
            .into_iter()
            .filter(|(_, content)| expression.matches(&at(*content)))
            .map(|(letter, _)| letter)
            .collect();
        assert_eq!(found, *expected, "{text}");
    }
}

#[test]
fn what_ovn_refuses_is_refused_at_its_place() {
    let deep = format!("{}1{}", "(".repeat(101), ")".repeat(101));
    let cases = [
        ("", 0, "constant expected"),
        ("ip4 &&", 6, "constant expected"),
        ("ip4 tcp", 4, "end of the match expected"),
        ("(ip4", 4, "`)' expected"),
        ("ip5", 0, "unknown symbol ip5"),
        ("ip4 && tcp || udp", 11, "&& and || must be parenthesized when used together"),
        ("!tcp.dst == 80", 14, "missing parentheses around operand of !"),
        ("!ip4", 1, "nominal predicate ip4 may only be tested positively"),
        ("!(ip4 || arp)", 2, "nominal predicate ip4 may only be tested positively"),
        (r#"inport != "x""#, 0, "nominal field inport may only be tested for equality"),
        ("outport != @pg_1.x", 0, "nominal field outport may only be tested for equality"),
        ("ip.proto < 6", 0, "nominal field ip.proto may only be tested for equality"),
        ("ip4.src == $nobody", 11, "address set name expected"),
        ("inport == @nobody", 10, "port group name expected"),
        ("ip4.src == @pg_1.x", 11, "ip4.src is compared with numbers and addresses"),
        ("inport == $v4", 10, "inport is compared with names"),
        ("ip4.src == $v6", 11, "a constant does not fit ip4.src"),
        ("ip6.src == 10.0.0.1", 11, "a constant does not fit ip6.src"),
        ("tcp.dst == 65536", 11, "a constant does not fit tcp.dst"),
        ("tcp.dst <= {80, 81}", 11, "only == and != may be used with sets"),
        ("ip4.src < $v4", 0, "only == and != may be used with sets"),
        ("ip4.src < 10.0.0.0/8", 0, "only == and != may be used with masked constants"),
        ("ip4.src == 10.0.0.1/8", 11, "10.0.0.1/8 has bits outside its mask"),
        ("ip4.src == 10.0.0.0/33", 11, r#""33" is no mask of 10.0.0.0"#),
        ("ip4.src == 10.0.0.256", 11, r#""10.0.0.256" is no constant"#),
        ("ip4.src == {}", 12, "constant expected"),
        ("80 < tcp.dst > 90", 15, "range expressions must have the form `x < field < y' or `x > field > y'"),
        ("tcp.dst", 7, "relational operator expected"),
        ("tcp.dst = 80", 8, r#"'=' means nothing here"#),
        (r#"inport == "x"#, 10, "text without closing quote"),
        ("ip4.src == $", 11, "name expected after $"),
        ("ip4 && é", 7, "'é' means nothing here"),
        (&deep, 101, "parentheses nested too deeply"),
    ];
    for (text, at, problem) in cases {
        let error = Expression::parse(text, &sets()).unwrap_err();
        assert_eq!((error.at, error.problem.as_str()), (at, problem), "{text}");
    }
}

#[test]
fn no_text_makes_the_parser_panic() {
    let words = [
        "ip4", "&&", "||", "!", "(", ")", "{", "}", ",", "==", "<", "tcp.dst", "80", "1", "$v4", "@empty", "inport",
        "\"x\"", "/", "\"", "fd00::/8", "é",
    ];
    let mut seed = 1u32;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..8 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.push_str(words[usize::try_from(seed >> 16).unwrap() % words.len()]);
            if seed & 0x8000 == 0 {
                text.push(' ');
            }
        }
        if let Err(error) = Expression::parse(&text, &sets()) {
            assert!(error.at <= text.len(), "{text}");
        }
    }
}
