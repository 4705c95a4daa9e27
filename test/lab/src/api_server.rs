//! Brings the API server within reach and starts what hangs on it: gate, scheduler, kubelets.
//!
//! In: a layout. Out: `LAB_DIR/kubeconfig`, good in every namespace, and running processes. It must not make objects.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::layout::Layout;
use crate::options::Api;
use crate::process::{wait_for, write_atomic};
use crate::{cluster, components, real};

const START_LIMIT: Duration = Duration::from_secs(30);

/// Starts the embedded server, or takes the one given; then everything that needs it.
///
/// # Errors
/// Names the process that does not come up.
pub fn start(layout: &Layout) -> Result<()> {
    if layout.options.api == Api::Real {
        return real::start_control(layout);
    }
    let processes = layout.processes();
    let (kubeconfig, upstream) = match &layout.options.api {
        Api::Embedded => {
            processes.start(components::apiserver(layout))?;
            let address = components::embedded_api_address(layout);
            wait_for("the API server to accept", START_LIMIT, || TcpStream::connect(&address).is_ok())
                .with_context(|| processes.log_tail("apiserver"))?;
            (cluster::plain_kubeconfig(layout.api_port), address)
        }
        Api::Kubeconfig(path) => cluster::gated_kubeconfig(path, layout.api_port)?,
        Api::Real => bail!("real Kubernetes has a control plane of its own"),
    };
    // JSON is YAML.
    write_atomic(&layout.kubeconfig(), &serde_json::to_vec_pretty(&kubeconfig)?)?;
    processes.start(components::gate(layout, &upstream))?;
    let node = layout.place("node1");
    let address = format!("127.0.0.1:{}", layout.api_port);
    wait_for("the gate to accept", START_LIMIT, || node.run(|| Ok(TcpStream::connect(&address)?)).is_ok())
        .with_context(|| processes.log_tail("gate"))?;
    if layout.options.api == Api::Embedded {
        processes.start(components::scheduler(layout))?;
    }
    for node in layout.options.node_names() {
        processes.start(components::kubelet(layout, &node))?;
    }
    Ok(())
}
