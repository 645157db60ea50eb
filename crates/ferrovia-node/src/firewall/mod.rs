//! The firewall of the private network: nftables tables of our own, kept as the table of control says.
//!
//! One task owns them. A change of the table becomes one small transaction whatever the number of environments; the
//! table is acknowledged after it. When somebody else changes or flushes our tables, the kernel tells and everything
//! is loaded again; every few minutes the listing is compared without being told. Other tables, Docker's among them,
//! are neither read nor written. On the way out of `node` the rules stay: they are what keeps environments apart.

mod fixed;
mod host;
mod loaded;
mod nft;
mod render;
mod task;
mod wanted;

pub use fixed::{BridgeMatch, Fixed, PlanError, build_gateway};
pub use host::Host;
pub use nft::{Error, Nft};
pub use render::{change, whole};
pub use task::{Firewall, FirewallTask};
pub use wanted::Wanted;

/// Whether the kernel can match the name of a frame's bridge.
///
/// # Errors
/// [`Error`] when `nft` cannot be run.
pub async fn bridge_match(nft: &mut Nft) -> Result<BridgeMatch, Error> {
    let trial = "table bridge ferrovia_trial {\n chain trial {\n  type filter hook prerouting priority 0; policy accept;\n  meta ibrname \"fv0\" accept\n }\n}\n";
    Ok(if nft.would_take(trial).await? {
        BridgeMatch::Name
    } else {
        BridgeMatch::Port
    })
}
