//! What a request can fail with: a Kubernetes `Status` (code, reason, message, details), as real API servers word them.
//!
//! Clients branch on `code` and `reason`, so these must be right; the message is for people. Every constructor names the
//! case it stands for. Nothing here performs I/O.

use axum::body::Body;
use http::{Response, StatusCode, header};
use serde_json::{Value, json};

use crate::resource::Resource;

/// A refused request. Becomes a `Status` object with `status: Failure`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason} ({code}): {message}")]
pub(crate) struct ApiError {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    details: Option<Box<Value>>,
    retry_after: Option<u32>,
}

impl ApiError {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, retry_after: None }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        self.details = Some(Box::new(json!({"name": name, "group": resource.group, "kind": resource.plural})));
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", resource.id)).about(resource, name)
    }

    /// The path is not served at all, as opposed to an object that is missing.
    pub(crate) fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", resource.id)).about(resource, name)
    }

    pub(crate) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.id);
        Self::new(409, "Conflict", message).about(resource, name)
    }

    pub(crate) fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        Self::new(403, "Forbidden", format!("{} \"{name}\" is forbidden: {why}", resource.id)).about(resource, name)
    }

    /// A field has a value that the API refuses; `field` is a path such as `metadata.name`.
    pub(crate) fn invalid(resource: &Resource, name: &str, field: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is invalid: {field}: {why}", resource.kind);
        let mut error = Self::new(422, "Invalid", message);
        let causes = json!([{"reason": "FieldValueInvalid", "message": why, "field": field}]);
        let details = json!({"name": name, "group": resource.group, "kind": resource.kind, "causes": causes});
        error.details = Some(Box::new(details));
        error
    }

    /// The resourceVersion or continue token is older than the history we keep.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub(crate) fn unsupported_media_type(got: &str, want: &str) -> Self {
        let message = format!("the body has media type {got:?}; this stand-in server accepts {want}");
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", message)
    }

    /// The answer of an overloaded server; clients wait `retry_after` seconds.
    pub(crate) fn injected(code: u16, retry_after: Option<u32>) -> Self {
        let reason = match code {
            401 => "Unauthorized",
            403 => "Forbidden",
            409 => "Conflict",
            410 => "Expired",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "InternalError",
        };
        let details = retry_after.map(|seconds| Box::new(json!({"retryAfterSeconds": seconds})));
        Self { details, retry_after, ..Self::new(code, reason, format!("injected by a test: {code}")) }
    }

    /// The `Status` object.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = (**details).clone();
        }
        status
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.status().to_string()));
        *response.status_mut() = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
