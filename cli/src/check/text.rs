//! Answers about policies for people: the verdict first, then why.
//!
//! Inputs: an answer, what was traced, whether to colour. Output: text. Must not: judge.

use std::fmt::Write as _;

use ovenbird_topology::check::answer::{
    Action, AdminRule, Answer, Decision, Direction, Isolation, Judgement, Miss, Overview, Path, Rule, State, Tier,
    Verdict,
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
    let Decision { verdict, source, destination, port, paths, notes, .. } = of;
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
        lines.push(("no pod".to_owned(), Verdict::Allowed, vec!["policies are for pods alone".to_owned()]));
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

/// Why a side says what it says, line by line, in the order in which policies are asked.
fn why(of: &Judgement) -> Vec<String> {
    match of.state {
        State::Open => return vec!["no policy isolates it".to_owned()],
        State::OwnNode => return vec!["from its own node, which no policy can keep out".to_owned()],
        State::Itself => return vec!["from itself, which no policy can keep out".to_owned()],
        State::Allowed | State::Partly | State::Denied => {}
    }
    let admin = |tier| of.admin.iter().filter(move |rule| rule.tier == tier).map(decides);
    let mut lines: Vec<String> = admin(Tier::Admin).collect();
    if !of.isolated_by.is_empty() {
        lines.push(isolated(of));
        add_rules(&mut lines, of);
    }
    lines.extend(admin(Tier::Baseline));
    if !of.admin.is_empty() && !of.undecided.is_empty() {
        lines.push(format!("no rule decides, so that it passes: {}", of.undecided.join(", ")));
    }
    let untold = if of.state == State::Allowed { 0 } else { of.others.len().saturating_sub(OTHERS) };
    if untold + of.left_out > 0 {
        lines.push(format!("... and {} more (--output json tells most)", untold + of.left_out));
    }
    lines
}

/// `isolated by web/deny, web/in; no rule lets it pass`.
fn isolated(of: &Judgement) -> String {
    let rest = if of.admin.is_empty() { "" } else { "the rest is " };
    let so = match (of.state, of.rules.is_empty()) {
        (State::Allowed, _) => "",
        (_, true) => "; no rule lets it pass",
        (_, false) => "; some passes",
    };
    format!("{rest}isolated by {}{so}", of.isolated_by.join(", "))
}

/// `AdminNetworkPolicy guard ingress[0] "no shells" denies: all pods of all namespaces: tcp/22`.
fn decides(of: &AdminRule) -> String {
    let does = match of.action {
        Action::Allow => "lets it pass",
        Action::Deny => "denies it",
        Action::Pass => "leaves it to NetworkPolicies",
    };
    format!("{} {does}: {}", admin_place(of), content(&of.rule))
}

/// `AdminNetworkPolicy guard ingress[0] "no shells"`.
fn admin_place(of: &AdminRule) -> String {
    let name = of.name.as_ref().map_or_else(String::new, |name| format!(" {name:?}"));
    format!("{} {}{name}", of.kind, place(&of.rule))
}

/// Adds the rules of NetworkPolicies.
fn add_rules(lines: &mut Vec<String>, of: &Judgement) {
    lines.extend(of.rules.iter().map(|rule| format!("{} lets it pass: {}", place(rule), content(rule))));
    if of.state != State::Allowed {
        let other = |miss, rule| match miss {
            Miss::Peer => format!("{} is for others: {}", place(rule), content(rule)),
            Miss::Port => format!("{} is for other ports: {}", place(rule), content(rule)),
        };
        lines.extend(of.others.iter().take(OTHERS).map(|of| other(of.misses, &of.rule)));
    }
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
    for (name, Isolation { isolated_by, rules, admin, left_out }) in [("ingress", ingress), ("egress", egress)] {
        let state = match (isolated_by.is_empty(), rules.is_empty() && admin.is_empty()) {
            (true, _) if admin.is_empty() => "not isolated: everything passes".to_owned(),
            (true, _) => "not isolated: everything passes that no rule below denies".to_owned(),
            (false, true) => format!("isolated by {}: nothing passes", isolated_by.join(", ")),
            (false, false) => format!("isolated by {}: only what a rule below lets pass", isolated_by.join(", ")),
        };
        let more = if *left_out > 0 { format!(" (and {left_out} more policies and rules)") } else { String::new() };
        out += &format!("{name:<7}  {state}{more}\n");
        let row = |does: String, rule: &Rule| vec![does, rule.peers.join(", "), rule.ports.join(", ")];
        let of_tier = |tier| admin.iter().filter(move |rule| rule.tier == tier);
        let of_admin = |rule: &AdminRule| {
            let does = match rule.action {
                Action::Allow => "allow",
                Action::Deny => "deny",
                Action::Pass => "pass",
            };
            row(format!("{does} by {}", admin_place(rule)), &rule.rule)
        };
        rows.extend(of_tier(Tier::Admin).map(of_admin));
        rows.extend(rules.iter().map(|rule| row(place(rule), rule)));
        rows.extend(of_tier(Tier::Baseline).map(of_admin));
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
    fn tiers_are_told_in_their_order() {
        let admin = |kind: &str, tier: &str, name: Option<&str>, action: &str, ports: &str| {
            let mut rule = rule("guard", 0, &json!(["all pods of all namespaces"]), &json!([ports]));
            rule.as_object_mut().unwrap().extend([
                ("kind".to_owned(), json!(kind)),
                ("tier".to_owned(), json!(tier)),
                ("name".to_owned(), json!(name)),
                ("action".to_owned(), json!(action)),
            ]);
            rule
        };
        let mut of = denied(true);
        let Answer::Decision(decision) = &mut of else { panic!("no decision") };
        let mut first: Judgement = decision.paths[0].ingress.clone().unwrap();
        let [deny, pass] = [(Some("no shells"), "deny", "tcp/22"), (None, "pass", "tcp/80")]
            .map(|(name, action, ports)| admin("AdminNetworkPolicy", "admin", name, action, ports));
        first.admin = serde_json::from_value(json!([deny, pass])).unwrap();
        let expected = [
            "AdminNetworkPolicy guard ingress[0] \"no shells\" denies it: all pods of all namespaces: tcp/22",
            "AdminNetworkPolicy guard ingress[0] leaves it to NetworkPolicies: all pods of all namespaces: tcp/80",
            "the rest is isolated by web/in; some passes",
            "web/in ingress[1] lets it pass: 10.0.0.0/24: tcp/80, udp",
        ];
        assert_eq!(why(&first), expected);
        first
            .admin
            .push(serde_json::from_value(admin("ClusterNetworkPolicy", "baseline", None, "allow", "udp")).unwrap());
        (first.isolated_by, first.rules, first.undecided) =
            (Vec::new(), Vec::new(), vec!["sctp".into(), "other".into()]);
        let expected = [
            expected[0],
            expected[1],
            "ClusterNetworkPolicy guard ingress[0] lets it pass: all pods of all namespaces: udp",
            "no rule decides, so that it passes: sctp, other",
        ];
        assert_eq!(why(&first), expected);
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
        let mut guard = rule("guard", 2, &json!(["anybody"]), &json!(["tcp/22"]));
        (guard["kind"], guard["tier"]) = ("AdminNetworkPolicy".into(), "admin".into());
        (guard["name"], guard["action"], guard["direction"]) = ("no shells".into(), "deny".into(), "egress".into());
        let overview = json!({"overview": {"pod": "web/a", "node": "n1", "addresses": ["10.0.0.3", "fd01::3"],
            "ingress": {"isolated_by": ["web/in"], "rules": rules, "left_out": 0},
            "egress": {"isolated_by": [], "rules": [], "admin": [guard], "left_out": 0}, "notes": []}});
        let expected = "\
pod      web/a on n1, 10.0.0.3 fd01::3
ingress  isolated by web/in: only what a rule below lets pass
egress   not isolated: everything passes that no rule below denies

RULE                                                    PEERS                      PORTS
web/in ingress[0]                                       all pods of namespace web  tcp/http
web/in ingress[10]                                      anybody                    udp
deny by AdminNetworkPolicy guard egress[2] \"no shells\"  anybody                    tcp/22
";
        assert_eq!(answer(&serde_json::from_value(overview).unwrap(), None, PLAIN), expected);
    }
}
