//! Length of source files, module docs, and the share of tests.

use super::source::{Line, is_test_file, lines};
use super::{File, Finding, Tree};

/// No Rust file is longer.
const MAX_LINES: usize = 800;

/// Checks every Rust file.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.ending(".rs") {
        let count = file.text.lines().count();
        if count > MAX_LINES {
            let text = format!("{count} lines: split the file by topic ({MAX_LINES} lines at most)");
            findings.push(Finding::new(&file.path, MAX_LINES + 1, text));
        }
        let is_module = file.path.contains("/src/") && !is_test_file(&file.path);
        if is_module && !file.text.starts_with("//!") {
            let text = "start the module with `//!`: its purpose, its invariants, what it does not do";
            findings.push(Finding::new(&file.path, 1, text));
        }
    }
    findings
}

/// One line: files, median length, share of tests.
pub(super) fn summary(tree: &Tree) -> String {
    let files: Vec<&File> = tree.ending(".rs").collect();
    let mut counts: Vec<usize> = files.iter().map(|file| file.text.lines().count()).collect();
    counts.sort_unstable();
    let total: usize = counts.iter().sum();
    let is_code = |line: &Line<'_>| !line.text.trim().is_empty() && !line.is_comment();
    let (mut all, mut code) = (Share::default(), Share::default());
    for line in files.iter().flat_map(|file| lines(file)) {
        all.add(line.is_test);
        if is_code(&line) {
            code.add(line.is_test);
        }
    }
    format!(
        "{} Rust files, {total} lines, median {}, longest {}; tests {} % of the lines, {} % of those that are code and not \
         comment or blank (the testkit counts as tests)",
        files.len(),
        counts.get(counts.len() / 2).copied().unwrap_or(0),
        counts.last().copied().unwrap_or(0),
        all.percent(),
        code.percent()
    )
}

/// How many lines are tests.
#[derive(Default)]
struct Share {
    tests: usize,
    all: usize,
}

impl Share {
    fn add(&mut self, is_test: bool) {
        self.tests += usize::from(is_test);
        self.all += 1;
    }

    fn percent(&self) -> usize {
        self.tests * 100 / self.all.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_exact() {
        let longest = format!("//! Doc.\n{}", "\n".repeat(MAX_LINES - 1));
        assert_eq!(check(&Tree::of(&[("crates/a/src/x.rs", &longest)])), []);
        let too_long = format!("{longest}\n");
        let findings = check(&Tree::of(&[("crates/a/src/x.rs", &too_long)]));
        assert_eq!((findings.len(), findings[0].line), (1, MAX_LINES + 1));
    }

    #[test]
    fn a_module_starts_with_its_purpose_and_a_test_file_need_not() {
        assert_eq!(check(&Tree::of(&[("crates/a/src/x.rs", "use a;\n")])).len(), 1);
        assert_eq!(check(&Tree::of(&[("crates/a/src/x/tests.rs", "use a;\n")])), []);
        assert_eq!(check(&Tree::of(&[("crates/a/tests/it/main.rs", "use a;\n")])), []);
    }

    #[test]
    fn the_share_of_tests_counts_inline_ones_too() {
        let half = "//! Doc.\nfn a() {}\nfn b() {}\n#[cfg(test)]\nmod tests {\n}\n";
        let text = summary(&Tree::of(&[("crates/a/src/x.rs", half)]));
        assert!(
            text.contains("6 lines") && text.contains("tests 50 % of the lines, 60 % of those"),
            "{text}"
        );
        assert!(summary(&Tree::default()).starts_with("0 Rust files"));
    }
}
