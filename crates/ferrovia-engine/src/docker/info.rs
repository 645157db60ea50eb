//! Who answers at Docker's socket, and what about it keeps workloads from running as designed.

use serde::Deserialize;

use super::api::{Api, Ask};
use crate::{EngineInfo, Error};

/// How long the answer may take, in milliseconds.
const INFO_TIMEOUT_MS: u64 = 30_000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    server_version: String,
    #[serde(default)]
    architecture: String,
    #[serde(default, rename = "OSType")]
    os: String,
    #[serde(default)]
    live_restore_enabled: bool,
    #[serde(default)]
    memory_limit: bool,
    #[serde(default)]
    pids_limit: bool,
    #[serde(default, rename = "IPv4Forwarding")]
    forwarding: bool,
    security_options: Option<Vec<String>>,
}

/// Asks for it.
pub(super) async fn ask(api: &Api) -> Result<EngineInfo, Error> {
    let info: Info = api
        .ask_for(Ask::get("/info", INFO_TIMEOUT_MS))
        .await
        .map_err(|refusal| refusal.into_error("info"))?;
    let version = api
        .version()
        .await
        .map_err(|refusal| refusal.into_error("version"))?;
    Ok(EngineInfo {
        name: format!("Docker {}", info.server_version),
        api_version: version.to_string(),
        live_restore: info.live_restore_enabled,
        architecture: oci_architecture(&info.architecture).to_owned(),
        problems: problems(&info),
    })
}

fn problems(info: &Info) -> Vec<String> {
    let security = |name: &str| {
        let options = info.security_options.as_deref().unwrap_or_default();
        options
            .iter()
            .any(|option| option.split(',').any(|part| part == format!("name={name}")))
    };
    let checks = [
        (
            info.os != "linux",
            "the engine does not run Linux containers; use one that does",
        ),
        (
            !info.memory_limit,
            "memory limits are not enforced; boot with the memory control group enabled",
        ),
        (
            !info.pids_limit,
            "limits of processes are not enforced; boot with the pids control group enabled",
        ),
        (
            !info.forwarding,
            "IPv4 forwarding is off; turn it on with `sysctl net.ipv4.ip_forward=1`",
        ),
        (
            !security("seccomp"),
            "Docker runs without its seccomp filter; use a kernel and a Docker that have it",
        ),
        (
            security("rootless"),
            "rootless Docker hides its bridges from the host; use the system's Docker",
        ),
    ];
    checks
        .into_iter()
        .filter(|(met, _)| *met)
        .map(|(_, words)| words.to_owned())
        .collect()
}

/// The kernel's word for a processor in OCI's words.
fn oci_architecture(kernel: &str) -> &str {
    match kernel {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" => "arm",
        "i386" | "i686" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfit_engine_says_why() {
        let read = |text: &str| problems(&serde_json::from_str(text).unwrap());
        let fit = r#"{"ServerVersion":"29.0.0","OSType":"linux","MemoryLimit":true,"PidsLimit":true,
            "IPv4Forwarding":true,"SecurityOptions":["name=apparmor","name=seccomp,profile=builtin","name=cgroupns"]}"#;
        assert!(read(fit).is_empty());
        assert_eq!(read(&fit.replace("name=apparmor", "name=rootless")).len(), 1);
        assert_eq!(read(r#"{"ServerVersion":"29.0.0","OSType":"windows"}"#).len(), 5);
    }
}
