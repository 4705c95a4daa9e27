//! `ovenbird-node`: reads the configuration and runs the daemon.

use std::io::Write as _;

use clap::Parser;
use ovenbird_daemon::process;
use ovenbird_node::config::Args;
use ovenbird_node::daemon;
use ovenbird_node::gateway::cleanup;
use ovenbird_node::remove;
use ovenbird_node::uplink::{Purpose, Task};

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (cleanup, dry_run, restore) = (args.cleanup, args.dry_run, args.restore_uplink);
    let remove = args.remove_network;
    let config = args.resolve()?;
    let loglevel = config.loglevel.clone();
    if dry_run {
        return process::run(&loglevel, |_| async move {
            let steps = Task::new(&config, Purpose::Gateway).show(&config.gateway.bridge, cleanup).await?;
            Ok(std::io::stdout().write_all(steps.as_bytes())?)
        });
    }
    if restore {
        return process::run(&loglevel, |_| async move { Task::new(&config, Purpose::Gateway).restore().await });
    }
    if remove {
        return process::run(&loglevel, |_| async move { remove::run(&config).await });
    }
    if cleanup {
        return process::run(&loglevel, |_| async move { cleanup::run(&config).await });
    }
    process::run(&loglevel, |stop| daemon::run(config, stop))
}
