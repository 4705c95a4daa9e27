//! Settings of a daemon: what its flags, its environment and its YAML file have in common.
//!
//! ```text
//! flag  >  environment (OVENBIRD_*)  >  file (--config)  >  default
//! ```
//!
//! A daemon describes its settings in a struct of `Option`s that clap fills from flags and environment and serde from the file, lays
//! the one over the other with [`merge!`], and validates the result. Must not: know any setting but --config.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::de::DeserializeOwned;

/// Why a configuration was refused. The text names the setting and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// The file cannot be read.
    #[error("cannot read the file of --config ({path}); give the path of a readable YAML file")]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The file is not what we expect.
    #[error("cannot use the file of --config ({path}); its keys are the names of the flags, see --help")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Settings contradict each other; the text begins with the name of one.
    #[error("--{0}")]
    Contradiction(String),
    /// One setting is wrong.
    #[error("--{flag}: {problem}; {advice}")]
    Wrong {
        /// Name of the flag.
        flag: &'static str,
        /// What is wrong.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
}

/// Merges two structs of `Option`s: the fields of the first, and those of the second where the first has none.
#[macro_export]
macro_rules! merge {
    ($type:ident, $over:expr, $under:expr, $($field:ident)*) => {
        $type { $($field: $over.$field.or($under.$field),)* }
    };
}

/// Reads a YAML file; an empty one sets nothing.
///
/// # Errors
/// When it cannot be read, has unknown keys or values of the wrong type.
pub fn read<S: DeserializeOwned + Default>(path: &Path) -> Result<S, SettingError> {
    let text = std::fs::read_to_string(path).map_err(|source| SettingError::Read { path: path.into(), source })?;
    serde_saphyr::from_str::<Option<S>>(&text)
        .map(Option::unwrap_or_default)
        .map_err(|e| SettingError::Parse { path: path.into(), source: Box::new(e) })
}

/// A complaint about one setting.
pub fn wrong(flag: &'static str, problem: String, advice: &'static str) -> SettingError {
    SettingError::Wrong { flag, problem, advice }
}

/// Parses one setting.
///
/// # Errors
/// The parser's, with the flag and the advice.
pub fn parse<T: FromStr>(flag: &'static str, text: &str, advice: &'static str) -> Result<T, SettingError>
where
    T::Err: Display,
{
    text.parse().map_err(|e: T::Err| wrong(flag, format!("{text:?}: {e}"), advice))
}

/// A duration of at least a second.
///
/// # Errors
/// For 0.
pub fn seconds(flag: &'static str, value: u32) -> Result<Duration, SettingError> {
    match value {
        0 => Err(wrong(flag, "0 is not a duration".into(), "give seconds, 1 or more")),
        s => Ok(Duration::from_secs(s.into())),
    }
}

/// An address to listen on; none for "".
///
/// # Errors
/// When it is not IP:PORT.
pub fn listen_address(flag: &'static str, text: &str) -> Result<Option<SocketAddr>, SettingError> {
    (!text.is_empty()).then(|| parse(flag, text, "write IP:PORT, or \"\" to turn it off")).transpose()
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    struct Example {
        cluster_subnets: Option<String>,
        mtu: Option<u32>,
    }

    #[test]
    fn a_file_is_read_and_its_unknown_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("daemon.yaml");
        let missing = read::<Example>(&file).unwrap_err().to_string();
        assert!(missing.contains("daemon.yaml"), "{missing}");
        std::fs::write(&file, "cluster-subnet: x\n").unwrap();
        let cause = read::<Example>(&file).unwrap_err().source().unwrap().to_string();
        assert!(cause.contains("cluster-subnet"), "{cause}");
        std::fs::write(&file, "# nothing\n").unwrap();
        assert_eq!(read::<Example>(&file).unwrap(), Example::default());
        std::fs::write(&file, "mtu: 1400\n").unwrap();
        let over = Example { cluster_subnets: Some("a".into()), mtu: None };
        let merged = merge!(Example, over, read::<Example>(&file).unwrap(), cluster_subnets mtu);
        assert_eq!(merged, Example { cluster_subnets: Some("a".into()), mtu: Some(1400) });
    }

    #[test]
    fn complaints_name_the_flag_and_the_way_out() {
        assert_eq!(seconds("a", 0).unwrap_err().to_string(), "--a: 0 is not a duration; give seconds, 1 or more");
        assert_eq!(listen_address("b", "").unwrap(), None);
        let text = listen_address("b", "9410").unwrap_err().to_string();
        assert!(
            text.starts_with("--b: \"9410\": ") && text.ends_with("; write IP:PORT, or \"\" to turn it off"),
            "{text}"
        );
    }
}
