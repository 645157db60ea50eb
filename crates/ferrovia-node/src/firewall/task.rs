//! The task that owns the firewall.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ferrovia_core::table::NodeRow;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::fixed::Fixed;
use super::host::Host;
use super::loaded::Listed;
use super::nft::{Error, Nft};
use super::render;
use super::wanted::Wanted;
use crate::netlink::{NftablesEvent, Received, Subscription, nftables_events};

/// Tables that wait to be applied; the reader waits for each, so that there is hardly ever a second one.
const QUEUE: usize = 4;
/// How often kernel settings and ports are looked at without a hint, in milliseconds.
const LOOK_MS: u64 = 5_000;
/// How often the kernel's listing is compared with what was loaded, in milliseconds.
const COMPARE_MS: u64 = 300_000;
/// Pause before a subscription that failed is opened again, in milliseconds.
const SUBSCRIBE_PAUSE_MS: u64 = 1_000;
/// Pause after a load that failed, in milliseconds.
const RELOAD_PAUSE_MS: u64 = 1_000;
/// Least time between two repairs, in milliseconds: two tools that undo each other's work must not take the machine.
const REPAIR_PAUSE_MS: u64 = 50;

struct Command {
    rows: Vec<NodeRow>,
    done: oneshot::Sender<Result<(), String>>,
}

/// Speaks to the running [`FirewallTask`].
#[derive(Debug, Clone)]
pub struct Firewall {
    commands: mpsc::Sender<Command>,
    bridges: watch::Receiver<u64>,
}

impl Firewall {
    /// Loads what the rows ask for; returns when the kernel has it.
    ///
    /// # Errors
    /// A sentence for people; it is unknown then what is loaded, and the task goes on trying.
    pub async fn apply(&self, rows: Vec<NodeRow>) -> Result<(), String> {
        let (done, answer) = oneshot::channel();
        let gone = || "the firewall's task has ended".to_owned();
        self.commands
            .send(Command { rows, done })
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Changes with every hint that interfaces changed.
    pub fn interfaces(&self) -> watch::Receiver<u64> {
        self.bridges.clone()
    }
}

/// Owns the firewall; [`FirewallTask::run`] it.
pub struct FirewallTask {
    fixed: Fixed,
    host: Host,
    nft: Nft,
    commands: mpsc::Receiver<Command>,
    hints: watch::Sender<u64>,
    /// Rows of the newest table; `None` before the first: what a `node` before this one loaded stays until then.
    rows: Option<Vec<NodeRow>>,
    loaded: Option<Wanted>,
    /// Ports of our bridges whose mode was seen to: each new container makes a dozen hints, and there may be a
    /// thousand ports.
    ports: BTreeSet<String>,
    /// The listings right after the last whole load, by family.
    standards: BTreeMap<&'static str, Listed>,
    gone: mpsc::Sender<Ipv4Addr>,
}

impl FirewallTask {
    /// The task and its handle. Addresses that left the firewall are told to `gone`.
    pub fn new(fixed: Fixed, host: Host, nft: Nft, gone: mpsc::Sender<Ipv4Addr>) -> (Self, Firewall) {
        let (sender, commands) = mpsc::channel(QUEUE);
        let (hints, bridges) = watch::channel(0);
        let task = Self {
            fixed,
            host,
            nft,
            commands,
            hints,
            rows: None,
            loaded: None,
            ports: BTreeSet::new(),
            standards: BTreeMap::new(),
            gone,
        };
        (
            task,
            Firewall {
                commands: sender,
                bridges,
            },
        )
    }

    /// Closes everything if nothing of ours is loaded: after a boot the engine starts containers by itself, and the
    /// first table may be long in coming.
    ///
    /// # Errors
    /// [`Error`] of `nft`.
    pub async fn ensure_closed(&mut self) -> Result<(), Error> {
        let mut missing = false;
        for family in render::families(&self.fixed) {
            missing |= self.nft.list(family, &self.fixed.table).await?.is_none();
        }
        if missing {
            self.rows = Some(Vec::new());
            self.bring().await?;
        }
        Ok(())
    }

    /// Runs until all handles are gone.
    pub async fn run(mut self) {
        let mut links = Source::new(Subscription::links);
        let mut changes = Source::new(Subscription::nftables);
        let mut look = interval_at(Instant::now(), Duration::from_millis(LOOK_MS));
        let compare_every = Duration::from_millis(COMPARE_MS);
        let mut compare = interval_at(Instant::now() + compare_every, compare_every);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut doubt = Doubt::default();
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command { rows, done }) => {
                        self.rows = Some(rows);
                        let result = self.bring().await;
                        // Nobody waits any more: the next table comes.
                        let _ = done.send(result.map_err(|error| chain(&error)));
                    }
                    None => return,
                },
                () = links.changed(|_| {}) => {
                    self.hints.send_modify(|number| *number += 1);
                    if self.look_at_ports() || self.loaded.is_none() {
                        self.bring_or_warn().await;
                    }
                }
                () = changes.changed(|received| doubt.take(&self.nft, &self.fixed.table, received)) => {
                    self.settle(&mut doubt).await;
                }
                _ = look.tick() => {
                    for trouble in self.host.ensure_settings() {
                        tracing::warn!("{trouble}");
                    }
                    // Whatever a hint did not tell of.
                    self.ports.clear();
                    self.bring_or_warn().await;
                }
                _ = compare.tick() => {
                    doubt.lost = true;
                    self.settle(&mut doubt).await;
                }
            }
        }
    }

    /// Loads everything again if somebody else changed it, or may have.
    async fn settle(&mut self, doubt: &mut Doubt) {
        let changed = std::mem::take(&mut doubt.changed);
        let lost = std::mem::take(&mut doubt.lost);
        if self.loaded.is_none() || !(changed || lost) {
            return;
        }
        if !changed {
            match self.is_as_loaded().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!("the firewall was not compared: {}", chain(&error)),
            }
        }
        tracing::warn!("somebody else changed the platform's firewall tables; they are loaded again");
        self.loaded = None;
        self.bring_or_warn().await;
        sleep(Duration::from_millis(REPAIR_PAUSE_MS)).await;
    }

    async fn bring_or_warn(&mut self) {
        if let Err(error) = self.bring().await {
            tracing::warn!("the firewall was not loaded: {}", chain(&error));
            sleep(Duration::from_millis(RELOAD_PAUSE_MS)).await;
        }
    }

    /// Sees to the ports that are new; whether any came or went.
    fn look_at_ports(&mut self) -> bool {
        let ports = self.host.ports(&self.fixed.bridges, &self.ports);
        let changed = ports != self.ports;
        self.ports = ports;
        changed
    }

    /// Loads what is wanted, by the smallest transaction that does it.
    async fn bring(&mut self) -> Result<(), Error> {
        self.look_at_ports();
        let Some(rows) = &self.rows else { return Ok(()) };
        let ports = match self.fixed.bridge_match {
            super::BridgeMatch::Port => self.ports.clone(),
            super::BridgeMatch::Name => BTreeSet::new(),
        };
        let wanted = Wanted::new(rows, ports);
        let before = self.loaded.take();
        if let Some(loaded) = &before {
            match render::change(&self.fixed, loaded, &wanted) {
                None => {
                    self.loaded = before;
                    return Ok(());
                }
                Some(change) => match self.nft.apply(&change).await {
                    Ok(()) => {}
                    // The tables are not what was thought: the whole is right in any case.
                    Err(Error::Refused(why)) => {
                        tracing::warn!("a change of the firewall was refused ({why}); the whole is loaded");
                        self.load_whole(&wanted).await?;
                    }
                    Err(error) => return Err(error),
                },
            }
        } else {
            self.load_whole(&wanted).await?;
        }
        let left = before.iter().flat_map(|before| before.members.keys());
        for address in left.filter(|address| !wanted.members.contains_key(address)) {
            // A full queue loses nothing but tidiness: the kernel forgets by itself.
            let _ = self.gone.try_send(*address);
        }
        self.loaded = Some(wanted);
        Ok(())
    }

    async fn load_whole(&mut self, wanted: &Wanted) -> Result<(), Error> {
        self.nft.apply(&render::whole(&self.fixed, wanted)).await?;
        self.standards.clear();
        for family in render::families(&self.fixed) {
            if let Some(listing) = self.nft.list(family, &self.fixed.table).await? {
                self.standards.insert(family, Listed::new(&listing));
            }
        }
        Ok(())
    }

    /// Whether the kernel lists what was loaded. Chains of services come and go by small changes: that each is there
    /// is told by the map that leads to it.
    async fn is_as_loaded(&mut self) -> Result<bool, Error> {
        let Some(wanted) = &self.loaded else {
            return Ok(true);
        };
        let elements = render::elements(&self.fixed, wanted);
        for family in render::families(&self.fixed) {
            let Some(listing) = self.nft.list(family, &self.fixed.table).await? else {
                return Ok(false);
            };
            let mut listed = Listed::new(&listing);
            let mut standard = self.standards.get(family).cloned().unwrap_or_default();
            listed
                .chains
                .retain(|name, rules| !name.starts_with("service_") || rules.len() != 2);
            standard.chains.retain(|name, _| !name.starts_with("service_"));
            let ours = elements.iter().filter(|((of, _), _)| *of == family);
            if !listed.is_as_loaded(
                &standard,
                &ours.map(|((_, set), elements)| (*set, elements)).collect(),
            ) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether somebody else changed our tables, from what the kernel tells: changes first, then who made them.
#[derive(Debug, Default)]
struct Doubt {
    /// Ours were touched by the transaction whose end is not yet told.
    touched: bool,
    /// Somebody else's transaction touched ours.
    changed: bool,
    /// It is not known what happened.
    lost: bool,
}

impl Doubt {
    fn take(&mut self, nft: &Nft, table: &str, received: Received<'_>) {
        let Received::Messages(datagram) = received else {
            self.lost = true;
            return;
        };
        for event in nftables_events(datagram) {
            match event {
                NftablesEvent::Table(name) => self.touched |= name == table,
                NftablesEvent::Done { process } => {
                    self.changed |= std::mem::take(&mut self.touched) && !nft.is_ours(process);
                }
            }
        }
    }
}

/// A subscription that is opened again when it fails.
struct Source {
    open: fn() -> std::io::Result<Subscription>,
    subscription: Option<Subscription>,
}

impl Source {
    const fn new(open: fn() -> std::io::Result<Subscription>) -> Self {
        Self {
            open,
            subscription: None,
        }
    }

    /// Waits for the next datagram. A new subscription counts as a loss: what happened before it is unknown.
    async fn changed(&mut self, mut take: impl FnMut(Received<'_>)) {
        loop {
            let Some(subscription) = &mut self.subscription else {
                match (self.open)() {
                    Ok(subscription) => {
                        self.subscription = Some(subscription);
                        take(Received::Lost);
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the kernel's messages cannot be followed");
                        sleep(Duration::from_millis(SUBSCRIBE_PAUSE_MS)).await;
                        continue;
                    }
                }
            };
            match subscription.next().await {
                Ok(received) => {
                    take(received);
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the kernel's messages are followed anew");
                    self.subscription = None;
                }
            }
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
