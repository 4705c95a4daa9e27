//! The fact of an admin policy: AdminNetworkPolicy, BaselineAdminNetworkPolicy or ClusterNetworkPolicy.
//!
//! What cannot be read never opens anything: a rule that allows then fits nothing, one that denies or passes denies (`read`). Source:
//! network-policy-api, "fail closed". Must not: know which pods there are, or its place among others.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ovenbird_api::{AclLogging, annotation};
use ovsdb::Str;

use super::rule::{Rule, told};
use super::{Annotated, annotated, created};
use crate::intern::Interner;
use crate::selection::{Problem, Selection, Use};

mod read;
mod wire;

use read::Reader;

pub use wire::*;

/// The kinds of admin policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminKind {
    /// v1alpha1, before NetworkPolicies.
    AdminNetworkPolicy,
    /// v1alpha2, before or after NetworkPolicies.
    ClusterNetworkPolicy,
    /// v1alpha1, after NetworkPolicies, and after all others.
    BaselineAdminNetworkPolicy,
}

/// When a policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Before NetworkPolicies.
    Admin,
    /// After them: for pods that none of them isolates.
    Baseline,
}

/// Kind and name.
pub type AdminKey = (AdminKind, Str);

/// An admin policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminPolicyFact {
    /// Kind and `metadata.name`.
    pub key: AdminKey,
    /// `metadata.creationTimestamp`, seconds since 1970; of two with one priority the older is asked first.
    pub created: i64,
    /// `metadata.generation`, for its conditions.
    pub generation: Option<i64>,
    /// `spec.tier`, or what the kind says.
    pub tier: Tier,
    /// `spec.priority`, 0 to 1000; the lower is asked first. `None` when it cannot be read (and of a BaselineAdminNetworkPolicy, which has
    /// none): then the policy is asked first of its tier, so that what it denies comes before whatever may allow, and opens nothing itself.
    pub priority: Option<u16>,
    /// `spec.subject`.
    pub subject: Selection,
    /// `spec.ingress`, at their index.
    pub ingress: Box<[AdminRule]>,
    /// `spec.egress`, at their index.
    pub egress: Box<[AdminRule]>,
    /// Annotation `acl-logging`.
    pub acl_logging: Annotated<AclLogging>,
    /// What was left out.
    pub problems: Box<[Problem]>,
}

/// A rule, and what becomes of traffic that fits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminRule {
    /// `name`, for people.
    pub name: Option<Str>,
    /// What `action` comes to: where after the tier there is none, Pass allows; what cannot be read denies.
    pub action: AdminAction,
    /// What fits.
    pub rule: Rule,
}

/// What becomes of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAction {
    /// Let through.
    Allow,
    /// Stopped.
    Deny,
    /// Left to what comes after this tier.
    Pass,
}

impl AdminKind {
    /// All there are.
    pub const ALL: [AdminKind; 3] =
        [AdminKind::AdminNetworkPolicy, AdminKind::BaselineAdminNetworkPolicy, AdminKind::ClusterNetworkPolicy];

    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            AdminKind::AdminNetworkPolicy => "AdminNetworkPolicy",
            AdminKind::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            AdminKind::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
        }
    }

    /// As names of ACLs begin.
    pub const fn short(self) -> &'static str {
        match self {
            AdminKind::AdminNetworkPolicy => "ANP",
            AdminKind::ClusterNetworkPolicy => "CNP",
            AdminKind::BaselineAdminNetworkPolicy => "BANP",
        }
    }
}

impl AdminPolicyFact {
    /// The fact of an admin policy from its kind, `metadata` (name, creationTimestamp, generation, annotations) and `spec`.
    pub fn new(kind: AdminKind, meta: &ObjectMeta, spec: &AdminPolicySpec, interner: &mut Interner) -> AdminPolicyFact {
        let mut reader = Reader::new(kind, interner);
        let subject = reader.subject(&spec.subject);
        let tier = reader.tier(spec.tier.as_deref());
        let priority = reader.priority(spec.priority);
        let ingress = reader.rules("spec.ingress", spec.ingress.as_deref());
        let egress = reader.rules("spec.egress", spec.egress.as_deref());
        AdminPolicyFact {
            key: (kind, meta.name.as_deref().unwrap_or_default().into()),
            created: created(meta),
            generation: meta.generation,
            tier,
            priority,
            subject,
            ingress,
            egress,
            acl_logging: annotated(meta, annotation::ACL_LOGGING, AclLogging::parse),
            problems: told(reader.into_problems()),
        }
    }

    /// The selections that the policy needs, each with what for; sorted.
    pub(crate) fn uses(&self) -> Vec<(Selection, Use)> {
        let mut uses = vec![(self.subject.clone(), Use::Subject)];
        self.ingress.iter().for_each(|rule| rule.rule.add_uses(&self.subject, true, &mut uses));
        self.egress.iter().for_each(|rule| rule.rule.add_uses(&self.subject, false, &mut uses));
        uses.sort_unstable();
        uses.dedup();
        uses
    }

    /// The order in which policies are asked: tier, priority, age, kind and name.
    pub(crate) fn order(&self) -> impl Ord + use<'_> {
        let last = self.key.0 == AdminKind::BaselineAdminNetworkPolicy;
        (self.tier, last, self.priority, self.created, &self.key)
    }
}
