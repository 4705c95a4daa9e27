//! Everybody reaches everybody: the pods of a namespace, two on each node, and the nodes.
//!
//! In: a lab. Out: the matrix, when every cell of it holds. Must not: know by what a network mode carries packets.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use ovenbird_lab::demo::matrix;
use ovenbird_lab::{Family, Lab, Matrix, Status};

use crate::pods;
use crate::wire::Capture;

/// A namespace with pods `a-NODE` and `b-NODE` on each node.
pub fn two_on_each_node(lab: &Lab, namespace: &str) -> String {
    let nodes = lab.layout().options.node_names();
    let two = |node: &String| ["a", "b"].map(|name| pods::pod(namespace, &format!("{name}-{node}"), node)).concat();
    pods::namespace(namespace) + &nodes.iter().map(two).collect::<String>()
}

/// Everybody that `status` names reaches all pods of the namespace, by ping and TCP in every family of the lab.
///
/// # Errors
/// Which cells do not hold.
pub fn all_cells(lab: &Lab, status: &Status, namespace: &str) -> Result<Matrix> {
    let matrix = matrix(lab, status, namespace)?;
    let pods = status.pods.iter().filter(|pod| pod.namespace == namespace).count();
    let checks = if lab.layout().options.family == Family::Dual { 4 } else { 2 };
    ensure!(matrix.cells.len() == (pods + status.nodes.len()) * pods, "{} cells", matrix.cells.len());
    ensure!(matrix.cells.iter().all(|cell| cell.checks.len() == checks), "{}", matrix.table());
    ensure!(matrix.failures().is_empty(), "{}\n{}", matrix.table(), matrix.failures().join("\n"));
    Ok(matrix)
}

/// So do all of [`two_on_each_node`] and the nodes, and the fabric sees only the tunnel (and IPv6's own neighbour discovery) between nodes.
///
/// # Errors
/// Which cells do not hold, or what else is on the fabric.
pub async fn by_tunnel_alone(lab: &Lab, namespace: &str, tunnel: &str) -> Result<()> {
    lab.await_running(namespace).await?;
    let status = Status::of(lab).await?;
    let capture = Capture::start(lab)?;
    let matrix = all_cells(lab, &status, namespace)?;
    let kinds = capture.stop()?;
    let nodes = lab.layout().options.node_names().len();
    ensure!(matrix.cells.len() == 3 * nodes * 2 * nodes, "{} cells", matrix.cells.len());
    // At each change of a node's routes (one of IPv6 ends DAD) vswitchd in user space forgets for a moment that tunnels end here (lab/README.md).
    let given_to_the_kernel = format!("unreachable {tunnel}");
    let may_be = ["icmpv6 135", "icmpv6 136", &given_to_the_kernel];
    let seen: BTreeSet<_> = kinds.iter().map(String::as_str).filter(|kind| !may_be.contains(kind)).collect();
    ensure!(seen == BTreeSet::from([tunnel]), "between nodes: {seen:?}");
    Ok(())
}
