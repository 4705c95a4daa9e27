//! WATCH: the events of a collection after a version, as they happen, from the bytes that were stored.
//!
//! ```text
//! initial objects (if asked for) --> bookmark "initial events end" --> history from the version on --> ...
//! ```
//!
//! A watcher owns no queue: it reads the collection's history when it is woken. One that is too slow for the history
//! gets 410 Gone, like any client that resumes too late.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use crate::App;
use crate::error::ApiError;
use crate::form::Form;
use crate::history::Event;
use crate::list::{self, CHUNK};
use crate::object::Object;
use crate::resource::Resource;
use crate::route::{Options, Target};
use crate::selector::Selector;
use crate::store::Collection;

/// How often a quiet watch is told the present version, if it wants bookmarks.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(10);
/// How long a watch lasts when the client names no timeout.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// One watching client.
pub(crate) struct Watcher {
    app: Arc<App>,
    resource: Arc<Resource>,
    namespace: String,
    selector: Selector,
    form: Form,
    /// Objects to send as ADDED before anything else.
    initial: VecDeque<Arc<Object>>,
    /// Whether the end of the initial events is still to be announced.
    announce: bool,
    /// Everything up to this version was sent.
    version: u64,
    changes: watch::Receiver<u64>,
    closing: watch::Receiver<u64>,
    bookmarks: Option<Interval>,
    deadline: Instant,
    ended: bool,
}

impl Watcher {
    /// Reads the request and, under the lock, where to start.
    pub(crate) fn start(app: &Arc<App>, target: &Target, options: &Options, form: Form) -> Result<Self, ApiError> {
        let resource = target.resource.clone();
        let mut selector = Selector::parse(&resource, &options.label_selector, &options.field_selector)?;
        if let Some(name) = &target.name {
            selector = selector.named(name);
        }
        let (asked, send_initial) = (options.version()?, options.send_initial_events()?);
        if send_initial.is_some() && options.resource_version_match != "NotOlderThan" {
            return Err(ApiError::bad_request("sendInitialEvents needs resourceVersionMatch=NotOlderThan"));
        }
        let bookmarks = options.bookmarks()?;
        let timeout = options.timeout_seconds()?.map_or(DEFAULT_TIMEOUT, Duration::from_secs).min(DEFAULT_TIMEOUT * 4);
        let (initial, version, changes) = {
            let mut state = app.state.write();
            let current = state.version;
            let collection = state.collection_mut(&resource.id);
            let with_state = send_initial.unwrap_or(asked.is_none());
            let initial = if with_state {
                let all = Collection::range(&collection.objects, &target.namespace, None);
                all.filter(|object| selector.matches(object)).cloned().collect()
            } else {
                VecDeque::new()
            };
            let version = if with_state { current } else { asked.unwrap_or(current) };
            (initial, version, collection.changes())
        };
        Ok(Self {
            announce: send_initial == Some(true) && bookmarks,
            closing: app.faults.closing(),
            app: app.clone(),
            namespace: target.namespace.clone(),
            deadline: Instant::now() + timeout,
            ended: false,
            resource,
            selector,
            form,
            initial,
            version,
            changes,
            bookmarks: bookmarks.then(ticks),
        })
    }

    /// The body of the answer: one JSON document per line, without end until the deadline.
    pub(crate) fn into_body(self) -> Body {
        Body::from_stream(futures::stream::unfold(self, async |mut watcher| {
            let chunk = watcher.next().await?;
            Some((chunk, watcher))
        }))
    }

    async fn next(&mut self) -> Option<Result<Bytes, ApiError>> {
        while !self.ended {
            self.app.faults.unpaused().await;
            let mut out = BytesMut::new();
            if let Err(error) = self.fill(&mut out) {
                self.ended = true;
                write_event("ERROR", error.status().to_string().as_bytes(), &mut out);
            }
            if !out.is_empty() {
                return Some(Ok(out.freeze()));
            }
            tokio::select! {
                changed = self.changes.changed() => self.ended = changed.is_err(),
                () = sleep_until(self.deadline) => self.ended = true,
                _ = self.closing.changed() => self.ended = true,
                () = self.app.stop.cancelled() => self.ended = true,
                () = tick(&mut self.bookmarks) => {
                    let bookmark = self.bookmark();
                    return Some(Ok(bookmark));
                }
            }
        }
        None
    }

    /// Appends what is ready to be sent, up to about one chunk.
    fn fill(&mut self, out: &mut BytesMut) -> Result<(), ApiError> {
        while out.len() < CHUNK
            && let Some(object) = self.initial.pop_front()
        {
            self.write("ADDED", &object, out)?;
        }
        if !self.initial.is_empty() || out.len() >= CHUNK {
            return Ok(());
        }
        if std::mem::take(&mut self.announce) {
            self.write_bookmark(true, out);
            return Ok(());
        }
        self.changes.borrow_and_update();
        let (events, version) = self.pending()?;
        for event in &events {
            if let Some((kind, object)) = self.seen(event) {
                self.write(kind, object, out)?;
            }
        }
        self.version = version;
        Ok(())
    }

    /// Events not yet sent, at most about a chunk of them, and the version up to which they are complete.
    fn pending(&self) -> Result<(Vec<Event>, u64), ApiError> {
        let state = self.app.state.read();
        let Some(collection) = state.collection(&self.resource) else { return Ok((Vec::new(), state.version)) };
        if self.version > state.version {
            return Err(list::too_old(self.version));
        }
        let mut after = collection.history.after(self.version).ok_or_else(|| list::too_old(self.version))?;
        let (mut events, mut size) = (Vec::new(), 0);
        for event in after.by_ref() {
            size += event.object.bytes.len();
            events.push(event.clone());
            if size >= CHUNK {
                break;
            }
        }
        let complete = after.next().is_none();
        let last = events.last().map_or(self.version, |event| event.object.version);
        Ok((events, if complete { state.version } else { last }))
    }

    /// What an event means to this client: objects enter and leave its selection.
    fn seen<'a>(&self, event: &'a Event) -> Option<(&'static str, &'a Object)> {
        if !self.namespace.is_empty() && *event.object.key.namespace != *self.namespace {
            return None;
        }
        let before = event.previous.as_ref().is_some_and(|object| self.selector.matches(object));
        let after = !event.deleted && self.selector.matches(&event.object);
        match (before, after) {
            (false, true) => Some(("ADDED", &event.object)),
            (true, true) => Some(("MODIFIED", &event.object)),
            (true, false) => Some(("DELETED", &event.object)),
            (false, false) => None,
        }
    }

    fn write(&self, kind: &str, object: &Object, out: &mut BytesMut) -> Result<(), ApiError> {
        start_event(kind, out);
        self.form.write(&self.resource, object, out)?;
        out.put_slice(b"}\n");
        Ok(())
    }

    fn bookmark(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.write_bookmark(false, &mut out);
        out.freeze()
    }

    fn write_bookmark(&self, initial_events_end: bool, out: &mut BytesMut) {
        let mut metadata = json!({"resourceVersion": self.version.to_string(), "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (kind, version) = match self.form {
            Form::Whole => (self.resource.kind.as_str(), self.resource.api_version()),
            Form::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            Form::Table => ("Table", "meta.k8s.io/v1".to_owned()),
        };
        let object = json!({"kind": kind, "apiVersion": version, "metadata": metadata});
        write_event("BOOKMARK", object.to_string().as_bytes(), out);
    }
}

fn start_event(kind: &str, out: &mut BytesMut) {
    for part in ["{\"type\":\"", kind, "\",\"object\":"] {
        out.put_slice(part.as_bytes());
    }
}

fn write_event(kind: &str, object: &[u8], out: &mut BytesMut) {
    start_event(kind, out);
    out.put_slice(object);
    out.put_slice(b"}\n");
}

/// The moments at which a bookmark is due; the first comes after one interval.
fn ticks() -> Interval {
    let mut ticks = interval_at(Instant::now() + BOOKMARK_INTERVAL, BOOKMARK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn tick(bookmarks: &mut Option<Interval>) {
    match bookmarks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}
