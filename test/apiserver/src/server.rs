//! HTTP: accepts connections and turns requests into verbs.
//!
//! ```text
//! connection --> faults --> health, version, discovery --> resource path --> list | watch | get | write
//! ```
//!
//! Plain HTTP/1.1. No authentication and no authorisation: whoever reaches the port may do everything.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::App;
use crate::discovery;
use crate::error::ApiError;
use crate::faults;
use crate::form::Form;
use crate::list::List;
use crate::object::{Key, Object};
use crate::resource::Resource;
use crate::route::{Options, Target};
use crate::verbs::{self, Outcome};
use crate::watch::Watcher;

/// Larger bodies are refused, as by a real API server.
const MAX_BODY: usize = 3 << 20;

/// Serves until `app.stop`; then every connection is cut, as when the process dies.
pub(crate) async fn serve(app: Arc<App>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = app.stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "cannot set TCP_NODELAY");
                    }
                    connections.spawn(connection(app.clone(), stream));
                }
                Err(error) => tracing::warn!(%error, "cannot accept a connection"),
            },
        }
    }
    connections.shutdown().await;
}

async fn connection(app: Arc<App>, stream: tokio::net::TcpStream) {
    let service = service_fn(move |request| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(answer(&app, request).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    let served = server.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = route(app, request).await.unwrap_or_else(ApiError::into_response);
    tracing::debug!(%method, path, status = response.status().as_u16(), "request");
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static("ovenbird-apiserver (stand-in)"));
    response
}

async fn route(app: &Arc<App>, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
    if request.uri().path().starts_with(faults::PREFIX) {
        return faults::serve(app, &request);
    }
    app.faults.unpaused().await;
    app.faults.admit(&request)?;
    if let Some(response) = discovery::serve(&app.state.read().registry, &request) {
        return Ok(response);
    }
    let target = Target::parse(&app.state.read().registry, request.uri().path())?;
    let agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let options = Options::parse(request.uri(), agent)?;
    let form = Form::negotiate(request.headers());
    if request.method() == Method::GET {
        return read(app, &target, &options, form);
    }
    let (head, body) = request.into_parts();
    let media = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = media.split(';').next().unwrap_or("").trim();
    let body = collect(body).await?;
    let outcome = verbs::write(app, &target, &options, &head.method, media, &body)?;
    respond(&target.resource, form, outcome)
}

fn read(app: &Arc<App>, target: &Target, options: &Options, form: Form) -> Result<Response<Body>, ApiError> {
    if options.watch()? && target.subresource.is_none() {
        return Ok(streaming(Watcher::start(app, target, options, form)?.into_body()));
    }
    let Some(name) = &target.name else {
        let list = List::select(&app.state.read(), target, options)?;
        return Ok(streaming(list.into_body(form)));
    };
    if !matches!(target.subresource.as_deref(), None | Some("status")) {
        return Err(ApiError::no_such_path());
    }
    let object = app.state.read().get(&target.resource, &Key::new(&target.namespace, name))?.clone();
    one_object(&target.resource, form, 200, &object)
}

async fn collect(body: Incoming) -> Result<Bytes, ApiError> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {MAX_BODY}")))
        }
        Err(error) => Err(ApiError::bad_request(format!("cannot read the body: {error}"))),
    }
}

fn respond(resource: &Resource, form: Form, outcome: Outcome) -> Result<Response<Body>, ApiError> {
    match outcome {
        Outcome::Object(code, object) => one_object(resource, form, code, &object),
        Outcome::Value(code, value) => Ok(json_response(code, &value)),
        Outcome::List(list) => Ok(streaming(list.into_body(form))),
    }
}

fn one_object(resource: &Resource, form: Form, code: u16, object: &Object) -> Result<Response<Body>, ApiError> {
    let body = match form {
        Form::Whole => Body::from(resource.versioned(&object.bytes)),
        form => {
            let mut out = bytes::BytesMut::new();
            form.write(resource, object, &mut out)?;
            Body::from(out.freeze())
        }
    };
    Ok(with_body(code, body))
}

fn streaming(body: Body) -> Response<Body> {
    with_body(200, body)
}

/// An answer of one JSON document.
pub(crate) fn json_response(code: u16, value: &Value) -> Response<Body> {
    with_body(code, Body::from(value.to_string()))
}

fn with_body(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
