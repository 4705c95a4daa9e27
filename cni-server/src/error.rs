//! CNI errors: the codes of the specification ("Error" section of SPEC.md 1.1.0) and their JSON. Pure.

use serde_json::json;

use crate::version::Version;

/// Codes of the specification. 1-99 are reserved by it; those from 100 are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Code {
    /// Incompatible CNI version.
    IncompatibleVersion = 1,
    /// Unsupported field in the network configuration.
    UnsupportedField = 2,
    /// Container unknown or does not exist.
    UnknownContainer = 3,
    /// Invalid necessary environment variables.
    InvalidEnvironment = 4,
    /// I/O failure.
    Io = 5,
    /// Failed to decode content.
    Decode = 6,
    /// Invalid network configuration.
    InvalidConfig = 7,
    /// Try again later.
    TryAgainLater = 11,
    /// STATUS: the plugin cannot serve ADD.
    NotAvailable = 50,
    /// CHECK: the attachment is not as it was made.
    CheckFailed = 100,
    /// The daemon could not do its work; the message names the step.
    Internal = 101,
}

/// An error that goes to the runtime. `msg` says in one sentence what is wrong; `details` says what to look at or to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{msg}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct CniError {
    /// Code.
    pub code: Code,
    /// Short sentence.
    pub msg: String,
    /// Longer text, may be empty.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: Code, msg: impl Into<String>) -> CniError {
        CniError { code, msg: msg.into(), details: String::new() }
    }

    /// The same error with details.
    pub fn details(mut self, details: impl Into<String>) -> CniError {
        self.details = details.into();
        self
    }

    /// The error as a runtime reads it from stdout.
    pub fn to_json(&self, version: Version) -> String {
        let mut out = json!({"cniVersion": version.as_str(), "code": self.code as u32, "msg": self.msg});
        if !self.details.is_empty() {
            out["details"] = self.details.clone().into();
        }
        out.to_string()
    }
}
