//! Mutants: every patch in `xtask/mutants/` fits the file that it changes. A full run takes minutes and is not made for
//! every change; one that no longer applies would go unnoticed until then.

use super::{File, Finding, Tree};

const FOLDER: &str = "xtask/mutants/";

/// Checks that what each hunk expects is in its file, as consecutive lines.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let patches = tree.ending(".patch").filter(|patch| patch.path.starts_with(FOLDER));
    patches.flat_map(|patch| check_patch(tree, patch)).collect()
}

fn check_patch(tree: &Tree, patch: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut target, mut wanted, mut hunk_at) = ("", Vec::new(), 0);
    let lines = patch.text.lines().zip(1..).chain([("@@", patch.text.lines().count() + 1)]);
    for (line, number) in lines {
        if line.starts_with("@@") || line.starts_with("---") {
            if !wanted.is_empty() && !has_lines(tree.text(target), &wanted) {
                let text = format!("this hunk no longer fits `{target}`: write the mutant anew");
                findings.push(Finding::new(&patch.path, hunk_at, text));
            }
            wanted.clear();
            hunk_at = number;
        } else if let Some(path) = line.strip_prefix("+++ b/") {
            target = path;
        } else if let Some(old) = line.strip_prefix([' ', '-']) {
            wanted.push(old);
        }
    }
    findings
}

fn has_lines(text: &str, wanted: &[&str]) -> bool {
    let lines: Vec<&str> = text.lines().collect();
    lines.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "# what: w\n# red: r\n--- a/src/a.rs\n+++ b/src/a.rs\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n\
        @@ -7,1 +7,1 @@\n-nine\n+9\n";

    fn lines_of(source: &str) -> Vec<usize> {
        let tree = Tree::of(&[("src/a.rs", source), ("xtask/mutants/a.patch", PATCH)]);
        check(&tree).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn each_hunk_must_fit_wherever_it_has_moved_to() {
        assert_eq!(lines_of("zero\none\ntwo\nthree\nfour\nnine\n"), [0; 0]);
        assert_eq!(lines_of("one\ntwo\nthree\n"), [10]);
        assert_eq!(lines_of("one\nother\ntwo\nthree\nnine\n"), [5]);
        assert_eq!(lines_of(""), [5, 10]);
    }
}
