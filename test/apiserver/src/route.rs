//! From a path and a query string to what is asked for.
//!
//! ```text
//! /api/v1/namespaces/N/pods/P/status          core group
//! /apis/apps/v1/namespaces/N/deployments/D    any other group
//! ```
//!
//! Input: anything a client may send. Output: a `Target` or a typed error; unknown resources are 404.

use std::sync::Arc;

use axum::extract::Query;
use http::Uri;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::error::ApiError;
use crate::patch::Manager;
use crate::resource::{Registry, Resource};

/// A resource path, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) resource: Arc<Resource>,
    /// Empty: cluster-scoped, or all namespaces.
    pub(crate) namespace: String,
    /// None: the collection.
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

impl Target {
    /// Finds the resource that `path` names.
    pub(crate) fn parse(registry: &Registry, path: &str) -> Result<Self, ApiError> {
        let decoded: Result<Vec<_>, _> =
            path.trim_matches('/').split('/').map(|segment| percent_decode_str(segment).decode_utf8()).collect();
        let decoded = decoded.map_err(|_| ApiError::bad_request("the path is not UTF-8"))?;
        let segments: Vec<&str> = decoded.iter().map(AsRef::as_ref).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(ApiError::no_such_path()),
        };
        let find = |plural: &str| registry.find(group, version, plural).cloned().ok_or_else(ApiError::no_such_path);
        let text = |text: &&str| Some((*text).to_owned());
        match rest {
            ["namespaces", namespace, plural, rest @ ..] if !matches!(*plural, "status" | "finalize") => {
                let resource = find(plural)?;
                if !resource.namespaced || rest.len() > 2 {
                    return Err(ApiError::no_such_path());
                }
                let (name, subresource) = (rest.first().and_then(text), rest.get(1).and_then(text));
                Ok(Self { resource, namespace: (*namespace).to_owned(), name, subresource })
            }
            [plural, rest @ ..] if rest.len() <= 2 => {
                let resource = find(plural)?;
                if resource.namespaced && !rest.is_empty() {
                    return Err(ApiError::no_such_path());
                }
                let (name, subresource) = (rest.first().and_then(text), rest.get(1).and_then(text));
                Ok(Self { resource, namespace: String::new(), name, subresource })
            }
            _ => Err(ApiError::no_such_path()),
        }
    }
}

/// The query parameters of every verb; each verb reads its own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Options {
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
    pub(crate) resource_version: String,
    pub(crate) resource_version_match: String,
    field_manager: String,
    force: String,
    limit: String,
    #[serde(rename = "continue")]
    pub(crate) continue_token: String,
    watch: String,
    allow_watch_bookmarks: String,
    send_initial_events: String,
    timeout_seconds: String,
    dry_run: String,
    grace_period_seconds: String,
    #[serde(skip)]
    user_agent: String,
}

impl Options {
    pub(crate) fn parse(uri: &Uri, user_agent: &str) -> Result<Self, ApiError> {
        let parsed = Query::<Self>::try_from_uri(uri);
        let Query(mut options) = parsed.map_err(|error| ApiError::bad_request(error.to_string()))?;
        options.user_agent = user_agent.to_owned();
        Ok(options)
    }

    /// Who writes: the field manager that the request names, else the program that sent it.
    pub(crate) fn manager(&self, target: &Target) -> Result<Manager, ApiError> {
        let program = self.user_agent.split('/').next().unwrap_or("");
        let name = if self.field_manager.is_empty() { program } else { &self.field_manager };
        let subresource = target.subresource.clone().unwrap_or_default();
        Ok(Manager { name: name.to_owned(), force: boolean("force", &self.force)?, subresource })
    }

    pub(crate) fn names_manager(&self) -> bool {
        !self.field_manager.is_empty()
    }

    pub(crate) fn limit(&self) -> Result<usize, ApiError> {
        number("limit", &self.limit).map(|limit| limit.unwrap_or(0))
    }

    pub(crate) fn watch(&self) -> Result<bool, ApiError> {
        boolean("watch", &self.watch)
    }

    pub(crate) fn bookmarks(&self) -> Result<bool, ApiError> {
        boolean("allowWatchBookmarks", &self.allow_watch_bookmarks)
    }

    pub(crate) fn send_initial_events(&self) -> Result<Option<bool>, ApiError> {
        match self.send_initial_events.as_str() {
            "" => Ok(None),
            text => boolean("sendInitialEvents", text).map(Some),
        }
    }

    pub(crate) fn timeout_seconds(&self) -> Result<Option<u64>, ApiError> {
        number("timeoutSeconds", &self.timeout_seconds)
    }

    pub(crate) fn grace_period_seconds(&self) -> Result<Option<i64>, ApiError> {
        number("gracePeriodSeconds", &self.grace_period_seconds)
    }

    pub(crate) fn dry_run(&self) -> bool {
        !self.dry_run.is_empty()
    }

    /// The version asked for; none for "" and "0", which mean "whatever you have".
    pub(crate) fn version(&self) -> Result<Option<u64>, ApiError> {
        number("resourceVersion", &self.resource_version).map(|version| version.filter(|version| *version != 0))
    }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<Option<T>, ApiError> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| ApiError::bad_request(format!("{name}={text:?} is no number"))),
    }
}

fn boolean(name: &str, text: &str) -> Result<bool, ApiError> {
    match text {
        "" | "0" | "false" | "False" | "F" | "f" => Ok(false),
        "1" | "true" | "True" | "T" | "t" => Ok(true),
        text => Err(ApiError::bad_request(format!("{name}={text:?} is neither true nor false"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_path_is_a_target_or_refused(path in ".*", words in prop::collection::vec("api|apis|v1|apps|pods|namespaces|status|%2f|%|", 0..8)) {
            let registry = Registry::new();
            for path in [path, words.join("/")] {
                if let Ok(target) = Target::parse(&registry, &path) {
                    prop_assert!(target.name.is_some() || target.subresource.is_none());
                }
            }
        }
    }
}
