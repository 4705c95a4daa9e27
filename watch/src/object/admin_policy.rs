//! An admin policy as far as we read it: one shape for the three kinds of policy.networking.k8s.io. Must not: interpret a value
//! (that is `topology`'s part).

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use kube::Resource;
use kube::api::{ApiResource, ObjectMeta};
use kube::core::ClusterResourceScope;
use ovenbird_topology::facts::AdminPolicySpec;
use ovenbird_topology::{AdminKind, AdminPolicyFact, Interner};
use serde::Deserialize;
use serde::de::Deserializer;

use super::Meta;

/// API group of admin policies.
const GROUP: &str = "policy.networking.k8s.io";

/// One of the kinds, as a type.
pub trait Kind: Clone + fmt::Debug + Send + 'static {
    /// The kind.
    const KIND: AdminKind;
}

/// AdminNetworkPolicy.
#[derive(Clone, Debug)]
pub struct Anp;
/// BaselineAdminNetworkPolicy.
#[derive(Clone, Debug)]
pub struct Banp;
/// ClusterNetworkPolicy.
#[derive(Clone, Debug)]
pub struct Cnp;

impl Kind for Anp {
    const KIND: AdminKind = AdminKind::AdminNetworkPolicy;
}

impl Kind for Banp {
    const KIND: AdminKind = AdminKind::BaselineAdminNetworkPolicy;
}

impl Kind for Cnp {
    const KIND: AdminKind = AdminKind::ClusterNetworkPolicy;
}

/// Version of the API that has a kind.
fn version(kind: AdminKind) -> &'static str {
    match kind {
        AdminKind::AdminNetworkPolicy | AdminKind::BaselineAdminNetworkPolicy => "v1alpha1",
        AdminKind::ClusterNetworkPolicy => "v1alpha2",
    }
}

/// Plural of a kind, as paths have it.
fn plural(kind: AdminKind) -> &'static str {
    match kind {
        AdminKind::AdminNetworkPolicy => "adminnetworkpolicies",
        AdminKind::BaselineAdminNetworkPolicy => "baselineadminnetworkpolicies",
        AdminKind::ClusterNetworkPolicy => "clusternetworkpolicies",
    }
}

/// A kind as dynamic clients name it.
pub fn resource(kind: AdminKind) -> ApiResource {
    let version = version(kind);
    ApiResource {
        group: GROUP.into(),
        version: version.into(),
        api_version: format!("{GROUP}/{version}"),
        kind: kind.as_str().into(),
        plural: plural(kind).into(),
    }
}

/// An admin policy of kind `K`.
#[derive(Clone, Debug)]
pub struct SlimAdmin<K: Kind> {
    meta: ObjectMeta,
    spec: AdminPolicySpec,
    kind: PhantomData<K>,
}

impl<'de, K: Kind> Deserialize<'de> for SlimAdmin<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: Meta,
            #[serde(default)]
            spec: AdminPolicySpec,
        }
        let Wire { metadata, spec } = Wire::deserialize(deserializer)?;
        Ok(SlimAdmin { meta: metadata.into(), spec, kind: PhantomData })
    }
}

impl<K: Kind> Resource for SlimAdmin<K> {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        K::KIND.as_str().into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        version(K::KIND).into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        plural(K::KIND).into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

impl<K: Kind> SlimAdmin<K> {
    /// The fact of an admin policy.
    pub fn tell(self, interner: &mut Interner) -> AdminPolicyFact {
        AdminPolicyFact::new(K::KIND, &self.meta, &self.spec, interner)
    }
}
