//! Networks and ProviderNetworks, of our own API group. Must not: interpret a value (that is `topology`'s part).

use std::borrow::Cow;
use std::fmt;

use kube::Resource;
use kube::api::{ApiResource, ObjectMeta};
use kube::core::ClusterResourceScope;
use ovenbird_api::underlay::{GROUP, NETWORK, NETWORKS, NetworkStatus, PROVIDER_NETWORK, PROVIDER_NETWORKS, VERSION};
use ovenbird_api::{ProviderNetworkSpec, ProviderNetworkStatus};
use ovenbird_topology::facts::NetworkSpec;
use ovenbird_topology::{Interner, NetworkFact, ProviderNetworkFact};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};

use super::Meta;

/// One of the kinds, as a type.
pub trait Kind: Clone + fmt::Debug + Send + 'static {
    /// As the API writes it.
    const KIND: &'static str;
    /// As paths have it.
    const PLURAL: &'static str;
    /// Its `spec`.
    type Spec: Clone + fmt::Debug + Default + DeserializeOwned + Send + 'static;
    /// The part of its `status` that we read.
    type Status: Clone + fmt::Debug + Default + DeserializeOwned + Send + 'static;
}

/// Network.
#[derive(Clone, Debug)]
pub struct NetworkKind;
/// ProviderNetwork.
#[derive(Clone, Debug)]
pub struct ProviderNetworkKind;

impl Kind for NetworkKind {
    const KIND: &'static str = NETWORK;
    const PLURAL: &'static str = NETWORKS;
    type Spec = NetworkSpec;
    type Status = NetworkStatus;
}

impl Kind for ProviderNetworkKind {
    const KIND: &'static str = PROVIDER_NETWORK;
    const PLURAL: &'static str = PROVIDER_NETWORKS;
    type Spec = ProviderNetworkSpec;
    type Status = ProviderNetworkStatus;
}

/// A kind as dynamic clients name it; `None` for those of others.
pub fn resource(kind: &str) -> Option<ApiResource> {
    let plural =
        [(NETWORK, NETWORKS), (PROVIDER_NETWORK, PROVIDER_NETWORKS)].into_iter().find(|(own, _)| *own == kind)?.1;
    Some(ApiResource {
        group: GROUP.into(),
        version: VERSION.into(),
        api_version: format!("{GROUP}/{VERSION}"),
        kind: kind.into(),
        plural: plural.into(),
    })
}

/// An object of kind `K`.
#[derive(Clone, Debug)]
pub struct Own<K: Kind> {
    meta: ObjectMeta,
    spec: K::Spec,
    status: K::Status,
}

impl<'de, K: Kind> Deserialize<'de> for Own<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(bound(deserialize = "S: DeserializeOwned, T: DeserializeOwned"))]
        struct Wire<S: Default, T: Default> {
            metadata: Meta,
            #[serde(default)]
            spec: S,
            #[serde(default)]
            status: T,
        }
        let Wire { metadata, spec, status } = Wire::<K::Spec, K::Status>::deserialize(deserializer)?;
        Ok(Own { meta: metadata.into(), spec, status })
    }
}

impl<K: Kind> Resource for Own<K> {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        K::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

impl Own<NetworkKind> {
    /// The fact of a Network.
    pub fn tell(self, interner: &mut Interner) -> NetworkFact {
        NetworkFact::new(&self.meta, &self.spec, &self.status, interner)
    }
}

impl Own<ProviderNetworkKind> {
    /// The fact of a ProviderNetwork.
    pub fn tell(self, interner: &mut Interner) -> ProviderNetworkFact {
        ProviderNetworkFact::new(&self.meta, &self.spec, &self.status, interner)
    }
}
