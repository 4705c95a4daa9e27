//! Real Kubernetes with Ovenbird as its only network. `make test-real` runs these; without it they print SKIP.

mod annotations;
mod basics;
mod churn;
mod kube_proxy;
mod nodes;
mod outages;
mod pods;
mod restarts;
mod rights;
