//! The parts together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ferrovia_core::error::Class;
use ferrovia_core::network::AddressPlan;
use ferrovia_core::table::{Audience, NodeRow, Table};
use ferrovia_engine::Engine;
use ferrovia_log::Limits;
use ferrovia_table::observe::{Board, ObservationServer};
use ferrovia_table::{Apply, Changed, Peers, Reader, ReaderOptions, listen};
use ipnet::Ipv4Net;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::dns::{self, Zone};
use crate::firewall::{Firewall, FirewallTask, Fixed, Host, Nft, PlanError, bridge_match};
use crate::logs::{self, Containers};
use crate::probe::Prober;
use crate::replicas::{Keeper, Parts};
use crate::rows::Rows;
use crate::{conntrack, drain, figures};

/// Findings of probes that wait.
const FINDINGS: usize = 1_024;
/// Addresses that left the table and whose connections are to be forgotten.
const GONE: usize = 1_024;
/// Requests to wake that wait.
const WAKES: usize = 64;
/// Name among the readers of the tables.
const READER: &str = "node";

/// How a node is set up.
pub struct Options {
    /// What runs the replicas.
    pub engine: Arc<dyn Engine>,
    /// Directory of the last good table.
    pub table: PathBuf,
    /// Directory of all logs.
    pub logs: PathBuf,
    /// How large the log of an instance may grow.
    pub log_limits: Limits,
    /// `RUN_DIR/tables.sock`, where control serves tables.
    pub tables_socket: PathBuf,
    /// `RUN_DIR/node.sock`, where observations are served.
    pub node_socket: PathBuf,
    /// Who may be at the other end of sockets.
    pub peers: Peers,
    /// The private network; `None` with an engine that has none.
    pub network: Option<Network>,
}

/// The private network of this host. Needs root and nftables.
#[derive(Debug, Clone)]
pub struct Network {
    /// Its addresses and interfaces.
    pub addresses: AddressPlan,
    /// Where the edge listens: applications may reach it where that is not loopback.
    pub edge_listens: Vec<SocketAddr>,
    /// Private ranges outside that applications and builds may reach.
    pub opened: Vec<Ipv4Net>,
    /// The host's resolvers: `/etc/resolv.conf`.
    pub resolvers: PathBuf,
}

/// A node that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address plan cannot be used.
    #[error("the private network cannot be made as it is set")]
    Plan(#[from] PlanError),
    /// The firewall cannot be loaded.
    #[error("the firewall cannot be loaded")]
    Firewall(#[from] crate::firewall::Error),
    /// The last good table cannot be read.
    #[error("the last good table cannot be read")]
    Table(#[from] ferrovia_table::Error),
    /// A socket or a thread cannot be made.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A part ended that never ends.
    #[error("a part of the node has ended")]
    Ended,
}

impl Error {
    /// What kind of failure this is.
    pub const fn class(&self) -> Class {
        match self {
            Self::Plan(_) => Class::Invalid,
            Self::Firewall(error) => error.class(),
            Self::Table(error) => error.class(),
            Self::Io { .. } => Class::Unavailable,
            Self::Ended => Class::Bug,
        }
    }
}

/// Runs a node until `stop`. The firewall stays loaded when it ends.
///
/// # Errors
/// [`Error`] when it cannot begin, or a part ends.
pub async fn run(options: Options, stop: impl Future<Output = ()> + Send) -> Result<(), Error> {
    let (rows_sender, rows) = watch::channel(None);
    let (zone_sender, zone) = watch::channel(Arc::new(Zone::default()));
    let mut tasks = JoinSet::new();

    let firewall = match &options.network {
        Some(network) => Some(begin_network(network, zone, &mut tasks).await?),
        None => None,
    };
    let (reader, handle) = Reader::<NodeRow>::open(ReaderOptions {
        directory: Some(options.table),
        socket: options.tables_socket,
        name: READER.to_owned(),
        audience: Audience::Node,
        peers: options.peers,
    })?;
    let plan = options.network.as_ref().map(|network| network.addresses.clone());
    tasks.spawn(drain::report(
        rows.clone(),
        handle.clone(),
        plan.clone(),
        "/proc/net/nf_conntrack".into(),
    ));
    let take = Take {
        firewall,
        plan: plan.unwrap_or_default(),
        rows: rows_sender,
        zone: zone_sender,
    };
    let reading = tokio::spawn(reader.run(take));

    let (containers, seen) = watch::channel(None);
    let (feeding, drained) = logs::start(
        Arc::clone(&options.engine),
        options.logs,
        options.log_limits,
        seen.clone(),
    )
    .map_err(io("start the thread that reads logs"))?;
    tasks.spawn(feeding);
    let (finder, findings) = mpsc::channel(FINDINGS);
    let board = Board::default();
    tasks.spawn(figures::report(
        Arc::clone(&options.engine),
        board.clone(),
        seen.clone(),
    ));
    let keeper = Keeper::new(Parts {
        prober: Prober::new(Arc::clone(&options.engine), finder, "/proc".into()),
        engine: options.engine,
        board: board.clone(),
        findings,
        rows,
        drained,
        containers,
    });
    tasks.spawn(keeper.run());
    tasks.spawn(serve(board, seen, options.node_socket, options.peers));

    let result = tokio::select! {
        () = stop => Ok(()),
        _ = tasks.join_next() => Err(Error::Ended),
    };
    handle.stop(false);
    // The table's file is closed by the time the reader has ended.
    let _ = reading.await;
    tasks.shutdown().await;
    result
}

/// Begins the firewall and the names.
async fn begin_network(
    network: &Network,
    zone: watch::Receiver<Arc<Zone>>,
    tasks: &mut JoinSet<()>,
) -> Result<Firewall, Error> {
    let host = Host::default();
    for trouble in host.ensure_settings() {
        tracing::warn!("{trouble}");
    }
    let mut nft = Nft::default();
    let matching = bridge_match(&mut nft).await?;
    let fixed = Fixed::new(
        &network.addresses,
        &network.edge_listens,
        &network.opened,
        matching,
        host.has_ipv6(),
    )?;
    let (gone_sender, gone) = mpsc::channel(GONE);
    let (mut task, firewall) = FirewallTask::new(fixed, host.clone(), nft, gone_sender);
    task.ensure_closed().await?;
    tasks.spawn(task.run());
    tasks.spawn(conntrack::forget(gone));
    tasks.spawn(dns::serve(
        network.addresses.clone(),
        host,
        network.resolvers.clone(),
        zone,
        firewall.interfaces(),
    ));
    Ok(firewall)
}

/// Serves observations once there are any: an empty board would say that no replica is there.
async fn serve(board: Board, mut seen: watch::Receiver<Option<Containers>>, socket: PathBuf, peers: Peers) {
    if seen.wait_for(Option::is_some).await.is_err() {
        return;
    }
    match listen(&socket) {
        Ok(listener) => {
            let (wake, mut wakes) = mpsc::channel(WAKES);
            let serving = ObservationServer::new(board, wake, peers).serve(listener);
            let dropping = async {
                while let Some(instance) = wakes.recv().await {
                    tracing::debug!(%instance, "asked to wake an instance; nothing sleeps");
                }
            };
            tokio::join!(serving, dropping);
        }
        Err(error) => tracing::error!(socket = %socket.display(), %error, "observations cannot be served"),
    }
}

/// Takes tables into use: the firewall first, then names, then everything else.
struct Take {
    firewall: Option<Firewall>,
    plan: AddressPlan,
    rows: watch::Sender<Option<Arc<Rows>>>,
    zone: watch::Sender<Arc<Zone>>,
}

impl Apply<NodeRow> for Take {
    async fn apply(&mut self, table: &Table<NodeRow>, _: Changed<'_>) -> Result<(), String> {
        let rows = Arc::new(Rows::new(table));
        if let Some(firewall) = &self.firewall {
            firewall.apply(rows.all.clone()).await?;
        }
        self.zone.send_replace(Arc::new(Zone::new(&self.plan, &rows.all)));
        self.rows.send_replace(Some(rows));
        Ok(())
    }
}

fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { action, source }
}
