//! The patch formats: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge, and server-side apply.
//!
//! Input: a body and its media type. Output: changes to the tree of an object. Nothing here stores anything.

mod apply;
mod fields;
mod lists;
mod strategic;

use serde_json::Value;

pub(crate) use self::apply::{Manager, record};

use crate::error::ApiError;
use crate::resource::Resource;

/// A decoded patch.
#[derive(Debug)]
pub(crate) enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
    Apply(Value),
}

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, \
                        application/strategic-merge-patch+json and application/apply-patch+yaml";

impl Patch {
    /// Decodes a body. Custom resources take no strategic merge, as in a real API server.
    pub(crate) fn decode(resource: &Resource, media: &str, body: &[u8]) -> Result<Self, ApiError> {
        let malformed = |error: String| ApiError::bad_request(format!("the patch cannot be decoded: {error}"));
        let tree = || {
            let tree: Value = serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
            if tree.is_object() { Ok(tree) } else { Err(malformed("it is not an object".into())) }
        };
        match media {
            "application/json-patch+json" => {
                serde_json::from_slice(body).map(Self::Json).map_err(|error| malformed(error.to_string()))
            }
            "application/merge-patch+json" => tree().map(Self::Merge),
            "application/strategic-merge-patch+json" if !resource.custom => tree().map(Self::Strategic),
            "application/apply-patch+yaml" => {
                let tree = from_yaml(body).map_err(malformed)?;
                if tree.is_object() { Ok(Self::Apply(tree)) } else { Err(malformed("it is not an object".into())) }
            }
            _ => Err(ApiError::unsupported_media_type(media, ACCEPTED)),
        }
    }

    /// Only server-side apply creates what is missing, and only it records field ownership by itself.
    pub(crate) fn is_apply(&self) -> bool {
        matches!(self, Self::Apply(_))
    }

    /// Changes `object`, which is called `name`.
    pub(crate) fn apply(
        &self,
        resource: &Resource,
        name: &str,
        manager: &Manager,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        match self {
            Self::Json(patch) => {
                apply_json(patch, object).map_err(|why| ApiError::invalid(resource, name, "patch", &why))
            }
            Self::Merge(patch) => {
                json_patch::merge(object, patch);
                Ok(())
            }
            Self::Strategic(patch) => strategic::merge(object, patch),
            Self::Apply(configuration) => apply::apply(resource, name, manager, object, configuration),
        }
    }
}

/// Operation by operation, because a few copies of copies can make a tree that no stack and no memory holds.
fn apply_json(patch: &json_patch::Patch, object: &mut Value) -> Result<(), String> {
    for operation in &patch.0 {
        json_patch::patch_unsafe(object, std::slice::from_ref(operation)).map_err(|error| error.to_string())?;
        let mut nodes = 0;
        if !fits(object, MAX_DEPTH, &mut nodes) {
            return Err(format!("the result has more than {MAX_DEPTH} levels or {MAX_NODES} values"));
        }
    }
    if object.is_object() { Ok(()) } else { Err("the result is not an object".to_owned()) }
}

/// Deeper trees could not be read back.
const MAX_DEPTH: usize = 100;
const MAX_NODES: usize = 100_000;

fn fits(value: &Value, depth: usize, nodes: &mut usize) -> bool {
    *nodes += 1;
    depth > 0
        && *nodes <= MAX_NODES
        && match value {
            Value::Object(map) => map.values().all(|value| fits(value, depth - 1, nodes)),
            Value::Array(items) => items.iter().all(|value| fits(value, depth - 1, nodes)),
            _ => true,
        }
}

/// A YAML (or JSON, which is YAML) document as a tree.
pub(crate) fn from_yaml(body: &[u8]) -> Result<Value, String> {
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::resource::Registry;

    /// Trees in which names and directives that mean something are likely.
    fn tree() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3).prop_map(Value::from),
            "[a-c]?".prop_map(Value::from)
        ];
        let field = prop::sample::select(vec![
            "metadata",
            "spec",
            "containers",
            "ports",
            "name",
            "containerPort",
            "finalizers",
            "conditions",
            "type",
            "a",
            "$patch",
            "$deleteFromPrimitiveList/finalizers",
            "$setElementOrder/containers",
            "managedFields",
            "fieldsV1",
            "f:a",
            "k:{}",
        ]);
        scalar.prop_recursive(5, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((field.clone(), inner), 0..5)
                    .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
            ]
        })
    }

    /// The same without nulls and directives: something to apply.
    fn plain(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let named = map.into_iter().filter(|(name, value)| {
                    !name.contains(['$', ':', 'V']) && *name != "managedFields" && !value.is_null()
                });
                named.map(|(name, value)| (name, plain(value))).collect()
            }
            Value::Array(items) => items.into_iter().filter(|item| !item.is_null()).map(plain).collect(),
            scalar => scalar,
        }
    }

    fn manager(name: &str) -> Manager {
        Manager { name: name.into(), force: true, subresource: String::new() }
    }

    proptest! {
        #[test]
        fn any_patch_of_anything_ends(object in tree(), patch in tree(), old in tree()) {
            let registry = Registry::new();
            let pods = registry.find("", "v1", "pods").unwrap();
            let body = serde_json::to_vec(&patch).unwrap();
            for media in ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"] {
                let Ok(patch) = Patch::decode(pods, media, &body) else { continue };
                let mut object = object.clone();
                if patch.apply(pods, "p", &manager("m"), &mut object).is_ok() {
                    record(pods, &manager("n"), &old, &mut object);
                }
            }
        }

        #[test]
        fn applying_twice_changes_nothing(object in tree(), configuration in tree()) {
            let registry = Registry::new();
            let pods = registry.find("", "v1", "pods").unwrap();
            let configuration = plain(json!({"metadata": {}, "spec": configuration}));
            let patch = Patch::Apply(configuration);
            let mut once = plain(json!({"spec": object}));
            prop_assume!(patch.apply(pods, "p", &manager("m"), &mut once).is_ok());
            let mut twice = once.clone();
            patch.apply(pods, "p", &manager("m"), &mut twice).unwrap();
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn any_text_is_yaml_or_refused(text in ".*") {
            let _ = from_yaml(text.as_bytes());
        }
    }
}
