//! Answers about policies for people: the verdict first, then why.
//!
//! Inputs: an answer, what was traced, whether to colour. Output: text. Must not: judge.

use std::fmt::Write as _;

use ovenbird_topology::check::answer::{
    Answer, Decision, Direction, Isolation, Judgement, Miss, Overview, Path, Rule, State, Verdict,
};

use super::trace::Traced;
use crate::table::table;

/// Rules that do not fit are told up to this number.
const OTHERS: usize = 10;

/// How text is dressed.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// With ANSI colours.
    pub coloured: bool,
}

/// Colours of verdicts (ECMA-48, Select Graphic Rendition).
#[derive(Clone, Copy)]
enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
}

impl Style {
    fn paint(self, colour: Colour, text: &str) -> String {
        if self.coloured { format!("\x1b[1;{}m{text}\x1b[0m", colour as u8) } else { text.to_owned() }
    }

    fn verdict(self, verdict: Verdict, text: &str) -> String {
        let colour = match verdict {
            Verdict::Allowed => Colour::Green,
            Verdict::Denied => Colour::Red,
            Verdict::Partly => Colour::Yellow,
        };
        self.paint(colour, text)
    }
}

/// An answer.
pub fn answer(answer: &Answer, live: Option<&[Traced]>, style: Style) -> String {
    match answer {
        Answer::Decision(of) => decision(of, live, style),
        Answer::Overview(of) => overview(of),
    }
}

/// Paths of which all but the addresses is the same, with what was traced of each.
struct Bundle<'a> {
    path: &'a Path,
    ways: Vec<(String, Option<&'a Traced>)>,
}

fn decision(of: &Decision, live: Option<&[Traced]>, style: Style) -> String {
    let Decision { verdict, source, destination, port, paths, notes } = of;
    let word = match verdict {
        Verdict::Allowed => "ALLOWED",
        Verdict::Denied => "DENIED",
        Verdict::Partly => "PARTLY ALLOWED",
    };
    let what = port.as_deref().unwrap_or("everything");
    let mut out = format!("{}  {what} from {source} to {destination}\n", style.verdict(*verdict, word));
    let mut bundles: Vec<Bundle<'_>> = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let way = (format!("{} -> {}", path.source, path.destination), live.and_then(|live| live.get(index)));
        match bundles.iter_mut().find(|bundle| is_alike(bundle.path, path)) {
            Some(bundle) => bundle.ways.push(way),
            None => bundles.push(Bundle { path, ways: vec![way] }),
        }
    }
    for bundle in &bundles {
        add_bundle(&mut out, bundle, style);
    }
    add_notes(&mut out, notes);
    if live.is_some_and(|live| super::differs(of, live)) {
        let word = style.paint(Colour::Red, "THE SNAPSHOT AND OVN DIFFER");
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "\n{word}: what the master knows is not what OVN does. If it stays so: `ovenbird status` tells of rows that wait or are \
             rejected, and `ovn-nbctl --wait=sb sync` of an ovn-northd that lags."
        );
    }
    out
}

fn is_alike(a: &Path, b: &Path) -> bool {
    (a.verdict, &a.passes, &a.egress, &a.ingress) == (b.verdict, &b.passes, &b.egress, &b.ingress)
}

fn add_bundle(out: &mut String, bundle: &Bundle<'_>, style: Style) {
    out.push('\n');
    for (way, _) in &bundle.ways {
        *out += &format!("{way}\n");
    }
    let path = bundle.path;
    let mut lines = Vec::new();
    for (direction, judgement) in [("egress of", &path.egress), ("ingress of", &path.ingress)] {
        lines.extend(judgement.iter().map(|of| (format!("{direction} {}", of.pod), verdict_of(of.state), why(of))));
    }
    if lines.is_empty() {
        lines.push(("no pod".to_owned(), Verdict::Allowed, vec!["NetworkPolicies are for pods alone".to_owned()]));
    }
    let snapshot_only = lines.len();
    for (way, traced) in &bundle.ways {
        let Some(traced) = traced else { continue };
        let verdict = if traced.arrives == Some(true) { Verdict::Allowed } else { Verdict::Denied };
        let mut told = vec![traced.detail.clone()];
        if bundle.ways.len() > 1 {
            told[0] = format!("{way}: {}", told[0]);
        }
        if traced.differs(path.verdict) {
            told.push(style.paint(Colour::Red, "this DIFFERS from the snapshot"));
        }
        lines.push(("ovn-trace".to_owned(), verdict, told));
    }
    let width = lines.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
    for (index, (name, verdict, told)) in lines.iter().enumerate() {
        let word = match verdict {
            Verdict::Allowed => "allowed",
            Verdict::Denied => "denied ",
            Verdict::Partly => "partly ",
        };
        let untraced = index >= snapshot_only && told.iter().any(|text| text.starts_with("not followed"));
        let word = if untraced { "       ".to_owned() } else { style.verdict(*verdict, word) };
        for (line, text) in told.iter().enumerate() {
            let start = if line == 0 { format!("  {name:<width$}  {word}") } else { " ".repeat(width + 11) };
            *out += format!("{start}  {text}").trim_end();
            out.push('\n');
        }
    }
    if path.verdict == Verdict::Partly {
        *out += &format!("  {:<width$}  {}\n", "passes", path.passes.join(", "));
    }
}

fn verdict_of(state: State) -> Verdict {
    match state {
        State::Denied => Verdict::Denied,
        State::Partly => Verdict::Partly,
        State::Open | State::OwnNode | State::Itself | State::Allowed => Verdict::Allowed,
    }
}

/// Why a side says what it says, line by line.
fn why(of: &Judgement) -> Vec<String> {
    let isolated = || format!("isolated by {}", of.isolated_by.join(", "));
    let mut lines = match of.state {
        State::Open => return vec!["no policy isolates it".to_owned()],
        State::OwnNode => return vec!["from its own node, which no policy can keep out".to_owned()],
        State::Itself => return vec!["from itself, which no policy can keep out".to_owned()],
        State::Allowed => vec![isolated()],
        State::Partly => vec![format!("{}; some passes", isolated())],
        State::Denied => vec![format!("{}; no rule lets it pass", isolated())],
    };
    lines.extend(of.rules.iter().map(|rule| format!("{} lets it pass: {}", place(rule), content(rule))));
    if of.state != State::Allowed {
        let other = |miss, rule| match miss {
            Miss::Peer => format!("{} is for others: {}", place(rule), content(rule)),
            Miss::Port => format!("{} is for other ports: {}", place(rule), content(rule)),
        };
        lines.extend(of.others.iter().take(OTHERS).map(|of| other(of.misses, &of.rule)));
    }
    let untold = if of.state == State::Allowed { 0 } else { of.others.len().saturating_sub(OTHERS) };
    if untold + of.left_out > 0 {
        lines.push(format!("... and {} more (--output json tells most)", untold + of.left_out));
    }
    lines
}

/// `web/in ingress[0]`.
fn place(rule: &Rule) -> String {
    let direction = match rule.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    format!("{} {direction}[{}]", rule.policy, rule.index)
}

/// `pods app=b of namespace web: tcp/80`.
fn content(rule: &Rule) -> String {
    format!("{}: {}", rule.peers.join(", "), rule.ports.join(", "))
}

fn overview(of: &Overview) -> String {
    let Overview { pod, node, addresses, ingress, egress, notes } = of;
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let addresses = if addresses.is_empty() { "no addresses".to_owned() } else { addresses.join(" ") };
    let mut out = format!("pod      {pod} on {}, {addresses}\n", node.as_deref().unwrap_or("no node"));
    let mut rows = Vec::new();
    for (name, Isolation { isolated_by, rules, left_out }) in [("ingress", ingress), ("egress", egress)] {
        let state = if isolated_by.is_empty() {
            "not isolated: everything passes".to_owned()
        } else {
            let only = if rules.is_empty() { ": nothing passes" } else { ": only what a rule below lets pass" };
            format!("isolated by {}{only}", isolated_by.join(", "))
        };
        let more = if *left_out > 0 { format!(" (and {left_out} more policies and rules)") } else { String::new() };
        out += &format!("{name:<7}  {state}{more}\n");
        rows.extend(rules.iter().map(|rule| vec![place(rule), rule.peers.join(", "), rule.ports.join(", ")]));
    }
    table(&mut out, &["RULE", "PEERS", "PORTS"], rows);
    add_notes(&mut out, notes);
    out
}

fn add_notes(out: &mut String, notes: &[String]) {
    if !notes.is_empty() {
        out.push('\n');
    }
    notes.iter().for_each(|note| *out += &format!("note: {note}\n"));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PLAIN: Style = Style { coloured: false };

    fn rule(policy: &str, index: u8, peers: &Value, ports: &Value) -> Value {
        json!({"policy": policy, "direction": "ingress", "index": index, "peers": peers, "ports": ports})
    }

    /// A decision on two paths, IPv4 and IPv6, that differ when `differ` says so.
    fn denied(differ: bool) -> Answer {
        let mut other =
            rule("web/in", 0, &json!(["all pods of namespaces team=red", "192.0.2.0/24"]), &json!(["tcp/80"]));
        other["misses"] = "peer".into();
        let mut path = json!({"source": "10.0.0.4", "destination": "10.0.0.3", "verdict": "denied", "passes": [], "microflow": null,
            "egress": {"pod": "web/b", "state": "open", "isolated_by": [], "rules": [], "others": [], "left_out": 0},
            "ingress": {"pod": "web/a", "state": "denied", "isolated_by": ["web/deny", "web/in"], "rules": [],
                "others": [other], "left_out": 2}});
        let mut second = path.clone();
        (second["source"], second["destination"]) = ("fd01::4".into(), "fd01::3".into());
        if differ {
            path["verdict"] = "partly".into();
            path["passes"] = json!(["tcp/80", "udp"]);
            let some = rule("web/in", 1, &json!(["10.0.0.0/24"]), &json!(["tcp/80", "udp"]));
            path["ingress"] = json!({"pod": "web/a", "state": "partly", "isolated_by": ["web/in"], "rules": [some], "others": [], "left_out": 0});
        }
        serde_json::from_value(
            json!({"decision": {"verdict": if differ { "partly" } else { "denied" }, "source": "web/b",
            "destination": "web/a", "port": if differ { json!(null) } else { json!("tcp/80") }, "paths": [path, second],
            "notes": ["web/b is odd"]}}),
        )
        .unwrap()
    }

    #[test]
    fn verdict_first_then_why() {
        let expected = "\
DENIED  tcp/80 from web/b to web/a

10.0.0.4 -> 10.0.0.3
fd01::4 -> fd01::3
  egress of web/b   allowed  no policy isolates it
  ingress of web/a  denied   isolated by web/deny, web/in; no rule lets it pass
                             web/in ingress[0] is for others: all pods of namespaces team=red, 192.0.2.0/24: tcp/80
                             ... and 2 more (--output json tells most)

note: web/b is odd
";
        assert_eq!(answer(&denied(false), None, PLAIN), expected);
    }

    #[test]
    fn addresses_that_fare_differently_stand_apart() {
        let expected = "\
PARTLY ALLOWED  everything from web/b to web/a

10.0.0.4 -> 10.0.0.3
  egress of web/b   allowed  no policy isolates it
  ingress of web/a  partly   isolated by web/in; some passes
                             web/in ingress[1] lets it pass: 10.0.0.0/24: tcp/80, udp
  passes            tcp/80, udp

fd01::4 -> fd01::3
";
        let text = answer(&denied(true), None, PLAIN);
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn what_ovn_says_otherwise_is_said_aloud() {
        let traced = |arrives| Traced { arrives, detail: "output to \"web_a\"".into() };
        let live = [traced(Some(false)), traced(Some(true))];
        let text = answer(&denied(false), Some(&live), PLAIN);
        let lines = "  ovn-trace         denied   10.0.0.4 -> 10.0.0.3: output to \"web_a\"
  ovn-trace         allowed  fd01::4 -> fd01::3: output to \"web_a\"
                             this DIFFERS from the snapshot
";
        assert!(text.contains(lines), "{text}");
        assert!(text.contains("\nTHE SNAPSHOT AND OVN DIFFER: "), "{text}");
        let same = answer(&denied(false), Some(&[traced(Some(false)), traced(None)]), PLAIN);
        assert!(!same.contains("DIFFER"), "{same}");
        let coloured = answer(&denied(false), None, Style { coloured: true });
        assert!(coloured.starts_with("\x1b[1;31mDENIED\x1b[0m  tcp/80"), "{coloured}");
    }

    #[test]
    fn a_pod_alone_is_a_table_of_rules() {
        let rules = [
            rule("web/in", 0, &json!(["all pods of namespace web"]), &json!(["tcp/http"])),
            rule("web/in", 10, &json!(["anybody"]), &json!(["udp"])),
        ];
        let overview = json!({"overview": {"pod": "web/a", "node": "n1", "addresses": ["10.0.0.3", "fd01::3"],
            "ingress": {"isolated_by": ["web/in"], "rules": rules, "left_out": 0},
            "egress": {"isolated_by": [], "rules": [], "left_out": 0}, "notes": []}});
        let expected = "\
pod      web/a on n1, 10.0.0.3 fd01::3
ingress  isolated by web/in: only what a rule below lets pass
egress   not isolated: everything passes

RULE                PEERS                      PORTS
web/in ingress[0]   all pods of namespace web  tcp/http
web/in ingress[10]  anybody                    udp
";
        assert_eq!(answer(&serde_json::from_value(overview).unwrap(), None, PLAIN), expected);
    }
}
