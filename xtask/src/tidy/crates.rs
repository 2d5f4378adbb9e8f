//! Which of our crates may use which. Anything that the table does not allow is a finding, new crates included.

use super::Finding;
use crate::sh::{self, Result};
use serde_json::Value;
use std::path::Path;

/// A crate of the workspace and those of ours that it uses.
#[derive(Debug, Default)]
pub(super) struct Package {
    name: String,
    manifest: String,
    uses: Vec<Use>,
}

/// A dependency on a crate of ours.
#[derive(Debug)]
struct Use {
    name: String,
    dev: bool,
}

/// What a crate may use of ours.
struct Rule {
    name: &'static str,
    uses: &'static [&'static str],
    /// Besides `uses`, in its tests.
    dev: &'static [&'static str],
}

const CORE: &str = "retoma-core";
const SHA256: &str = "retoma-sha256";
const REPO: &str = "retoma-repo";
const SOURCES: &str = "retoma-sources";
const CONTROL: &str = "retoma-control";
const TESTKIT: &str = "retoma-testkit";
const MARABET: &str = "retoma-marabet";

const RULES: &[Rule] = &[
    Rule { name: CORE, uses: &[], dev: &[] },
    Rule { name: SHA256, uses: &[], dev: &[] },
    Rule { name: REPO, uses: &[CORE, SHA256], dev: &[TESTKIT] },
    Rule { name: SOURCES, uses: &[CORE, REPO], dev: &[TESTKIT] },
    Rule { name: CONTROL, uses: &[CORE, REPO, SOURCES], dev: &[TESTKIT, MARABET] },
    Rule { name: "retoma", uses: &[CORE, REPO, SOURCES, CONTROL, MARABET], dev: &[TESTKIT] },
    // `repo` is for `FaultyStore`. Repo's integration tests use the testkit; its unit tests cannot, since they would meet
    // two versions of every type.
    Rule { name: TESTKIT, uses: &[CORE, REPO], dev: &[] },
    Rule { name: MARABET, uses: &[CORE], dev: &[TESTKIT] },
    Rule { name: "xtask", uses: &[], dev: &[] },
];

/// Reads the output of `cargo metadata --no-deps`.
pub(super) fn parse(metadata: &str) -> Result<Vec<Package>> {
    let metadata: Value =
        serde_json::from_str(metadata).map_err(|error| format!("`cargo metadata`: {error}"))?;
    let packages = metadata["packages"].as_array().ok_or("`cargo metadata` lists no packages")?;
    Ok(packages.iter().map(package).collect())
}

fn package(value: &Value) -> Package {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let manifest = text(&value["manifest_path"]);
    let from_root = Path::new(&manifest).strip_prefix(sh::root()).map(|path| path.display().to_string());
    let dependencies = value["dependencies"].as_array().map_or(&[][..], Vec::as_slice);
    Package {
        name: text(&value["name"]),
        manifest: from_root.unwrap_or(manifest),
        // Crates of ours are those with a path.
        uses: dependencies
            .iter()
            .filter(|dependency| dependency["path"].is_string())
            .map(|dependency| Use { name: text(&dependency["name"]), dev: dependency["kind"] == "dev" })
            .collect(),
    }
}

/// Checks every crate against the table.
pub(super) fn check(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let mut report = |text: String| findings.push(Finding::new(&package.manifest, 1, text));
        let Some(rule) = RULES.iter().find(|rule| rule.name == package.name) else {
            report(format!(
                "`{}` has no rule: add what it may use to xtask/src/tidy/crates.rs, and why it exists to the architecture page",
                package.name
            ));
            continue;
        };
        for used in &package.uses {
            let name = used.name.as_str();
            if rule.uses.contains(&name) || used.dev && rule.dev.contains(&name) {
                continue;
            }
            let how = if used.dev { "even in tests" } else { "outside tests" };
            report(format!(
                "`{}` must not use `{name}` {how}: pass the value in, or move the code to the crate that may",
                package.name
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(name: &str, dependencies: &str) -> Vec<Package> {
        parse(&format!(
            r#"{{"packages":[{{"name":"{name}","manifest_path":"/x/Cargo.toml","dependencies":[{dependencies}]}}]}}"#
        ))
        .unwrap()
    }

    #[test]
    fn allowed_uses_pass() {
        let both = r#"{"name":"retoma-core","path":"/c","kind":null},
            {"name":"retoma-testkit","path":"/t","kind":"dev"},{"name":"serde","path":null,"kind":null}"#;
        assert_eq!(check(&metadata("retoma-repo", both)), []);
    }

    #[test]
    fn a_use_against_the_direction_is_found() {
        let up = metadata("retoma-core", r#"{"name":"retoma-repo","path":"/r","kind":null}"#);
        assert!(check(&up)[0].text.contains("`retoma-core` must not use `retoma-repo` outside tests"));
    }

    #[test]
    fn the_testkit_is_for_tests_only() {
        let normal = metadata("retoma-repo", r#"{"name":"retoma-testkit","path":"/t","kind":null}"#);
        assert_eq!(check(&normal).len(), 1);
        let build = metadata("retoma-repo", r#"{"name":"retoma-testkit","path":"/t","kind":"build"}"#);
        assert_eq!(check(&build).len(), 1);
    }

    #[test]
    fn a_new_crate_needs_a_rule() {
        assert!(check(&metadata("retoma-extra", ""))[0].text.contains("has no rule"));
    }
}
