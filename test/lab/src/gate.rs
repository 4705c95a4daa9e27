//! The gate: one address for the API server in every network namespace.
//!
//! Nothing joins the lab's namespaces to the root one, yet people run kubectl in the root namespace and nodes need the same API server.
//! A listening socket keeps the namespace it was made in, whoever holds it: so this one process listens on 127.0.0.1:PORT in each
//! namespace and copies bytes to the server. One kubeconfig is then good everywhere.
//!
//! In: names of namespaces, a port, the server's address. Out: copied bytes. It must not look into them.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};
use clap::Args;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tracing::debug;

use crate::place::Place;

/// What to listen on and where to go.
#[derive(Debug, Args)]
pub struct GateArgs {
    /// Port on 127.0.0.1 in each namespace
    #[arg(long)]
    port: u16,
    /// HOST:PORT of the API server, as seen from the namespace this runs in
    #[arg(long)]
    to: String,
    /// Namespaces to listen in
    #[arg(long)]
    netns: Vec<String>,
    /// Listen in the namespace this runs in, too
    #[arg(long)]
    root: bool,
    /// Namespace from which to connect, if not the one this runs in
    #[arg(long)]
    via: Option<String>,
}

/// Listens everywhere and copies until it is ended.
///
/// # Errors
/// When the port is taken in a namespace.
pub async fn run(args: GateArgs) -> Result<()> {
    let mut places: Vec<_> = args.netns.iter().map(Place::netns).collect();
    if args.root {
        places.push(Place::default());
    }
    let upstream = Upstream { address: args.to, via: args.via };
    let mut accepting = JoinSet::new();
    for place in places {
        let listener = place
            .run(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, args.port))?))
            .with_context(|| format!("listening on port {} in {:?}", args.port, place.netns))?;
        listener.set_nonblocking(true).context("preparing a listener")?;
        accepting.spawn(accept(tokio::net::TcpListener::from_std(listener)?, upstream.clone()));
    }
    while accepting.join_next().await.is_some() {}
    Ok(())
}

async fn accept(listener: tokio::net::TcpListener, upstream: Upstream) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(copy(client, upstream.clone()))),
            Err(error) => debug!(%error, "accepting"),
        }
    }
}

/// A server that is down looks to the client as it is: a closed connection.
async fn copy(mut client: TcpStream, upstream: Upstream) {
    let outcome = async {
        let mut server = upstream.connect().await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        anyhow::Ok(tokio::io::copy_bidirectional(&mut client, &mut server).await?)
    };
    if let Err(error) = outcome.await {
        debug!("copying: {error:#}");
    }
}

/// Where the server is, and from which namespace it is seen.
#[derive(Clone, Debug)]
struct Upstream {
    address: String,
    via: Option<String>,
}

impl Upstream {
    async fn connect(self) -> Result<TcpStream> {
        let Some(via) = self.via else { return Ok(TcpStream::connect(&self.address).await?) };
        let connect = move || Place::netns(via).run(|| Ok(std::net::TcpStream::connect(&self.address)?));
        let stream = tokio::task::spawn_blocking(connect).await.context("connecting")??;
        stream.set_nonblocking(true).context("preparing a connection")?;
        Ok(TcpStream::from_std(stream)?)
    }
}
