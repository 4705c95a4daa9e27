//! From the bytes of a call to one typed request, or a CNI error with the version to print it in.
//!
//! The order of checks is that of the specification: the call decodes, the command is known, the version is spoken and has the
//! command, the variables are there and well-formed, the configuration is valid. Pure: any bytes give a value.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::attach::{Add, Attachment, Check, Del};
use crate::config::{NetConf, parse_netconf, parse_pod, parse_version};
use crate::error::{CniError, Code};
use crate::version::Version;

/// What the shim sends: parameters of the JSON-RPC method `cni`.
#[derive(Debug, Deserialize, Serialize)]
pub struct Call {
    /// The `CNI_*` variables.
    pub env: BTreeMap<String, String>,
    /// Standard input as text.
    pub stdin: String,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Version of the configuration; results are printed in its layout.
    pub version: Version,
    /// What to do.
    pub action: Action,
}

/// The commands of CNI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// ADD.
    Add(Add),
    /// DEL.
    Del(Del),
    /// CHECK.
    Check(Check),
    /// STATUS.
    Status,
    /// GC, with the attachments that are still valid.
    Gc(Vec<Attachment>),
    /// FIND, which is not of the specification: the former exec plugins have `status` of a pod. Answered as ADD is.
    Find(Attachment),
    /// VERSION.
    Version,
}

impl Action {
    /// Value of `CNI_COMMAND`.
    pub const fn name(&self) -> &'static str {
        match self {
            Action::Add(_) => "ADD",
            Action::Del(_) => "DEL",
            Action::Check(_) => "CHECK",
            Action::Status => "STATUS",
            Action::Gc(_) => "GC",
            Action::Find(_) => "FIND",
            Action::Version => "VERSION",
        }
    }
}

/// A request that cannot be carried out, and the version its error is printed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Version of the request as far as it could be read, else the newest.
    pub version: Version,
    /// Why.
    pub error: CniError,
}

/// Reads a call (JSON of [`Call`]).
///
/// # Errors
/// A [`Rejection`] with the codes 1, 4, 6 and 7 of the specification.
pub fn parse_request(call: &[u8]) -> Result<Request, Rejection> {
    let newest = |error| Rejection { version: Version::NEWEST, error };
    let call: Call = serde_json::from_slice(call).map_err(|e| {
        newest(CniError::new(Code::Decode, "the call of the shim does not decode").details(e.to_string()))
    })?;
    let command = call.env.get("CNI_COMMAND").map(String::as_str).unwrap_or_default();
    let since = match command {
        "VERSION" => {
            let version = parse_version(&call.stdin).unwrap_or(Version::NEWEST);
            return Ok(Request { version, action: Action::Version });
        }
        "ADD" | "DEL" | "FIND" => Version::V0_3_1,
        "CHECK" => Version::V0_4_0,
        "STATUS" | "GC" => Version::V1_1_0,
        other => {
            return Err(newest(
                CniError::new(Code::InvalidEnvironment, format!("CNI_COMMAND {other:?} is unknown"))
                    .details("it must be ADD, DEL, CHECK, STATUS, GC or VERSION"),
            ));
        }
    };
    let version = parse_version(&call.stdin).map_err(newest)?;
    let rejected = |error| Rejection { version, error };
    if version < since {
        return Err(rejected(CniError::new(
            Code::IncompatibleVersion,
            format!("{command} is not part of CNI {version}; it needs {since} or later"),
        )));
    }
    let action = parse_action(command, &call).map_err(rejected)?;
    Ok(Request { version, action })
}

fn parse_action(command: &str, call: &Call) -> Result<Action, CniError> {
    let env = Env(&call.env);
    let action = match command {
        "ADD" => {
            let attachment = env.attachment()?;
            let (netns, pod) = (env.netns()?, parse_pod(env.need("CNI_ARGS")?)?);
            parse_netconf(&call.stdin)?;
            Action::Add(Add { attachment, netns, pod })
        }
        "DEL" => Action::Del(Del { attachment: env.attachment()?, netns: env.get("CNI_NETNS").map(PathBuf::from) }),
        "CHECK" => {
            let (attachment, netns) = (env.attachment()?, env.netns()?);
            let previous = parse_netconf(&call.stdin)?.prev_result.ok_or_else(|| {
                CniError::new(Code::InvalidConfig, "CHECK without prevResult: the runtime must pass the result of ADD")
            })?;
            Action::Check(Check { attachment, netns, previous: previous.into() })
        }
        "STATUS" => Action::Status,
        "FIND" => Action::Find(env.attachment()?),
        _ => Action::Gc(valid_attachments(parse_netconf(&call.stdin)?)?),
    };
    Ok(action)
}

fn valid_attachments(conf: NetConf) -> Result<Vec<Attachment>, CniError> {
    let list = conf.valid_attachments.or(conf.attachments).ok_or_else(|| {
        CniError::new(Code::InvalidConfig, "GC without cni.dev/valid-attachments: refusing to remove every attachment")
    })?;
    Ok(list.into_iter().map(Attachment::from).collect())
}

/// The variables of a call.
struct Env<'a>(&'a BTreeMap<String, String>);

impl<'a> Env<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).map(String::as_str).filter(|v| !v.is_empty())
    }

    fn need(&self, key: &str) -> Result<&'a str, CniError> {
        self.get(key).ok_or_else(|| CniError::new(Code::InvalidEnvironment, format!("{key} is not set")))
    }

    fn netns(&self) -> Result<PathBuf, CniError> {
        self.need("CNI_NETNS").map(PathBuf::from)
    }

    fn attachment(&self) -> Result<Attachment, CniError> {
        let container_id = self.need("CNI_CONTAINERID")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if !container_id.starts_with(|c: char| c.is_ascii_alphanumeric()) || !container_id.chars().all(plain) {
            return Err(CniError::new(
                Code::InvalidEnvironment,
                format!("CNI_CONTAINERID {container_id:?} may only hold letters, digits, '_', '.' and '-'"),
            ));
        }
        let ifname = self.need("CNI_IFNAME")?;
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if ifname.len() > 15 || ifname == "." || ifname == ".." || ifname.contains(bad) {
            return Err(CniError::new(
                Code::InvalidEnvironment,
                format!("CNI_IFNAME {ifname:?} is no interface name of at most 15 bytes"),
            ));
        }
        Ok(Attachment { container_id: container_id.to_owned(), ifname: ifname.to_owned() })
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
