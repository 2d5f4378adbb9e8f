//! The core has no effects: no files, network, environment, processes, clocks, async, printing.
//!
//! Its `clippy.toml` holds the same rule by resolved path; this check also sees what is only imported.

use super::source::{has_word, lines};
use super::{File, Finding, Tree};

const CORE: &str = "crates/core/src/";
/// Modules of `std` that have effects.
const STD: [&str; 5] = ["fs", "net", "env", "process", "thread"];
const WORDS: [&str; 8] =
    ["SystemTime", "Instant", "tokio", "getrandom", "println!", "eprintln!", "print!", "Timestamp::now"];

/// Checks the core's files, without their tests.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.ending(".rs").filter(|file| file.path.starts_with(CORE)).flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_group = false;
    for line in lines(file).into_iter().filter(|line| !line.is_test && !line.is_comment()) {
        let text = line.text;
        in_group |= text.trim_start().starts_with("use std::{");
        let effect =
            |name: &&&str| has_word(text, &format!("std::{name}")) || in_group && has_word(text, name);
        let found = STD.iter().find(effect).map(|name| format!("std::{name}"));
        let found =
            found.or_else(|| WORDS.iter().find(|word| has_word(text, word)).map(|word| (*word).to_owned()));
        if let Some(what) = found {
            let text = format!("`{what}` has an effect, the core has none: take the value as an argument");
            findings.push(Finding::new(&file.path, line.number, text));
        }
        in_group &= !text.contains(';');
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        check(&Tree::of(&[("crates/core/src/x.rs", text)])).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn pure_code_passes_also_when_it_speaks_of_effects() {
        let text = "//! No std::fs here.\nuse std::fmt;\nuse std::{collections, fmt};\nstruct Instantly;\nlet fs = 1;\n";
        assert!(found(text).is_empty());
        assert!(found("#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n").is_empty());
        assert_eq!(check(&Tree::of(&[("crates/repo/src/x.rs", "use std::fs;\n")])), []);
    }

    #[test]
    fn effects_are_found_whichever_way_they_come_in() {
        assert_eq!(found("use std::fs::File;\n"), [1]);
        assert_eq!(found("use std::{\n    fmt,\n    env,\n};\nlet env = 1;\n"), [3]);
        assert_eq!(found("let now = std::time::Instant::now();\n"), [1]);
        assert_eq!(found("fn a() {\n    println!();\n    tokio::spawn(b);\n}\n"), [2, 3]);
        assert_eq!(found("let at = jiff::Timestamp::now();\n"), [1]);
    }
}
