//! `ovenbird-master`: reads the configuration and runs the library.

use clap::Parser;
use ovenbird_daemon::process;
use ovenbird_master::config::Args;
use tikv_jemallocator::Jemalloc;

/// Facts are decoded by one thread and dropped by another, and tables are outgrown: glibc's heaps keep a tenth of a large cluster's memory as
/// holes.
#[global_allocator]
static HEAP: Jemalloc = Jemalloc;

fn main() -> anyhow::Result<()> {
    let config = Args::parse().resolve()?;
    process::run(&config.loglevel.clone(), |stop| async { Ok(ovenbird_master::run(config, stop).await?) })
}
