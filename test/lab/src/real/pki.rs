//! Keys and certificates of a cluster, made by openssl(1).
//!
//! In: a folder, subjects, names. Out: `NAME.key` and `NAME.crt` in that folder. It must not know who uses them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::place::Place;

/// What a certificate may be used for (RFC 5280, section 4.2.1.12).
#[derive(Clone, Copy)]
pub enum Usage {
    /// Only as a client.
    Client,
    /// Only as a server, under the alternative names given (`DNS:...`, `IP:...`).
    Server,
}

/// The folder of a cluster's keys.
pub struct Pki {
    dir: PathBuf,
}

impl Pki {
    /// Makes the folder.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// A file in it, as text for a command line.
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// A certificate authority of its own key.
    ///
    /// # Errors
    /// What openssl said.
    pub fn authority(&self, name: &str) -> Result<()> {
        let (key, certificate, subject) = (self.file(name, "key"), self.file(name, "crt"), format!("/CN=lab-{name}"));
        let usage = "keyUsage=critical,keyCertSign,cRLSign,digitalSignature";
        openssl(&[
            &["req", "-x509", "-days", "365", "-subj", &subject, "-keyout", &key, "-out", &certificate][..],
            &NEW_KEY,
            &["-addext", "basicConstraints=critical,CA:TRUE", "-addext", usage],
        ])
    }

    /// A certificate signed by an authority. The subject is in openssl's syntax: `/O=group/CN=user`.
    ///
    /// # Errors
    /// What openssl said.
    pub fn certificate(
        &self,
        name: &str,
        authority: &str,
        subject: &str,
        usage: Usage,
        names: &[String],
    ) -> Result<()> {
        let (key, request, extensions) = (self.file(name, "key"), self.file(name, "csr"), self.file(name, "ext"));
        openssl(&[&["req", "-subj", subject, "-keyout", &key, "-out", &request][..], &NEW_KEY])?;
        let usage = if matches!(usage, Usage::Client) { "clientAuth" } else { "serverAuth" };
        let mut text =
            format!("basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage={usage}\n");
        if !names.is_empty() {
            text += &format!("subjectAltName={}\n", names.join(","));
        }
        fs::write(&extensions, text).with_context(|| format!("writing {extensions}"))?;
        let (signer, signer_key) = (self.file(authority, "crt"), self.file(authority, "key"));
        let certificate = self.file(name, "crt");
        let signing = ["x509", "-req", "-days", "365", "-CAcreateserial", "-in", &request, "-out", &certificate];
        openssl(&[&signing[..], &["-CA", &signer, "-CAkey", &signer_key, "-extfile", &extensions]])?;
        [request, extensions]
            .iter()
            .try_for_each(|file| fs::remove_file(file).with_context(|| format!("removing {file}")))
    }

    /// A pair for signing tokens: `NAME.key` and `NAME.pub`.
    ///
    /// # Errors
    /// What openssl said.
    pub fn signing_pair(&self, name: &str) -> Result<()> {
        let (private, public) = (self.file(name, "key"), self.file(name, "pub"));
        openssl(&[&["genrsa", "-out", &private, "2048"][..]])?;
        openssl(&[&["rsa", "-in", &private, "-pubout", "-out", &public][..]])
    }

    fn file(&self, name: &str, extension: &str) -> String {
        Path::new(&self.dir).join(format!("{name}.{extension}")).display().to_string()
    }
}

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

fn openssl(parts: &[&[&str]]) -> Result<()> {
    let argv: Vec<&str> = std::iter::once("openssl").chain(parts.concat()).collect();
    Place::default().output(&argv).map(drop)
}
