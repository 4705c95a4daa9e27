//! The pod annotation `ovenbird.io/lease`: what a DHCP server has given a pod on a Network whose addresses are its (RFC 2131).
//!
//! ```json
//! {"address":"192.168.100.50/24","router":"192.168.100.250","server":"192.168.100.250","expires":"2026-01-01T12:00:00Z"}
//! ```
//!
//! The pod's node writes it when the server has agreed, with each renewal, and removes it with the lease. Must not: judge the address against the
//! Network (topology does), or read the time.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::AnnotationError;
use crate::annotation::{At, LEASE};

/// See the file header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lease {
    /// The address, with the prefix length of its subnet.
    pub address: Ipv4Net,
    /// The default gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<Ipv4Addr>,
    /// Who has given it.
    pub server: Ipv4Addr,
    /// When it ends, as RFC 3339 has it; `None` for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    address: Option<&'a RawValue>,
    router: Option<&'a RawValue>,
    server: Option<&'a RawValue>,
    expires: Option<&'a RawValue>,
}

impl Lease {
    /// Reads the annotation's text.
    ///
    /// # Errors
    /// When the text is not the JSON above.
    pub fn parse(text: &str) -> Result<Lease, AnnotationError> {
        let at = At {
            remedy: "remove the annotation, and the pod's node writes it anew when it renews",
            ..At::whole(LEASE)
        };
        let raw: Raw<'_> = at.object(text, "an object")?;
        let ip = |field, raw: &RawValue| {
            let at = at.field(field);
            at.parse::<Ipv4Addr>(&at.text(raw)?, "an IPv4 address")
        };
        let field = at.field("address");
        let address = field.parse(&field.text(field.required(raw.address)?)?, "an IPv4 address with prefix length")?;
        Ok(Lease {
            address,
            router: raw.router.map(|raw| ip("router", raw)).transpose()?,
            server: ip("server", at.field("server").required(raw.server)?)?,
            expires: raw.expires.map(|raw| at.field("expires").text(raw)).transpose()?.map(Into::into),
        })
    }

    /// The annotation's text.
    pub fn format(&self) -> String {
        // Serialising strings to memory has no failure; an empty text would be reported by every reader.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = concat!(
        r#"{"address":"192.168.100.50/24","router":"192.168.100.250","server":"192.168.100.250","#,
        r#""expires":"2026-01-01T12:00:00Z"}"#
    );

    #[test]
    fn a_lease_is_read_and_written() {
        let lease = Lease::parse(TEXT).unwrap();
        assert_eq!(lease.address, "192.168.100.50/24".parse().unwrap());
        assert_eq!(lease.format(), TEXT);
        let least = r#"{"address":"192.168.100.50/24","server":"10.0.0.1"}"#;
        assert_eq!(Lease::parse(least).unwrap().format(), least);
    }

    #[test]
    fn errors_name_annotation_field_and_remedy() {
        for (from, to, field) in [
            (TEXT, "", ""),
            (TEXT, "[]", ""),
            (TEXT, "{}", "address"),
            ("192.168.100.50/24", "192.168.100.50", "address"),
            ("192.168.100.50/24", "fd00::1/64", "address"),
            (r#""router":"192.168.100.250""#, r#""router":"x""#, "router"),
            (r#""server":"192.168.100.250","#, "", "server"),
            (r#""2026-01-01T12:00:00Z""#, "7", "expires"),
        ] {
            let error = Lease::parse(&TEXT.replacen(from, to, 1)).unwrap_err();
            assert_eq!((error.annotation, error.field.as_str()), (LEASE, field), "{to}");
            assert!(error.to_string().contains("remove the annotation"), "{error}");
        }
    }
}
