//! Label selectors in one form: equal sets of requirements are equal values.
//!
//! Input: a `LabelSelector` of Kubernetes. Output: sorted requirements, and what was wrong with those left out. Source:
//! `metav1.LabelSelector`, `metav1.LabelSelectorRequirement`. Must not: know what is selected.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1;
use ovsdb::Str;

use crate::facts::Labels;
use crate::intern::Interner;

/// Labels that something must have; without requirements, everything has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSelector {
    requirements: Box<[Requirement]>,
}

/// One requirement. Values are sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// The label is there with one of these values; `matchLabels` is this with one value.
    In(Str, Box<[Str]>),
    /// The label is absent, or has none of these values.
    NotIn(Str, Box<[Str]>),
    /// The label is there.
    Exists(Str),
    /// The label is absent.
    DoesNotExist(Str),
}

/// A part of an object that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, e.g. `spec.ingress[0].from[1].ipBlock.cidr`.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl LabelSelector {
    /// Reads a selector that stands at `field`. Requirements that cannot be used are left out, and told in `problems`.
    pub fn from_k8s(
        object: &v1::LabelSelector,
        field: &str,
        interner: &mut Interner,
        problems: &mut Vec<Problem>,
    ) -> LabelSelector {
        let mut requirements: Vec<Requirement> = Vec::new();
        for (key, value) in object.match_labels.iter().flatten() {
            requirements.push(Requirement::In(interner.intern(key), [interner.intern(value)].into()));
        }
        for (index, expression) in object.match_expressions.iter().flatten().enumerate() {
            let key = interner.intern(&expression.key);
            let mut values: Vec<Str> = expression.values.iter().flatten().map(|v| interner.intern(v)).collect();
            values.sort_unstable();
            values.dedup();
            let remedy = match (expression.operator.as_str(), values.is_empty()) {
                ("In", false) => {
                    requirements.push(Requirement::In(key, values.into()));
                    continue;
                }
                ("NotIn", false) => {
                    requirements.push(Requirement::NotIn(key, values.into()));
                    continue;
                }
                ("Exists", true) => {
                    requirements.push(Requirement::Exists(key));
                    continue;
                }
                ("DoesNotExist", true) => {
                    requirements.push(Requirement::DoesNotExist(key));
                    continue;
                }
                ("In" | "NotIn", true) => "needs at least one value",
                ("Exists" | "DoesNotExist", false) => "takes no values; remove them",
                _ => "is no operator; use In, NotIn, Exists or DoesNotExist",
            };
            let field = format!("{field}.matchExpressions[{index}]");
            let message = format!("operator {:?} of label {:?} {remedy}", expression.operator, expression.key);
            problems.push(Problem { field, message });
        }
        requirements.sort_unstable();
        requirements.dedup();
        LabelSelector { requirements: requirements.into() }
    }

    /// The requirements, sorted.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// True when these labels fulfil every requirement.
    pub fn matches(&self, labels: &Labels) -> bool {
        let get = |key: &Str| labels.binary_search_by(|(k, _)| k.cmp(key)).ok().map(|at| &labels[at].1);
        self.requirements.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => get(key).is_some_and(|value| values.binary_search(value).is_ok()),
            Requirement::NotIn(key, values) => get(key).is_none_or(|value| values.binary_search(value).is_err()),
            Requirement::Exists(key) => get(key).is_some(),
            Requirement::DoesNotExist(key) => get(key).is_none(),
        })
    }

    /// A label, and values one of which it must have: what an index of selectors can be built on. The rarest guess is the one with the
    /// fewest values.
    pub(super) fn anchor(&self) -> Option<(&Str, &[Str])> {
        let anchors = self.requirements.iter().filter_map(|requirement| match requirement {
            Requirement::In(key, values) => Some((key, &values[..])),
            _ => None,
        });
        anchors.min_by_key(|(_, values)| values.len())
    }
}

/// As `kubectl --selector` reads it: `app=web,tier in (a,b),!legacy`; `*` for everything.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("*");
        }
        for (index, requirement) in self.requirements.iter().enumerate() {
            f.write_str(if index > 0 { "," } else { "" })?;
            match requirement {
                Requirement::In(key, values) if values.len() == 1 => write!(f, "{}={}", plain(key), plain(&values[0]))?,
                Requirement::In(key, values) => write!(f, "{} in ({})", plain(key), list(values))?,
                Requirement::NotIn(key, values) => write!(f, "{} notin ({})", plain(key), list(values))?,
                Requirement::Exists(key) => f.write_str(&plain(key))?,
                Requirement::DoesNotExist(key) => write!(f, "!{}", plain(key))?,
            }
        }
        Ok(())
    }
}

fn list(values: &[Str]) -> String {
    values.iter().map(|value| plain(value)).collect::<Vec<_>>().join(",")
}

/// A key or value; in quotes when it is none that Kubernetes allows, so that no two selectors have one text.
fn plain(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if text.chars().all(allowed) { text.to_owned() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(object: Value) -> (LabelSelector, Vec<Problem>) {
        let mut problems = Vec::new();
        let object: v1::LabelSelector = serde_json::from_value(object).unwrap();
        let selector = LabelSelector::from_k8s(&object, "spec", &mut Interner::default(), &mut problems);
        (selector, problems)
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn equal_requirements_are_one_selector() {
        let (a, _) = read(json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["b", "a", "b"]}, {"key": "old", "operator": "DoesNotExist"}]}));
        let (b, _) = read(json!({"matchExpressions": [{"key": "old", "operator": "DoesNotExist"},
            {"key": "app", "operator": "In", "values": ["web"]}, {"key": "tier", "operator": "In", "values": ["a", "b"]}]}));
        assert_eq!(a, b);
        assert_eq!(a.to_string(), "app=web,tier in (a,b),!old");
        assert_eq!(LabelSelector::default().to_string(), "*");
    }

    #[test]
    fn every_operator() {
        let holds = |expression: Value, l: &[(&str, &str)]| {
            read(json!({"matchExpressions": [expression]})).0.matches(&labels(l))
        };
        for (operator, values, expected) in [
            ("In", json!(["x", "y"]), [true, false, false]),
            ("NotIn", json!(["x", "y"]), [false, true, true]),
            ("Exists", json!(null), [true, true, false]),
            ("DoesNotExist", json!(null), [false, false, true]),
        ] {
            let expression = json!({"key": "k", "operator": operator, "values": values});
            let got =
                [&[("a", "x"), ("k", "x")][..], &[("k", "z")], &[("j", "x")]].map(|l| holds(expression.clone(), l));
            assert_eq!(got, expected, "{operator}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let (selector, problems) = read(json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": []}, {"key": "b", "operator": "Exists", "values": ["x"]},
            {"key": "c", "operator": "Gt", "values": ["1"]}]}));
        assert_eq!(selector.to_string(), "app=web");
        let texts: Vec<_> = problems.iter().map(|p| format!("{}: {}", p.field, p.message)).collect();
        assert_eq!(
            texts,
            [
                "spec.matchExpressions[0]: operator \"In\" of label \"a\" needs at least one value",
                "spec.matchExpressions[1]: operator \"Exists\" of label \"b\" takes no values; remove them",
                "spec.matchExpressions[2]: operator \"Gt\" of label \"c\" is no operator; use In, NotIn, Exists or DoesNotExist",
            ]
        );
    }

    #[test]
    fn odd_texts_are_quoted() {
        let (odd, _) = read(json!({"matchLabels": {"a": "x,b=y"}}));
        let (two, _) = read(json!({"matchLabels": {"a": "x", "b": "y"}}));
        assert_eq!((odd.to_string(), two.to_string()), ("a=\"x,b=y\"".to_owned(), "a=x,b=y".to_owned()));
    }
}
