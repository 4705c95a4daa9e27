//! CNI versions that are spoken, and what each can do. Pure.

/// Versions of the CNI specification, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Result with interfaces and per-address family.
    V0_3_1,
    /// Adds CHECK.
    V0_4_0,
    /// Drops the address family from results.
    V1_0_0,
    /// Adds STATUS and GC, link MTU in results.
    V1_1_0,
}

impl Version {
    /// Everything spoken, oldest first: the `supportedVersions` of the VERSION command.
    pub const ALL: [Version; 4] = [Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];
    /// Used where a request does not say its version in a readable way.
    pub const NEWEST: Version = Version::V1_1_0;

    /// Text of the specification, e.g. `0.3.1`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// The version of that text, if it is spoken.
    pub fn parse(text: &str) -> Option<Version> {
        Version::ALL.into_iter().find(|v| v.as_str() == text)
    }

    /// All versions as one text for messages: `0.3.1, 0.4.0, ...`.
    pub fn supported() -> String {
        Version::ALL.map(Version::as_str).join(", ")
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
