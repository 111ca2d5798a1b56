//! Which nodes may hold plaintext in memory at all.

use serde::Deserialize;
use tidegate_wire::NodeFacts;

/// What a worker's node may be like. By default nothing that carries memory to a disk is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodePolicy {
    /// Swap that outlives a restart. Compressed memory (zram) is not swap in this sense.
    pub allow_swap: bool,
    /// A core pattern that keeps images of crashed processes, the job's among them.
    pub allow_stored_cores: bool,
}

impl NodePolicy {
    /// Of an embedded gateway: the node is the user's own machine; the certificate names what it is.
    pub(crate) const OWN_MACHINE: Self = Self { allow_swap: true, allow_stored_cores: true };

    /// Why a node that says this of itself is refused, and what to do about it.
    pub(crate) fn objection(self, facts: &NodeFacts) -> Option<&'static str> {
        let swap = facts.swap.iter().any(|area| !area.starts_with("/dev/zram"));
        let cores = !matches!(facts.core_pattern.as_str(), "" | "|/bin/false" | "|/bin/true");
        if swap && !self.allow_swap {
            Some(
                "the node swaps to a disk, or cannot see whether: switch it off there (swapoff -a), or set nodes.allow_swap at the gateway",
            )
        } else if cores && !self.allow_stored_cores {
            Some(
                "the node keeps core images, or cannot see whether: set kernel.core_pattern to |/bin/false there, or nodes.allow_stored_cores at the gateway",
            )
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed_passes() {
        let facts = |swap: &[&str], cores: &str| NodeFacts {
            swap: swap.iter().map(|&area| area.to_owned()).collect(),
            core_pattern: cores.to_owned(),
            ..NodeFacts::default()
        };
        let strict = NodePolicy::default();
        assert_eq!(strict.objection(&facts(&[], "|/bin/false")), None);
        assert_eq!(strict.objection(&facts(&["/dev/zram0"], "")), None);
        assert!(
            strict.objection(&facts(&["/dev/sda2"], "")).is_some_and(|why| why.contains("swap"))
        );
        assert!(strict.objection(&facts(&[], "core")).is_some_and(|why| why.contains("core")));
        let unknown = NodeFacts::UNKNOWN;
        assert!(strict.objection(&facts(&[unknown], "")).is_some_and(|why| why.contains("swap")));
        assert!(strict.objection(&facts(&[], unknown)).is_some_and(|why| why.contains("core")));
        assert!(strict.objection(&facts(&[], ".%p")).is_some_and(|why| why.contains("core")));
        assert!(strict.objection(&facts(&[], "|/usr/lib/systemd/systemd-coredump %P")).is_some());
        assert_eq!(NodePolicy::OWN_MACHINE.objection(&facts(&["/dev/sda2"], "core")), None);
    }
}
