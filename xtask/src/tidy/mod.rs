//! `xtask tidy`: rules of this project that neither the compiler nor clippy checks.
//!
//! Every check is a pure function from the tracked files (or from `cargo metadata`) to findings; a finding says where
//! and what to do. There is no list of exceptions: a rule that needs one is changed here, in the open.

mod codes;
mod crates;
mod docs;
mod hygiene;
mod manifests;
mod mutants;
mod purity;
mod size;
mod source;

use crate::args::Args;
use crate::sh::{self, Result};
use std::fmt;
use std::process::Command;

/// Something to mend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    file: String,
    /// From 1.
    line: usize,
    /// What is wrong and what to do about it.
    text: String,
}

impl Finding {
    fn new(file: &str, line: usize, text: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// The text files of the project, by path from the root with `/`.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: Vec<File>,
    /// All paths, also those of files that are not text.
    paths: Vec<String>,
}

/// One text file.
#[derive(Debug)]
pub(crate) struct File {
    path: String,
    text: String,
}

impl Tree {
    /// What git tracks, and what it would track (new files that are not ignored).
    fn load() -> Result<Self> {
        let mut git = Command::new("git");
        git.args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]).current_dir(sh::root());
        let mut tree = Self::default();
        for path in sh::output(&mut git)?.split('\0').filter(|path| !path.is_empty()) {
            // A file that was deleted and not yet committed is no longer the project's.
            let Ok(bytes) = std::fs::read(sh::root().join(path)) else { continue };
            tree.paths.push(path.to_owned());
            if let Ok(text) = String::from_utf8(bytes) {
                tree.files.push(File { path: path.to_owned(), text });
            }
        }
        Ok(tree)
    }

    #[cfg(test)]
    fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| File { path: (*path).into(), text: (*text).into() };
        Self {
            files: files.iter().map(file).collect(),
            paths: files.iter().map(|(path, _)| (*path).to_owned()).collect(),
        }
    }

    /// The file at `path`.
    fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The text of the file at `path`, empty when there is none.
    fn text(&self, path: &str) -> &str {
        self.file(path).map_or("", |file| &file.text)
    }

    /// The files whose path ends with `end`.
    fn ending(&self, end: &'static str) -> impl Iterator<Item = &File> {
        self.files.iter().filter(move |file| file.path.ends_with(end))
    }

    /// Whether a file or folder is at `path`.
    fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        self.paths.iter().any(|known| known == path || known.starts_with(&folder))
    }
}

/// `xtask tidy`.
pub(crate) fn run(args: Args) -> Result {
    args.finish()?;
    let tree = Tree::load()?;
    let metadata = sh::output(sh::cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let packages = crates::parse(&metadata)?;

    let mut findings = check(&tree);
    findings.extend(crates::check(&packages));
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {}", size::summary(&tree));
    match findings.len() {
        0 => Ok(()),
        count => Err(format!("{count} findings")),
    }
}

fn check(tree: &Tree) -> Vec<Finding> {
    let checks: [fn(&Tree) -> Vec<Finding>; 8] = [
        manifests::check,
        size::check,
        purity::check,
        hygiene::check,
        codes::check,
        mutants::check,
        docs::check_pages,
        docs::check_dependencies,
    ];
    checks.iter().flat_map(|check| check(tree)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_as_file_line_and_advice() {
        assert_eq!(Finding::new("a/b.rs", 7, "do this").to_string(), "a/b.rs:7: do this");
    }

    #[test]
    fn folders_are_known_by_what_is_in_them() {
        let tree = Tree::of(&[("docs/a.md", "")]);
        assert!(tree.has("docs/a.md") && tree.has("docs"));
        assert!(!tree.has("doc") && !tree.has("docs/a"));
    }
}
