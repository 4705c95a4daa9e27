//! Opens a byte stream to an endpoint: unix, tcp or TLS. Must not: speak OVSDB.

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::config::TlsFiles;
use crate::endpoint::Endpoint;
use crate::error::SessionError;
use crate::tls::{self, TlsError};

/// A connection of any kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Connects; has no time limit of its own.
pub(crate) async fn open(endpoint: &Endpoint, files: Option<&TlsFiles>) -> Result<Box<dyn Stream>, SessionError> {
    match endpoint {
        Endpoint::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(SessionError::Connect)?)),
        Endpoint::Tcp(host, port) => Ok(Box::new(connect_tcp(host, *port).await?)),
        Endpoint::Ssl(host, port) => {
            let files = files.ok_or(SessionError::Tls(TlsError::NoFiles))?;
            let config = tls::configure(files).map_err(SessionError::Tls)?;
            let name =
                ServerName::try_from(host.clone()).map_err(|_| SessionError::Tls(TlsError::Host(host.clone())))?;
            let tcp = connect_tcp(host, *port).await?;
            let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(|source| {
                let (ca, certificate) = (files.ca_certificate.clone(), files.certificate.clone());
                SessionError::Tls(TlsError::Handshake { ca, certificate, source })
            })?;
            Ok(Box::new(stream))
        }
    }
}

async fn connect_tcp(host: &str, port: u16) -> Result<TcpStream, SessionError> {
    let stream = TcpStream::connect((host, port)).await.map_err(SessionError::Connect)?;
    stream.set_nodelay(true).map_err(SessionError::Connect)?;
    Ok(stream)
}
