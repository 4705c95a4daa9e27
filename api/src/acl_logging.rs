//! The annotation `acl-logging` of a Namespace: which verdicts of its policies OVN logs, and how loudly.
//!
//! Source: ovn-kubernetes, docs/features/acl-logging; ovn-nb(5), `severity` of ACL. Must not: know which rows follow from it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::AnnotationError;
use crate::annotation::{ACL_LOGGING, At, quote};

/// What is logged; `None` is not logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AclLogging {
    /// `allow`: what a policy lets through.
    pub allow: Option<LogSeverity>,
    /// `deny`: what policies stop.
    pub deny: Option<LogSeverity>,
    /// `pass`: what an admin policy leaves to the policies of the namespace.
    pub pass: Option<LogSeverity>,
}

/// Severities of OVN's log, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogSeverity {
    /// `alert`.
    Alert,
    /// `warning`.
    Warning,
    /// `notice`.
    Notice,
    /// `info`.
    Info,
    /// `debug`.
    Debug,
}

impl LogSeverity {
    /// All there are.
    pub const ALL: [LogSeverity; 5] =
        [LogSeverity::Alert, LogSeverity::Warning, LogSeverity::Notice, LogSeverity::Info, LogSeverity::Debug];

    /// As OVN writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            LogSeverity::Alert => "alert",
            LogSeverity::Warning => "warning",
            LogSeverity::Notice => "notice",
            LogSeverity::Info => "info",
            LogSeverity::Debug => "debug",
        }
    }
}

impl AclLogging {
    /// Reads the annotation: a JSON object of `allow`, `deny` and `pass`, each a severity; an empty text or object logs nothing.
    ///
    /// # Errors
    /// When it is no such object.
    pub fn parse(text: &str) -> Result<AclLogging, AnnotationError> {
        const REMEDY: &str =
            r#"write e.g. {"deny":"alert","allow":"notice"} with alert, warning, notice, info or debug"#;
        let at = At { annotation: ACL_LOGGING, field: "", remedy: REMEDY };
        let mut logging = AclLogging::default();
        if text.trim().is_empty() {
            return Ok(logging);
        }
        let verdicts: BTreeMap<Cow<'_, str>, Cow<'_, str>> = at.object(text, "an object of severities")?;
        for (verdict, severity) in verdicts {
            let known = LogSeverity::ALL.into_iter().find(|known| known.as_str() == severity);
            let slot = match &*verdict {
                "allow" => &mut logging.allow,
                "deny" => &mut logging.deny,
                "pass" => &mut logging.pass,
                other => return Err(at.error(format!("{} is no verdict; use allow, deny or pass", quote(other)))),
            };
            *slot = match known {
                None if !severity.is_empty() => return Err(at.error(format!("{} is no severity", quote(&severity)))),
                known => known,
            };
        }
        Ok(logging)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_by_verdict() {
        let read = AclLogging::parse(r#"{"deny": "alert", "allow": "notice"}"#).unwrap();
        assert_eq!(read, AclLogging { allow: Some(LogSeverity::Notice), deny: Some(LogSeverity::Alert), pass: None });
        for nothing in ["", "{}", r#"{"deny":""}"#] {
            assert_eq!(AclLogging::parse(nothing).unwrap(), AclLogging::default(), "{nothing}");
        }
    }

    #[test]
    fn errors_say_what_to_write() {
        for (text, problem) in [
            ("alert", "\"alert\" is not an object"),
            (r#"{"deny":"loud"}"#, "\"loud\" is no severity"),
            (r#"{"drop":"alert"}"#, "\"drop\" is no verdict"),
        ] {
            let error = AclLogging::parse(text).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("write e.g."), "{error}");
        }
    }
}
