//! How objects look in an answer: whole, metadata only, or as rows of a table; and the envelopes of lists.
//!
//! Input: the Accept header and stored objects. Whole objects are copied as bytes; the other forms parse them.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, header};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::object::Object;
use crate::resource::Resource;
use crate::table;

/// The representation a client prefers among those served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    /// PartialObjectMetadata.
    Metadata,
    Table,
}

impl Form {
    /// Takes the first media type in the Accept header that is served.
    pub(crate) fn negotiate(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
        accept.split(',').find_map(Self::of_media_type).unwrap_or(Self::Whole)
    }

    fn of_media_type(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next()?;
        if !matches!(media, "application/json" | "*/*" | "application/*") {
            return None;
        }
        let parameters: Vec<&str> = parts.collect();
        match parameters.iter().find_map(|parameter| parameter.strip_prefix("as=")) {
            None => Some(Self::Whole),
            Some(_) if !parameters.contains(&"v=v1") => None,
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Some(Self::Metadata),
            Some("Table") => Some(Self::Table),
            Some(_) => None,
        }
    }

    /// Appends one object as it stands alone or in a watch event.
    pub(crate) fn write(self, resource: &Resource, object: &Object, out: &mut BytesMut) -> Result<(), ApiError> {
        match self {
            Self::Whole => out.put_slice(&resource.versioned(&object.bytes)),
            Self::Metadata => write_json(&partial(&object.value()?), out)?,
            Self::Table => {
                let value = object.value()?;
                let mut table = table::head(resource, &object.version.to_string());
                table["rows"] = json!([table::row(resource, &value)]);
                write_json(&table, out)?;
            }
        }
        Ok(())
    }

    /// Appends one object as an item of a list.
    pub(crate) fn write_item(self, resource: &Resource, object: &Object, out: &mut BytesMut) -> Result<(), ApiError> {
        match self {
            Self::Table => write_json(&table::row(resource, &object.value()?), out),
            _ => self.write(resource, object, out),
        }
    }

    /// Everything of a list before its first item.
    pub(crate) fn list_head(self, resource: &Resource, metadata: &Value) -> String {
        let (head, items) = match self {
            Self::Whole => {
                let kind = format!("{}List", resource.kind);
                (json!({"kind": kind, "apiVersion": resource.api_version(), "metadata": metadata}), "items")
            }
            Self::Metadata => {
                let kind = "PartialObjectMetadataList";
                (json!({"kind": kind, "apiVersion": "meta.k8s.io/v1", "metadata": metadata}), "items")
            }
            Self::Table => {
                let mut head = table::head(resource, "");
                head["metadata"] = metadata.clone();
                (head, "rows")
            }
        };
        let head = head.to_string();
        format!("{},\"{items}\":[", head.strip_suffix('}').unwrap_or(&head))
    }

    /// Everything of a list after its last item.
    pub(crate) const LIST_TAIL: &'static [u8] = b"]}\n";
}

/// The object reduced to its metadata.
pub(crate) fn partial(value: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": value["metadata"]})
}

fn write_json(value: &Value, out: &mut BytesMut) -> Result<(), ApiError> {
    serde_json::to_writer(out.writer(), value).map_err(|error| ApiError::internal(format!("cannot encode: {error}")))
}
