//! The admin socket: JSON-RPC 2.0 on a unix socket that only root may open (0600).
//!
//! Methods: `status` -> [`Status`]; `release` -> whether a held removal was let go. The pipeline answers; this is only the way in.
//! Must not: keep state, or answer when the pipeline is gone.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jsonrpsee::RpcModule;
use jsonrpsee::server::{Server, serve_with_graceful_shutdown, stop_channel};
use jsonrpsee::types::ErrorObjectOwned;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::status::Status;

/// A question to the pipeline.
#[derive(Debug)]
pub enum Question {
    /// How are you?
    Status(oneshot::Sender<Status>),
    /// Let the held removal go.
    Release(oneshot::Sender<bool>),
}

/// Serves a socket from [`bind`] until `stop`, then removes it.
pub async fn serve(listener: UnixListener, path: PathBuf, questions: mpsc::Sender<Question>, stop: CancellationToken) {
    let methods = match methods(questions) {
        Ok(methods) => methods,
        Err(error) => return tracing::error!(%error, "the admin socket has no methods"),
    };
    let (handle, _server) = stop_channel();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection on the admin socket");
                    continue;
                }
            },
        };
        let service = Server::builder().to_service_builder().build(methods.clone(), handle.clone());
        let stop = stop.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_with_graceful_shutdown(stream, service, stop.cancelled_owned()).await {
                tracing::debug!(%error, "admin connection");
            }
        });
    }
    // Another process may have replaced it; then there is nothing to remove that is ours.
    let _ = std::fs::remove_file(path);
}

/// Listens on `path`. A file left there by a process that died is replaced. It binds under another name first, so that the socket
/// never is there with a wider mode.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut young = path.as_os_str().to_owned();
    young.push(format!(".{}", std::process::id()));
    let _ = std::fs::remove_file(&young);
    let listener = UnixListener::bind(&young)?;
    std::fs::set_permissions(&young, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&young, path)?;
    Ok(listener)
}

fn methods(
    questions: mpsc::Sender<Question>,
) -> Result<RpcModule<mpsc::Sender<Question>>, jsonrpsee::core::RegisterMethodError> {
    let mut module = RpcModule::new(questions);
    module.register_async_method("status", |_, questions, _| async move { ask(&questions, Question::Status).await })?;
    module
        .register_async_method("release", |_, questions, _| async move { ask(&questions, Question::Release).await })?;
    Ok(module)
}

async fn ask<T>(
    questions: &mpsc::Sender<Question>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Result<T, ErrorObjectOwned> {
    let stopping = || ErrorObjectOwned::owned(-32000, "the master is stopping", None::<()>);
    let (answer, reply) = oneshot::channel();
    questions.send(question(answer)).await.map_err(|_| stopping())?;
    reply.await.map_err(|_| stopping())
}
