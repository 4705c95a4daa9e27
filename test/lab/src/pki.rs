//! Certificates as ovs-pki(8) makes them, for labs that speak TLS: one authority, and a key and a certificate for each host.
//!
//! In: a folder, names. Out: PEM files. It must not be taken for a model of how to keep keys: nothing here is secret.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ovsdb::TlsFiles;

use crate::place::Place;

/// What every certificate of a lab is made with: a new key on a curve that both OpenSSL and rustls take, good for a month.
const REQUEST: [&str; 10] =
    ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];

/// An authority and what it has signed.
#[derive(Clone, Debug)]
pub struct Pki {
    dir: PathBuf,
}

impl Pki {
    /// The authority whose files are, or will be, in a folder.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Makes the authority, and a key and a certificate for each name.
    ///
    /// # Errors
    /// What `openssl` said.
    pub fn create(&self, names: impl IntoIterator<Item = String>) -> Result<()> {
        fs::create_dir_all(&self.dir).with_context(|| format!("creating {}", self.dir.display()))?;
        let (key, ca) = (self.file("ca-key"), self.file("ca"));
        request("lab authority", &key, &ca, &[])?;
        for name in names {
            let files = self.files(&name);
            let alternative = format!("subjectAltName=DNS:{name}");
            let (key, ca) = (key.display().to_string(), ca.display().to_string());
            let signed = ["-CA", &ca, "-CAkey", &key, "-extensions", "v3_req", "-addext", &alternative];
            request(&name, &files.private_key, &files.certificate, &signed)?;
        }
        Ok(())
    }

    /// The files of a name.
    pub fn files(&self, name: &str) -> TlsFiles {
        TlsFiles {
            private_key: self.file(&format!("{name}-key")),
            certificate: self.file(name),
            ca_certificate: self.file("ca"),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pem"))
    }
}

fn request(name: &str, key: &Path, certificate: &Path, more: &[&str]) -> Result<()> {
    let (subject, key, certificate) =
        (format!("/CN={name}"), key.display().to_string(), certificate.display().to_string());
    let argv = [&REQUEST[..], &["-subj", &subject, "-keyout", &key, "-out", &certificate], more].concat();
    Place::default().output(&argv).map(drop).with_context(|| format!("making a certificate for {name}"))
}

/// The files as OVS and OVN programs take them (ovsdb-server(1), "Public Key Infrastructure Options").
pub fn flags(files: &TlsFiles) -> [String; 3] {
    let flag = |name: &str, file: &Path| format!("--{name}={}", file.display());
    [
        flag("private-key", &files.private_key),
        flag("certificate", &files.certificate),
        flag("ca-cert", &files.ca_certificate),
    ]
}
