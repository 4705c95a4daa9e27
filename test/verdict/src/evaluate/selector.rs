//! LabelSelector (apimachinery meta/v1) on labels.
//!
//! A requirement is invalid when its operator does not exist, or `In` and `NotIn` have no values, or `Exists` and `DoesNotExist` have
//! some. Must not: decide what an invalid selector means to a policy.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// What a selector says of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Every valid requirement holds.
    pub fits: bool,
    /// Every requirement is valid.
    pub valid: bool,
}

/// A selector's judgement; an empty or missing one fits all.
pub fn judge(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> Judgement {
    let pairs = selector.iter().flat_map(|s| s.match_labels.iter().flatten());
    let requirements = selector.iter().flat_map(|s| s.match_expressions.iter().flatten());
    let mut judgement = Judgement { fits: true, valid: true };
    judgement.fits &= pairs.into_iter().all(|(key, value)| labels.get(key) == Some(value));
    for requirement in requirements {
        match holds(requirement, labels) {
            Some(holds) => judgement.fits &= holds,
            None => judgement.valid = false,
        }
    }
    judgement
}

/// Whether a requirement holds; `None` when it is invalid. `NotIn` holds where the label is missing.
fn holds(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> Option<bool> {
    let values = requirement.values.as_deref().unwrap_or_default();
    let value = labels.get(&requirement.key);
    match (requirement.operator.as_str(), values.is_empty()) {
        ("In", false) => Some(value.is_some_and(|v| values.contains(v))),
        ("NotIn", false) => Some(value.is_none_or(|v| !values.contains(v))),
        ("Exists", true) => Some(value.is_some()),
        ("DoesNotExist", true) => Some(value.is_none()),
        _ => None,
    }
}
