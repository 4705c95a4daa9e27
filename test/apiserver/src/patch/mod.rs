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
            Self::Json(patch) => json_patch::patch(object, patch)
                .map_err(|error| ApiError::invalid(resource, name, "patch", &error.to_string())),
            Self::Merge(patch) => {
                json_patch::merge(object, patch);
                Ok(())
            }
            Self::Strategic(patch) => strategic::merge(object, patch),
            Self::Apply(configuration) => apply::apply(resource, name, manager, object, configuration),
        }
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
