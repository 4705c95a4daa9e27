//! The admin socket: JSON-RPC 2.0 on a unix socket that only root may open (0600).
//!
//! Methods: `status` -> [`Status`]; `release` -> whether a held removal was let go; `check_policy` ([`Query`]) -> [`Answer`], or an error
//! whose message says what is not there. The pipeline answers; this is only the way in.
//! Must not: keep state, or answer when the pipeline is gone.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jsonrpsee::RpcModule;
use jsonrpsee::server::{Server, serve_with_graceful_shutdown, stop_channel};
use jsonrpsee::types::ErrorObjectOwned;
use ovenbird_topology::check::{Answer, Query};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::status::Status;

/// Codes of errors (JSON-RPC 2.0: -32000 to -32099 are the server's own).
const STOPPING: i32 = -32000;
const REFUSED: i32 = -32001;

/// A question to the pipeline.
#[derive(Debug)]
pub enum Question {
    /// How are you?
    Status(oneshot::Sender<Status>),
    /// Let the held removal go.
    Release(oneshot::Sender<bool>),
    /// What do policies say of a pod's traffic? The error says why there is no answer.
    CheckPolicy(Box<Query>, oneshot::Sender<Result<Answer, String>>),
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
    module.register_async_method("check_policy", |params, questions, _| async move {
        let query: Box<Query> = params.one()?;
        let answer = ask(&questions, |answer| Question::CheckPolicy(query, answer)).await?;
        answer.map_err(|why| ErrorObjectOwned::owned(REFUSED, why, None::<()>))
    })?;
    Ok(module)
}

async fn ask<T>(
    questions: &mpsc::Sender<Question>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Result<T, ErrorObjectOwned> {
    let stopping = || ErrorObjectOwned::owned(STOPPING, "the master is stopping", None::<()>);
    let (answer, reply) = oneshot::channel();
    questions.send(question(answer)).await.map_err(|_| stopping())?;
    reply.await.map_err(|_| stopping())
}

#[cfg(test)]
mod tests {
    use ovenbird_topology::check::answer::Overview;

    use super::*;

    #[tokio::test]
    async fn questions_about_policies_are_read_and_refusals_said() {
        let (questions, mut asked) = mpsc::channel(1);
        let module = methods(questions).unwrap();
        tokio::spawn(async move {
            while let Some(question) = asked.recv().await {
                let Question::CheckPolicy(query, answer) = question else { continue };
                let overview = |pod| {
                    let (ingress, egress) = Default::default();
                    Answer::Overview(Overview { pod, node: None, addresses: vec![], ingress, egress, notes: vec![] })
                };
                let known = query.pod.namespace() == "web";
                let _ =
                    answer.send(if known { Ok(overview(query.pod.to_string())) } else { Err("no such pod".into()) });
            }
        });
        for (params, said) in [
            (r#"[{"pod":"web/a"}]"#, r#""result":{"overview":{"pod":"web/a""#),
            (r#"[{"pod":"db/a"}]"#, r#""error":{"code":-32001,"message":"no such pod"}"#),
            (r#"[{"pod":"a"}]"#, "is no pod; write NAMESPACE/POD"),
            (r#"[{"pod":"web/a","form":"web/b"}]"#, "unknown field `form`"),
            ("[]", r#""code":-32602"#),
        ] {
            let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"check_policy","params":{params}}}"#);
            let (reply, _) = module.raw_json_request(&request, 1).await.unwrap();
            assert!(reply.get().contains(said), "{}", reply.get());
        }
    }
}
