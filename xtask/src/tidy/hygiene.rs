//! What must not be in a committed file: paths of somebody's machine, other registries, unfinished or skipped code.

use super::source::lines;
use super::{File, Finding, Tree};

// Written in two halves, so that this file passes its own check.
const MACHINE_PATHS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
const UNFINISHED: [(&str, &str); 4] = [
    (concat!("to", "do!("), "finish it, or return an error that says what is missing"),
    (concat!("unimple", "mented!("), "finish it, or return an error that says what is missing"),
    (concat!("db", "g!("), "take it out"),
    (
        concat!("#[ign", "ore"),
        "skip at run time with a printed reason, and fail when `REQUIRE_SERVICES` is set",
    ),
];
const REGISTRY_OPTIONS: [&str; 4] = [
    concat!("--index", "-url"),
    concat!("--extra-index", "-url"),
    concat!("registry", "="),
    concat!("[source", "."),
];
const REGISTRY_FILES: [&str; 4] = [".npmrc", "pip.conf", ".pypirc", "sources.list"];
const CRATES_IO: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

/// Checks all text files.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings: Vec<Finding> = tree.files.iter().flat_map(check_text).collect();
    findings.extend(tree.ending(".rs").flat_map(check_rust));
    for path in &tree.paths {
        let name = path.rsplit('/').next().unwrap_or(path);
        if REGISTRY_FILES.contains(&name) {
            findings.push(Finding::new(
                path,
                1,
                "settings of a registry belong to the machine, not to the project",
            ));
        }
    }
    findings
}

fn check_text(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_lock = file.path.ends_with("Cargo.lock");
    for (index, line) in file.text.lines().enumerate() {
        let mut report = |text: String| findings.push(Finding::new(&file.path, index + 1, text));
        if let Some(path) = MACHINE_PATHS.iter().find(|path| names_machine(line, path)) {
            report(format!("`{path}…` is a path of one machine: use a relative or temporary path"));
        }
        if let Some(option) = REGISTRY_OPTIONS.iter().find(|option| line.trim_start().contains(**option)) {
            report(format!("`{option}` names a registry: packages come from the ordinary ones"));
        }
        if is_lock && line.starts_with("source = ") && line != CRATES_IO {
            report("every package comes from crates.io: remove the other source".to_owned());
        }
    }
    findings
}

/// Whether `line` has an absolute path that begins with `start` and goes on.
fn names_machine(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + start.len()..].chars().next();
        before.is_none_or(|c| !c.is_alphanumeric() && !"._-/}".contains(c))
            && after.is_some_and(|c| c.is_alphanumeric() || c == '.')
    })
}

fn check_rust(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for line in lines(file).iter().filter(|line| !line.is_comment()) {
        for (what, advice) in UNFINISHED {
            if line.text.contains(what) {
                findings.push(Finding::new(&file.path, line.number, format!("`{what}` is left: {advice}")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn paths_of_a_machine_are_found_and_parts_of_other_paths_are_not() {
        for path in MACHINE_PATHS {
            assert_eq!(count("a.md", &format!("see {path}x/y\n")), 1, "{path}");
            assert_eq!(count("a.toml", &format!("path = \"{path}x\"\n")), 1, "{path}");
            assert_eq!(
                count("a.md", &format!("a/b{path}x, https://h{path}x, {path} and {path}<name>\n")),
                0,
                "{path}"
            );
        }
    }

    #[test]
    fn unfinished_code_is_found_and_talk_about_it_is_not() {
        for (what, _) in UNFINISHED {
            assert_eq!(count("crates/a/src/x.rs", &format!("    {what}\n")), 1, "{what}");
            assert_eq!(count("crates/a/src/x.rs", &format!("// no {what}\n")), 0, "{what}");
        }
    }

    #[test]
    fn other_registries_are_found() {
        let lock = |source: &str| format!("[[package]]\nname = \"a\"\nsource = \"{source}\"\n");
        assert_eq!(count("Cargo.lock", &lock("registry+https://github.com/rust-lang/crates.io-index")), 0);
        assert_eq!(count("Cargo.lock", &lock("registry+https://example.org/index")), 1);
        assert_eq!(count("Cargo.lock", &lock("git+https://example.org/a.git#1")), 1);
        assert_eq!(count("web/.npmrc", ""), 1);
        for option in REGISTRY_OPTIONS {
            assert_eq!(count("run.sh", &format!("pip install {option} https://x\n")), 1, "{option}");
        }
    }
}
