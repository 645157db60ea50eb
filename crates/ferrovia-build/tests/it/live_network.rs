//! The network of builds on a real host; needs root, `ip`, `nft` and `iptables`.

use std::path::Path;
use std::process::Command;

use ferrovia_build::buildkit::network::BuildNetwork;
use ferrovia_core::network::AddressPlan;

#[tokio::test]
async fn what_fails_keeps_nothing_else_on_the_host() {
    // A name that a link may have and a table may not.
    let addresses = AddressPlan {
        interface_prefix: "fvt+".to_owned(),
        ..AddressPlan::default()
    };
    let name = addresses.build_interface();
    let made = Command::new("ip")
        .args(["link", "add", &name, "type", "bridge"])
        .status();
    assert!(made.unwrap().success());
    let failures = BuildNetwork::new(&addresses).remove().await.unwrap_err();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].report.message.contains("nft"), "{failures:?}");
    assert!(!Path::new("/sys/class/net").join(name).exists());
}
