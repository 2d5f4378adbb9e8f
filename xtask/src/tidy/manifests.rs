//! Every crate takes its lints and its dependencies from the workspace; the strict `clippy.toml` repeats the common one.

use super::{File, Finding, Tree};

const ROOT_CLIPPY: &str = "clippy.toml";
const CORE_CLIPPY: &str = "crates/core/clippy.toml";
/// The one crate with lints of its own, since what is forbidden cannot be allowed for one line.
const OWN_LINTS: &str = "crates/sha256/Cargo.toml";
/// Where its one `unsafe` block is.
const UNSAFE: &str = "crates/sha256/src/lanes.rs";

/// Checks all `Cargo.toml` but the root's, and `crates/core/clippy.toml`.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    // `fuzz/` is no member of the workspace: cargo-fuzz wants it so.
    let members = tree.ending("/Cargo.toml").filter(|file| !file.path.starts_with("fuzz/"));
    let mut findings: Vec<Finding> = members.flat_map(check_manifest).collect();
    findings.extend(check_clippy(tree));
    findings.extend(check_unsafe(tree));
    findings
}

fn check_manifest(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut section = "";
    let mut has_lints = false;
    for (index, line) in file.text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
        } else if (section, line) == ("lints", "workspace = true")
            || file.path == OWN_LINTS && (section, line) == ("lints.rust", "unsafe_code = \"deny\"")
        {
            has_lints = true;
        } else if section.ends_with("dependencies") && line.contains('=') && !line.starts_with('#') {
            let (name, value) = line.split_once('=').unwrap_or_default();
            let from_workspace = name.trim().ends_with(".workspace") || value.contains("workspace = true");
            if !from_workspace {
                let text = format!(
                    "`{}` does not come from the workspace: put it into [workspace.dependencies], use `workspace = true`",
                    name.trim()
                );
                findings.push(Finding::new(&file.path, index + 1, text));
            }
        } else if section.contains("dependencies.") {
            // `[dependencies.x]` would need another reader; one shape is enough.
            findings.push(Finding::new(&file.path, index, "write the dependency on one line"));
            section = "";
        }
    }
    if !has_lints {
        findings.push(Finding::new(&file.path, 1, "add `[lints]` with `workspace = true`"));
    }
    findings
}

/// `unsafe` code is allowed once, where it is known to be.
fn check_unsafe(tree: &Tree) -> Vec<Finding> {
    let allowed = |file: &File| -> Vec<Finding> {
        let lines = file.text.lines().enumerate().filter(|(_, line)| line.trim() == "#[allow(unsafe_code)]");
        let text = "`unsafe` code: there is one block, in `sha256`";
        lines.map(|(index, _)| Finding::new(&file.path, index + 1, text)).collect()
    };
    tree.ending(".rs")
        .flat_map(|file| allowed(file).into_iter().skip(usize::from(file.path == UNSAFE)))
        .collect()
}

/// Clippy takes the nearest file and merges nothing, so the core's file must hold all lines of the root's.
fn check_clippy(tree: &Tree) -> Vec<Finding> {
    let Some(core) = tree.file(CORE_CLIPPY) else { return Vec::new() };
    let missing = tree.text(ROOT_CLIPPY).lines().map(str::trim).filter(|line| {
        !line.is_empty() && !line.starts_with('#') && !core.text.lines().any(|own| own.trim() == *line)
    });
    missing
        .map(|line| {
            let text = format!("repeat `{line}` of {ROOT_CLIPPY}: clippy reads the nearest file only");
            Finding::new(CORE_CLIPPY, 1, text)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[package]\nversion.workspace = true\n[lints]\nworkspace = true\n[dependencies]\n\
        serde.workspace = true\ntokio = { workspace = true, features = [\"fs\"] }\n";

    #[test]
    fn a_crate_that_takes_all_from_the_workspace_passes() {
        assert_eq!(check(&Tree::of(&[("crates/a/Cargo.toml", GOOD)])), []);
    }

    #[test]
    fn own_versions_and_missing_lints_are_found() {
        let bad = "[package]\n[dependencies]\nserde = \"1\"\n[target.'cfg(unix)'.dependencies]\nlibc = { version = \"1\" }\n";
        let lines: Vec<_> =
            check(&Tree::of(&[("crates/a/Cargo.toml", bad)])).iter().map(|f| f.line).collect();
        assert_eq!(lines, [3, 5, 1]);
        let long = format!("{GOOD}[dependencies.rand]\nversion = \"1\"\n");
        assert_eq!(check(&Tree::of(&[("crates/a/Cargo.toml", &long)])).len(), 1);
    }

    #[test]
    fn unsafe_code_is_allowed_once() {
        let lints = GOOD.replace("[lints]\nworkspace = true", "[lints.rust]\nunsafe_code = \"deny\"");
        assert_eq!(check(&Tree::of(&[(OWN_LINTS, &lints)])), []);
        assert_eq!(check(&Tree::of(&[("crates/a/Cargo.toml", &lints)])).len(), 1);
        let once = "mod x {\n    #[allow(unsafe_code)]\n}\n";
        assert_eq!(check(&Tree::of(&[(UNSAFE, once)])), []);
        assert_eq!(check(&Tree::of(&[(UNSAFE, &once.repeat(2))])).len(), 1);
        assert_eq!(check(&Tree::of(&[("crates/a/src/lib.rs", once)])).len(), 1);
    }

    #[test]
    fn the_strict_clippy_file_must_repeat_the_common_one() {
        let root = ("clippy.toml", "# why\nallow = true\nlimit = 80\n");
        let good = ("crates/core/clippy.toml", "allow = true\nlimit = 80\nmore = 1\n");
        assert_eq!(check(&Tree::of(&[root, good])), []);
        let bad = ("crates/core/clippy.toml", "allow = true\nlimit = 90\n");
        assert!(check(&Tree::of(&[root, bad]))[0].text.contains("limit = 80"));
    }
}
