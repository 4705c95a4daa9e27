//! LIST: a consistent snapshot, whole or in pages, streamed from the stored bytes.
//!
//! ```text
//! state (locked: copy pointers) --> selected objects --> chunks of about 256 KB --> body
//! ```
//!
//! A continue token carries the version of its first page and the last key served: later pages show the collection as it
//! was then, or fail with 410 Gone when history no longer reaches back. Tokens outlive nothing but that.

use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::form::Form;
use crate::object::{Key, Object, Objects};
use crate::resource::Resource;
use crate::route::{Options, Target};
use crate::selector::Selector;
use crate::store::{Collection, State};

/// Bytes of one chunk of a streamed body, about.
pub(crate) const CHUNK: usize = 256 << 10;

/// The answer to a LIST, before it is written.
#[derive(Debug)]
pub(crate) struct List {
    resource: Arc<Resource>,
    objects: Vec<Arc<Object>>,
    metadata: Value,
}

/// Version of the first page, namespace and name of the last object served.
fn parse_token(token: &str) -> Result<(u64, Key), ApiError> {
    let mut parts = token.splitn(3, ':');
    let version = parts.next().and_then(|version| version.parse().ok());
    match (version, parts.next(), parts.next()) {
        (Some(version), Some(namespace), Some(name)) => Ok((version, Key::new(namespace, name))),
        _ => Err(ApiError::bad_request("continue key is not valid")),
    }
}

impl List {
    /// Selects what the request asks for.
    pub(crate) fn select(state: &State, target: &Target, options: &Options) -> Result<Self, ApiError> {
        let resource = target.resource.clone();
        let selector = Selector::parse(&resource, &options.label_selector, &options.field_selector)?;
        let limit = options.limit()?;
        let (version, after) = match options.continue_token.as_str() {
            "" => (wanted_version(state, options)?, None),
            token => parse_token(token).map(|(version, key)| (Some(version), Some(key)))?,
        };
        let (nothing, then);
        let objects = match (state.collection(&resource), version) {
            (Some(collection), Some(version)) if version != state.version => {
                let past = collection.history.at(version, &collection.objects);
                then = past.ok_or_else(|| too_old(version))?;
                &*then
            }
            (Some(collection), _) => &collection.objects,
            (None, _) => {
                nothing = Objects::new();
                &nothing
            }
        };
        let mut selected =
            Collection::range(objects, &target.namespace, after.as_ref()).filter(|o| selector.matches(o));
        let mut page: Vec<_> = selected.by_ref().take(if limit == 0 { usize::MAX } else { limit }).cloned().collect();
        let version = version.unwrap_or(state.version);
        let mut metadata = json!({"resourceVersion": version.to_string()});
        let remaining = selected.count();
        if let (1.., Some(last)) = (remaining, page.last()) {
            metadata["continue"] = format!("{version}:{}:{}", last.key.namespace, last.key.name).into();
            if selector.is_empty() {
                metadata["remainingItemCount"] = remaining.into();
            }
        }
        page.shrink_to_fit();
        Ok(Self { resource, objects: page, metadata })
    }

    /// What was selected.
    pub(crate) fn objects(&self) -> &[Arc<Object>] {
        &self.objects
    }

    /// The body, written chunk by chunk as the client reads.
    pub(crate) fn into_body(self, form: Form) -> Body {
        let head = Bytes::from(form.list_head(&self.resource, &self.metadata));
        let resource = self.resource;
        let mut objects = self.objects.into_iter();
        let (mut head, mut first, mut done) = (Some(head), true, false);
        let chunks = std::iter::from_fn(move || {
            if done {
                return None;
            }
            let mut chunk = BytesMut::with_capacity(CHUNK + (8 << 10));
            chunk.extend_from_slice(&head.take().unwrap_or_default());
            while chunk.len() < CHUNK {
                let Some(object) = objects.next() else {
                    chunk.extend_from_slice(Form::LIST_TAIL);
                    done = true;
                    break;
                };
                if !std::mem::take(&mut first) {
                    chunk.extend_from_slice(b",");
                }
                if let Err(error) = form.write_item(&resource, &object, &mut chunk) {
                    done = true;
                    return Some(Err(error));
                }
            }
            Some(Ok(chunk.freeze()))
        });
        Body::from_stream(futures::stream::iter(chunks))
    }
}

/// The version whose state must be shown; none for the present, which is never older than what was asked for.
fn wanted_version(state: &State, options: &Options) -> Result<Option<u64>, ApiError> {
    let version = options.version()?;
    match (version, options.resource_version_match.as_str()) {
        (Some(version), _) if version > state.version => Err(ApiError::new(
            504,
            "Timeout",
            format!("Too large resource version: {version}, current: {}", state.version),
        )),
        (Some(version), "Exact") => Ok(Some(version)),
        (None, "Exact") => Err(ApiError::bad_request("resourceVersionMatch Exact needs a resourceVersion")),
        (_, "" | "NotOlderThan") => Ok(None),
        (_, other) => Err(ApiError::bad_request(format!("resourceVersionMatch {other:?} is not known"))),
    }
}

/// 410 Gone in the words that clients know.
pub(crate) fn too_old(version: u64) -> ApiError {
    ApiError::expired(format!("The provided resource version {version} is too old: its history is gone. List again."))
}
