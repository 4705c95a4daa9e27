//! Events are served by two APIs with different names for the same fields: whichever is written, both are stored.

use serde_json::Value;

use crate::object::object;
use crate::resource::Resource;

/// Name in core/v1, name in events.k8s.io/v1.
const TWINS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("reportingComponent", "reportingController"),
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
];

/// Copies the fields of the API version that was written to their twins.
pub(super) fn mirror(resource: &Resource, value: &mut Value) {
    let fields = object(value);
    for (core, events) in TWINS {
        let (from, to) = if resource.group.is_empty() { (core, events) } else { (events, core) };
        if let Some(value) = fields.get(from).cloned() {
            fields.insert(to.to_owned(), value);
        }
    }
}
