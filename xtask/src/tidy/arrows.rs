//! The dependency arrows between crates, and who may use cryptography, from Cargo's own metadata.

use anyhow::Result;
use serde::Deserialize;

use crate::shell::{cargo, output};

/// A crate and the crates of the house it may use.
const ARROWS: [(&str, &[&str]); 13] = [
    ("tidegate-plan", &[]),
    ("tidegate-seal", &["tidegate-plan"]),
    ("tidegate-wire", &["tidegate-plan"]),
    ("tidegate-lease", &["tidegate-plan"]),
    ("tidegate-ledger", &["tidegate-plan"]),
    ("tidegate-kit", &["tidegate-ledger", "tidegate-plan"]),
    ("tidegate-gateway", &[CORE[0], CORE[1], CORE[2], CORE[3], CORE[4], "tidegate-kit"]),
    ("tidegate-fuse-cache", &[CORE[0], CORE[1], CORE[2], CORE[3], CORE[4], "tidegate-kit"]),
    ("tidegate", &HOUSE),
    ("tidegate-tests", &[CORE[0], CORE[1], CORE[2], CORE[3], CORE[4], "tidegate-kit"]),
    ("tidegate-bench", &[CORE[0], CORE[1], "tidegate-tests"]),
    ("tidegate-fuzz", &CORE),
    ("xtask", &CORE),
];

const CORE: [&str; 5] =
    ["tidegate-plan", "tidegate-seal", "tidegate-wire", "tidegate-lease", "tidegate-ledger"];

/// All of the library crates.
const HOUSE: [&str; 8] = [
    CORE[0],
    CORE[1],
    CORE[2],
    CORE[3],
    CORE[4],
    "tidegate-kit",
    "tidegate-gateway",
    "tidegate-fuse-cache",
];

/// Outside crates that only the named crates may depend on.
const CRYPTO: [(&str, &[&str]); 4] = [
    ("hpke", &["tidegate-seal"]),
    ("hkdf", &["tidegate-seal"]),
    ("aes-gcm", &["tidegate-seal", "tidegate-tests", "tidegate-bench"]),
    // Outside `seal` for TLS and hashing only: `purity` sees to it that nobody else names its AEAD.
    (
        "ring",
        &[
            "tidegate-seal",
            "tidegate-kit",
            "tidegate-gateway",
            "tidegate-fuse-cache",
            "tidegate-bench",
        ],
    ),
];

/// What a pure crate may not depend on.
const IMPURE: [&str; 12] = [
    "tokio",
    "rustix",
    "libc",
    "hyper",
    "axum",
    "rustls",
    "getrandom",
    "rand",
    "tempfile",
    "jiff",
    "object_store",
    "fuser",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev`, `build`, or nothing for a normal one.
    kind: Option<String>,
    /// Set for crates of the house.
    path: Option<String>,
}

pub(super) fn check() -> Result<Vec<String>> {
    let json =
        output(cargo().args(["metadata", "--no-deps", "--format-version", "1", "--locked"]))?;
    let metadata: Metadata = serde_json::from_str(&json)?;
    Ok(metadata.packages.iter().flat_map(check_package).collect())
}

fn check_package(package: &Package) -> Vec<String> {
    let name = package.name.as_str();
    let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
        return vec![format!("crate {name} has no line in the table of arrows")];
    };
    let pure = CORE.contains(&name);
    let mut findings = Vec::new();
    for dependency in package.dependencies.iter().filter(|d| d.kind.as_deref() != Some("dev")) {
        let to = dependency.name.as_str();
        if dependency.path.is_some() && !allowed.contains(&to) {
            findings.push(format!("arrow {name} -> {to} is not allowed"));
        }
        if pure && IMPURE.contains(&to) {
            findings.push(format!("crate {name} is pure and may not depend on {to}"));
        }
        if CRYPTO.iter().any(|(library, users)| *library == to && !users.contains(&name)) {
            findings.push(format!("crate {name} may not depend on {to}"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependency: &str, path: Option<&str>) -> Package {
        let dependency =
            Dependency { name: dependency.into(), kind: None, path: path.map(str::to_owned) };
        Package { name: name.into(), dependencies: vec![dependency] }
    }

    #[test]
    fn a_wrong_arrow_is_found_and_a_right_one_is_not() {
        let check = |from, to| check_package(&package(from, to, Some("/x"))).len();
        assert_eq!(check("tidegate-gateway", "tidegate-fuse-cache"), 1);
        assert_eq!(check("tidegate-plan", "tidegate-seal"), 1);
        assert_eq!(check("tidegate-gateway", "tidegate-seal"), 0);
    }

    #[test]
    fn only_seal_has_the_ciphers_and_core_has_no_runtime() {
        assert_eq!(check_package(&package("tidegate-gateway", "hpke", None)).len(), 1);
        assert_eq!(check_package(&package("tidegate-seal", "hpke", None)).len(), 0);
        assert_eq!(check_package(&package("tidegate-lease", "tokio", None)).len(), 1);
    }

    #[test]
    fn a_crate_without_a_line_is_found() {
        assert_eq!(check_package(&package("tidegate-drawer", "serde", None)).len(), 1);
    }
}
