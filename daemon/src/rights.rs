//! Says what a daemon lacks the right to do: once a minute at most for each right, with what it is needed for and where to grant it.
//!
//! ```text
//! request --> [client] --> API server           log: account, verb, resource, what for
//!    caller <-- [watches over answers] <-- 403 --------^
//! ```
//!
//! Every answer passes here, so callers need not tell of a refusal ([`was_told`]); they try again in their own time. Other answers
//! with code 403, such as a quota's or an admission webhook's, are the callers' to tell. Must not: change an answer.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kube::client::DynBody;
use kube::core::Status;

/// What each right is needed for, for people and for us.
const TABLE: &str = include_str!("../../deploy/README.md");
/// The same right is not told of more often.
const PAUSE: Duration = Duration::from_secs(60);

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// A right that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    account: String,
    verb: String,
    /// Plural, with its API group in front unless that is the core one.
    resource: String,
    /// The rest of what the API server said: the namespace, or the whole cluster.
    place: String,
}

impl Refusal {
    /// Reads what an authorizer says (k8s.io/apiserver, `responsewriters.Forbidden`):
    /// `pods "a" is forbidden: User "system:serviceaccount:ns:sa" cannot get resource "pods" in API group "" in the namespace "b"`.
    fn parse(message: &str) -> Option<Refusal> {
        let (account, rest) = message.split_once("is forbidden: User \"")?.1.split_once("\" cannot ")?;
        let (verb, rest) = rest.split_once(" resource \"")?;
        let (resource, rest) = rest.split_once("\" in API group \"")?;
        let (group, place) = rest.split_once('"')?;
        let resource = if group.is_empty() { resource.to_owned() } else { format!("{group}/{resource}") };
        Some(Refusal { account: account.into(), verb: verb.into(), resource, place: place.trim().into() })
    }

    /// What `deploy/README.md` says the right is needed for. Whoever named the account otherwise gets the same answer.
    fn reason(&self) -> Option<&'static str> {
        let mut rows = TABLE.lines().filter(|line| line.starts_with("| ovenbird-")).filter_map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [account, resource, verbs, reason] = cells[..] else { return None };
            (resource == self.resource && verbs.split(", ").any(|verb| verb == self.verb)).then_some((account, reason))
        });
        let first = rows.clone().next()?;
        let ours = rows.find(|(account, _)| self.account.ends_with(account)).unwrap_or(first);
        Some(ours.1)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { account, verb, resource, place } = self;
        write!(f, "forbidden: {account} may not {verb} {resource} {place}")?;
        if let Some(reason) = self.reason() {
            write!(f, ", which is needed for: {reason}")?;
        }
        f.write_str("; grant it as deploy/rbac.yaml does")
    }
}

/// Whether an error of the client is, or comes from, a refusal that was told of already.
pub fn was_told(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.any(|cause| match cause.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => status.code == 403 && Refusal::parse(&status.message).is_some(),
        _ => false,
    })
}

/// When each right was told of last: by verb and resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told(Arc<Mutex<HashMap<(String, String), Instant>>>);

impl Told {
    /// Looks at an answer and passes it on.
    pub(crate) async fn look(self, answer: Response<Box<DynBody>>) -> Result<Response<Box<DynBody>>, BoxError> {
        if answer.status() != StatusCode::FORBIDDEN {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        let status = serde_json::from_slice::<Status>(&body).ok();
        if let Some(refusal) = status.and_then(|status| Refusal::parse(&status.message))
            && self.is_due(&refusal, Instant::now())
        {
            tracing::error!("{refusal}");
        }
        Ok(Response::from_parts(head, Box::new(Full::new(body).map_err(|never| match never {}))))
    }

    fn is_due(&self, refusal: &Refusal, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let right = (refusal.verb.clone(), refusal.resource.clone());
        let due = told.get(&right).is_none_or(|last| now.duration_since(*last) >= PAUSE);
        if due {
            told.insert(right, now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = r#"pods is forbidden: User "system:serviceaccount:ovenbird:ovenbird-master" cannot list resource "pods" in API group "" at the cluster scope"#;
    const OF_ONE: &str = r#"leases.coordination.k8s.io "ovenbird-master" is forbidden: User "system:serviceaccount:net:ovn" cannot update resource "leases" in API group "coordination.k8s.io" in the namespace "ovenbird": RBAC: role not found"#;

    fn refusal(message: &str) -> Refusal {
        Refusal::parse(message).expect("a refusal")
    }

    #[test]
    fn a_refusal_says_who_what_and_what_for() {
        assert_eq!(
            refusal(SAID).to_string(),
            "forbidden: system:serviceaccount:ovenbird:ovenbird-master may not list pods at the cluster scope, which is \
             needed for: pod facts: node, addresses, labels; grant it as deploy/rbac.yaml does"
        );
        let of_one = refusal(OF_ONE).to_string();
        assert!(of_one.contains("may not update coordination.k8s.io/leases in the namespace \"ovenbird\""), "{of_one}");
        assert!(of_one.contains("needed for: taking, renewing and handing over the Lease"), "{of_one}");
    }

    #[test]
    fn the_reason_is_that_of_the_account() {
        let of_node = SAID.replace("ovenbird-master", "ovenbird-node");
        assert_eq!(refusal(&of_node).reason(), Some("the annotations of its own node's pods"));
        assert_eq!(refusal(&SAID.replace("list", "bind")).reason(), None);
    }

    #[test]
    fn other_refusals_are_not_about_rights() {
        let quota =
            "pods \"a\" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=1, limited: pods=1";
        assert_eq!(Refusal::parse(quota), None);
        for (code, message, told) in [(403, SAID, true), (403, quota, false), (409, SAID, false)] {
            let status = Status { code, message: message.into(), ..Status::default() };
            let error = kube::runtime::watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)));
            assert_eq!(was_told(&error), told, "{code} {message}");
        }
    }

    #[tokio::test]
    async fn a_right_is_told_of_once_a_minute() {
        let (told, now) = (Told::default(), Instant::now());
        assert!(told.is_due(&refusal(SAID), now) && !told.is_due(&refusal(SAID), now));
        assert!(told.is_due(&refusal(OF_ONE), now) && told.is_due(&refusal(SAID), now + PAUSE));
    }

    #[tokio::test]
    async fn answers_stay_as_they_are() {
        let body = serde_json::to_vec(&Status { code: 403, message: SAID.into(), ..Status::default() }).expect("JSON");
        let full = |body: &[u8]| -> Box<DynBody> {
            Box::new(Full::from(body.to_vec()).map_err(|never: std::convert::Infallible| match never {}))
        };
        let answer = Response::builder().status(403).header("audit-id", "7").body(full(&body)).expect("an answer");
        let (head, same) = Told::default().look(answer).await.expect("passes").into_parts();
        assert_eq!((head.status.as_u16(), &head.headers["audit-id"]), (403, &"7".parse().expect("a header")));
        assert_eq!(same.collect().await.expect("a body").to_bytes(), body);
    }
}
