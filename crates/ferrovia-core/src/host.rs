//! Generated host names: given once, at most 63 bytes a label, never moved.

use crate::id::DeploymentId;
use crate::name::Name;

/// Longest DNS label in bytes (RFC 1035 section 2.3.4).
pub const MAX_LABEL_BYTES: usize = 63;

/// The first label of an instance's generated host name: `SERVICE-ENVIRONMENT`, with `suffix` when that is taken.
pub fn instance_label(service: &Name, environment: &Name, suffix: Option<&str>) -> String {
    let tail = match suffix {
        Some(suffix) => format!("-{environment}-{suffix}"),
        None => format!("-{environment}"),
    };
    shortened(service.as_str(), &tail)
}

/// The first label of a deployment's own host name: `SERVICE-` and the last twelve digits of its id.
pub fn deployment_label(service: &Name, deployment: DeploymentId) -> String {
    shortened(service.as_str(), &format!("-{}", deployment.short()))
}

/// `head` and `tail` in one label; the head gives way, since the tail is what tells two labels apart.
fn shortened(head: &str, tail: &str) -> String {
    let tail = &tail[tail.len().saturating_sub(MAX_LABEL_BYTES - 1)..];
    let head = &head[..head.len().min(MAX_LABEL_BYTES - tail.len())];
    format!("{}{tail}", head.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fit() {
        let long: Name = "s".repeat(40).parse().unwrap();
        let environment: Name = "e".repeat(40).parse().unwrap();
        assert!(instance_label(&long, &environment, Some("abcdef")).len() <= MAX_LABEL_BYTES);
        let short: Name = "web".parse().unwrap();
        let production: Name = "production".parse().unwrap();
        assert_eq!(instance_label(&short, &production, None), "web-production");
    }
}
