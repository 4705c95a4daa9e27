//! Label selectors (equality and set based) and field selectors, from their query string form.
//!
//! Input: text from a client, so anything; malformed text is a typed error and never a panic. Matching looks only at the
//! values that `Object` keeps beside its bytes.

use crate::error::ApiError;
use crate::object::Object;
use crate::resource::Resource;

/// What a list or watch selects. Empty selects everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, bool, String)>,
}

#[derive(Debug, Clone, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

impl Selector {
    /// Parses both selectors as they stand in a query string, percent-decoded.
    pub(crate) fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self, ApiError> {
        Ok(Self { labels: parse_labels(labels)?, fields: parse_fields(resource, fields)? })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Restricts to one name, for watches of a single object.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.fields.push(("metadata.name".into(), true, name.into()));
        self
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.fields.iter().all(|(path, equal, value)| (object.field(path) == value) == *equal)
            && self.labels.iter().all(|requirement| requirement.matches(object.label(&requirement.key)))
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|text| text.parse::<i64>().ok());
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
            Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|v| v != value)),
            Test::Greater(bound) => number().is_some_and(|n| n > *bound),
            Test::Less(bound) => number().is_some_and(|n| n < *bound),
        }
    }
}

fn parse_fields(resource: &Resource, text: &str) -> Result<Vec<(String, bool, String)>, ApiError> {
    let terms = text.split(',').map(str::trim).filter(|term| !term.is_empty());
    terms.map(|term| parse_field(resource, term)).collect()
}

fn parse_field(resource: &Resource, term: &str) -> Result<(String, bool, String), ApiError> {
    let Some((path, rest)) = term.split_once('=') else {
        return Err(ApiError::bad_request(format!("invalid field selector {term:?}: expected field=value")));
    };
    let (path, equal) = path.strip_suffix('!').map_or((path, true), |path| (path, false));
    let value = rest.strip_prefix('=').unwrap_or(rest);
    let known = matches!(path, "metadata.name" | "metadata.namespace") || resource.fields.contains(&path);
    if !known {
        return Err(ApiError::bad_request(format!("field label not supported: {path}")));
    }
    Ok((path.to_owned(), equal, value.to_owned()))
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, ApiError> {
    let terms = split_terms(text).into_iter().map(str::trim).filter(|term| !term.is_empty());
    terms
        .map(|term| {
            parse_label(term).ok_or_else(|| {
                ApiError::bad_request(format!("unable to parse requirement {term:?} of the label selector"))
            })
        })
        .collect()
}

/// Splits at commas outside parentheses.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn parse_label(term: &str) -> Option<Requirement> {
    if let Some(key) = term.strip_prefix('!') {
        return requirement(key, Test::Absent);
    }
    if let Some(at) = term.find(['=', '!', '<', '>']) {
        let (key, operator) = term.split_at(at);
        let value = |prefix: &str| operator.strip_prefix(prefix).map(str::trim);
        return if let Some(v) = value("!=") {
            requirement(key, Test::NotIn(vec![plain(v)?]))
        } else if let Some(v) = value("==").or_else(|| value("=")) {
            requirement(key, Test::In(vec![plain(v)?]))
        } else if let Some(v) = value(">") {
            requirement(key, Test::Greater(v.parse().ok()?))
        } else {
            requirement(key, Test::Less(value("<")?.parse().ok()?))
        };
    }
    let Some((head, rest)) = term.split_once('(') else { return requirement(term, Test::Exists) };
    let values = rest.strip_suffix(')')?.split(',').map(|v| plain(v.trim())).collect::<Option<Vec<_>>>()?;
    let (key, word) = head.trim_end().rsplit_once(char::is_whitespace)?;
    match word {
        "in" => requirement(key, Test::In(values)),
        "notin" => requirement(key, Test::NotIn(values)),
        _ => None,
    }
}

fn requirement(key: &str, test: Test) -> Option<Requirement> {
    let key = key.trim();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    (!key.is_empty() && key.chars().all(allowed)).then(|| Requirement { key: key.to_owned(), test })
}

fn plain(value: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    value.chars().all(allowed).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::resource::Registry;

    fn pod(labels: &serde_json::Value) -> (Registry, Object) {
        let registry = Registry::new();
        let value = json!({"metadata": {"name": "p", "namespace": "n", "labels": labels}, "spec": {"nodeName": "a"}});
        let object = Object::new(registry.find("", "v1", "pods").unwrap(), &value, 1, "{}".into());
        (registry, object)
    }

    fn matches(labels: &str, fields: &str) -> bool {
        let (registry, object) = pod(&json!({"app": "web", "n": "5", "example.com/x": ""}));
        Selector::parse(registry.find("", "v1", "pods").unwrap(), labels, fields).unwrap().matches(&object)
    }

    #[test]
    fn requirements_are_all_needed() {
        for yes in [
            "",
            "app",
            "!no",
            "app=web",
            "app==web,n!=6",
            "app in (db, web)",
            "no notin (a),n>4",
            "n<6",
            "example.com/x=",
        ] {
            assert!(matches(yes, ""), "{yes}");
        }
        for no in ["no", "!app", "app=db", "app!=web", "app in (db)", "app notin (web)", "n>5", "app>1", "app,no"] {
            assert!(!matches(no, ""), "{no}");
        }
        assert!(matches("", "spec.nodeName=a,metadata.name==p,status.phase="));
        assert!(!matches("", "spec.nodeName!=a"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(labels in ".*", fields in ".*", grammar in "[a(),=!<> in]{0,40}") {
            let (registry, object) = pod(&json!({"a": "n"}));
            let resource = registry.find("", "v1", "pods").unwrap();
            for labels in [&labels, &grammar] {
                if let Ok(selector) = Selector::parse(resource, labels, &fields) {
                    selector.matches(&object);
                }
            }
        }
    }
}
