//! Pages: a title each, links that lead somewhere, and a row in `docs/dependencies.md` for every dependency.

use super::{File, Finding, Tree};

const ROWS: &str = "docs/dependencies.md";

/// Checks titles and links of every Markdown page.
pub(super) fn check_pages(tree: &Tree) -> Vec<Finding> {
    tree.ending(".md").flat_map(|page| check_page(tree, page)).collect()
}

fn check_page(tree: &Tree, page: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !page.text.lines().find(|line| !line.is_empty()).is_some_and(|line| line.starts_with("# ")) {
        findings.push(Finding::new(&page.path, 1, "start the page with a title (`# …`)"));
    }
    let mut in_code = false;
    for (index, line) in page.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for target in links(line) {
            let path = resolve(&page.path, target);
            if path.as_ref().is_none_or(|path| !tree.has(path)) {
                let text = format!("the link to `{target}` leads nowhere: correct it or add the file");
                findings.push(Finding::new(&page.path, index + 1, text));
            }
        }
    }
    findings
}

/// Targets of `[…](target)` that are files of ours.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).filter_map(|(target, _)| {
        let path = target.split('#').next().unwrap_or_default();
        let is_ours = !path.is_empty() && !path.contains("://") && !path.starts_with("mailto:");
        is_ours.then_some(path)
    })
}

/// `target` as seen from the page at `from`, from the root; none when it leaves the project.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()?),
            "" => return None,
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Compares `[workspace.dependencies]` with the rows of `docs/dependencies.md`.
pub(super) fn check_dependencies(tree: &Tree) -> Vec<Finding> {
    let dependencies = dependencies(tree.text("Cargo.toml"));
    let rows = rows(tree.text(ROWS));
    let mut findings = Vec::new();
    for (line, name) in &dependencies {
        if !rows.iter().any(|row| row.name == *name) {
            let text = format!("add a row for `{name}` to {ROWS}: what for, why this one, licence");
            findings.push(Finding::new("Cargo.toml", *line, text));
        }
    }
    for row in &rows {
        if !dependencies.iter().any(|(_, name)| *name == row.name) {
            findings.push(Finding::new(
                ROWS,
                row.line,
                format!("`{}` is no dependency: remove its row", row.name),
            ));
        }
        if row.cells.iter().any(|cell| cell.trim().is_empty()) || row.cells.len() != 3 {
            let text =
                format!("`{}` needs three cells after its name: what for, why this one, licence", row.name);
            findings.push(Finding::new(ROWS, row.line, text));
        }
    }
    findings
}

/// (line, name) of every dependency that is not ours.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut names = Vec::new();
    let mut inside = false;
    for (index, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            inside = line == "[workspace.dependencies]";
            continue;
        }
        let entry = line.split_once(" = ").filter(|_| inside && !line.starts_with(['#', ' ']));
        if let Some((name, _)) = entry.filter(|(_, value)| !value.contains("path = ")) {
            names.push((index + 1, name));
        }
    }
    names
}

#[derive(Debug)]
struct Row<'a> {
    line: usize,
    name: &'a str,
    cells: Vec<&'a str>,
}

/// The rows whose first cell is a name in backticks.
fn rows(text: &str) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some((name, rest)) = line.strip_prefix("| `").and_then(|line| line.split_once("` |")) else {
            continue;
        };
        let cells = rest.trim_end().trim_end_matches('|').split(" | ").collect();
        rows.push(Row { line: index + 1, name, cells });
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_somewhere_pass() {
        let page = "# T\n[a](b.md#x) [b](../README.md) [c](https://x.org) [d](#here) [e](../docs)\n```\n[f](gone.md)\n```\n";
        let tree = Tree::of(&[("docs/a.md", page), ("docs/b.md", "# B\n"), ("README.md", "# R\n")]);
        assert_eq!(check_pages(&tree), []);
    }

    #[test]
    fn dead_links_and_missing_titles_are_found() {
        let tree = Tree::of(&[("docs/a.md", "no title\n[a](gone.md)\n[b](../../out.md) [c](/etc/x)\n")]);
        let lines: Vec<_> = check_pages(&tree).iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [1, 2, 3, 3]);
    }

    const MANIFEST: &str = "[workspace]\nx = 1\n[workspace.dependencies]\nours = { path = \"a\" }\naes = \"1\"\n\
        serde = { version = \"1\" }\n[profile.dev]\nopt-level = 1\n";

    fn rows_checked(page: &str) -> Vec<String> {
        let tree = Tree::of(&[("Cargo.toml", MANIFEST), (ROWS, page)]);
        check_dependencies(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_row_for_each_dependency_passes() {
        let page = "# D\n| crate | for | why | licence |\n|---|---|---|---|\n| `aes` | a | b | MIT |\n| `serde` | a | b | MIT |\n";
        assert!(rows_checked(page).is_empty());
    }

    #[test]
    fn missing_stale_and_empty_rows_are_found() {
        let all = rows_checked("| `aes` | a |  | MIT |\n| `gone` | a | b | MIT |\n");
        assert_eq!(all.len(), 3, "{all:?}");
        assert!(all[0].starts_with("Cargo.toml:6: add a row for `serde`"), "{all:?}");
        assert!(all[1].contains("`aes` needs three cells"), "{all:?}");
        assert!(all[2].contains("`gone` is no dependency"), "{all:?}");
    }
}
