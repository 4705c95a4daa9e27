//! `ovenbird-node`: reads the configuration and runs the daemon.

use clap::Parser;
use ovenbird_daemon::process;
use ovenbird_node::config::Args;
use ovenbird_node::daemon;
use ovenbird_node::gateway::cleanup;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let cleanup = args.cleanup;
    let config = args.resolve()?;
    let loglevel = config.loglevel.clone();
    if cleanup {
        return process::run(&loglevel, |_| async move { cleanup::run(&config).await });
    }
    process::run(&loglevel, |stop| daemon::run(config, stop))
}
