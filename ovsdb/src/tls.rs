//! TLS as OVS does it: both sides show certificates of one authority, and names in them are not looked at.
//!
//! Input: [`TlsFiles`], read anew for every connection. Output: a rustls configuration. Must not: accept a chain that the
//! authority has not signed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::TlsFiles;

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// An `ssl:` endpoint without files.
    #[error("no private key, certificate and CA certificate configured")]
    NoFiles,
    /// A PEM file.
    #[error("read {path}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// A PEM file without certificates.
    #[error("{0} holds no certificate")]
    Empty(PathBuf),
    /// Key and certificate do not go together, or are of an unknown kind.
    #[error("use key and certificates")]
    Configure(#[source] rustls::Error),
    /// A host that can be no name of a server.
    #[error("host \"{0}\" is neither a name nor an address")]
    Host(String),
    /// The handshake failed.
    #[error(
        "handshake; {ca} must hold the authority that signed the server's certificate, and the server must know the one that \
         signed {certificate}"
    )]
    Handshake {
        /// The file of authorities.
        ca: PathBuf,
        /// The client's certificate.
        certificate: PathBuf,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// The server ended the connection before it said anything.
    #[error("the server refuses us; it must know the authority that signed {certificate}")]
    Refused {
        /// The client's certificate.
        certificate: PathBuf,
        /// What came in place of an answer.
        #[source]
        source: std::io::Error,
    },
}

/// The configuration that the files give now.
pub(crate) fn configure(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca_certificate)? {
        roots.add(certificate).map_err(TlsError::Configure)?;
    }
    let fail = |source| TlsError::Pem { path: files.private_key.clone(), source };
    let key = PrivateKeyDer::from_pem_file(&files.private_key).map_err(fail)?;
    let verifier = ChainOnly { roots, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Configure)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(certificates(&files.certificate)?, key)
        .map_err(TlsError::Configure)?;
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |source| TlsError::Pem { path: path.to_owned(), source };
    let all: Vec<_> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(fail)?;
    if all.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(all) }
}

/// Verifies the chain and its dates, not the name.
#[derive(Debug)]
struct ChainOnly {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
