//! Error codes and their manual: each code has its section, each section its code.

use super::{Finding, Tree};

const CODES: &str = "crates/core/src/error/codes.rs";
const MANUAL: &str = "docs/errors.md";
/// What every section must answer.
const ANSWERS: [&str; 3] = ["**Meaning.**", "**Why.**", "**What to do.**"];

/// Compares `codes.rs` with `docs/errors.md`.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let codes = codes(tree.text(CODES));
    let sections = sections(tree.text(MANUAL));
    let mut findings = Vec::new();
    for (index, (line, code)) in codes.iter().enumerate() {
        if codes[..index].iter().any(|(_, other)| other == code) {
            findings.push(Finding::new(
                CODES,
                *line,
                format!("`{code}` is taken: a code has one meaning for ever"),
            ));
        } else if !sections.iter().any(|section| section.code == *code) {
            findings.push(Finding::new(CODES, *line, format!("add a section `## {code}: …` to {MANUAL}")));
        }
    }
    for (index, section) in sections.iter().enumerate() {
        let code = &section.code;
        if !codes.iter().any(|(_, known)| known == code) {
            let text = format!("no error has the code `{code}`: remove the section or correct it");
            findings.push(Finding::new(MANUAL, section.line, text));
        }
        if sections[..index].iter().any(|other| other.code >= *code) {
            let text = format!("keep the sections in the order of their codes (`{code}`)");
            findings.push(Finding::new(MANUAL, section.line, text));
        }
        for answer in ANSWERS.iter().filter(|answer| !section.body.contains(**answer)) {
            findings.push(Finding::new(
                MANUAL,
                section.line,
                format!("`{code}` has no paragraph `{answer} …`"),
            ));
        }
    }
    findings
}

/// (line, code) of every `NAME = "R0000";`.
fn codes(text: &str) -> Vec<(usize, String)> {
    let mut codes = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let value = line.split_once(" = \"").and_then(|(_, value)| value.trim_end().strip_suffix("\";"));
        if let Some(code) = value.filter(|code| is_code(code)) {
            codes.push((index + 1, code.to_owned()));
        }
    }
    codes
}

fn is_code(text: &str) -> bool {
    text.len() == 5 && text.starts_with('R') && text[1..].bytes().all(|byte| byte.is_ascii_digit())
}

#[derive(Debug)]
struct Section {
    line: usize,
    code: String,
    body: String,
}

fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            let code = line.trim_start_matches('#').trim_start().split(':').next().unwrap_or_default();
            open = is_code(code);
            if open {
                sections.push(Section { line: index + 1, code: code.to_owned(), body: String::new() });
            }
        } else if let Some(section) = sections.last_mut().filter(|_| open) {
            section.body.push_str(line);
            section.body.push('\n');
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "**Meaning.** a\n\n**Why.** b\n\n**What to do.** c\n";

    fn findings(codes: &str, manual: &str) -> Vec<String> {
        check(&Tree::of(&[(CODES, codes), (MANUAL, manual)])).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn codes_and_manual_that_agree_pass() {
        let codes = "codes! {\n    /// A.\n    A = \"R0001\";\n    B = \"R0002\";\n}\n";
        let manual = format!("# Errors\n\n## R0001: a\n{BODY}## R0002: b\n{BODY}## Other\ntext\n");
        assert!(findings(codes, &manual).is_empty());
    }

    #[test]
    fn each_side_misses_what_the_other_has() {
        let all = findings("A = \"R0001\";\n", &format!("## R0002: b\n{BODY}"));
        assert_eq!(all.len(), 2);
        assert!(all[0].starts_with("crates/core/src/error/codes.rs:1: add a section `## R0001"), "{all:?}");
        assert!(all[1].starts_with("docs/errors.md:1: no error has the code `R0002`"), "{all:?}");
    }

    #[test]
    fn a_section_answers_all_questions_itself() {
        let manual = format!("## R0001: a\n**Meaning.** a\n## R0002: b\n{BODY}");
        let all = findings("A = \"R0001\";\nB = \"R0002\";\n", &manual);
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all[0].contains("**Why.**") && all[1].contains("**What to do.**"), "{all:?}");
    }

    #[test]
    fn a_code_is_given_once_and_sections_are_in_order() {
        let manual = format!("## R0002: b\n{BODY}## R0001: a\n{BODY}");
        let all = findings("A = \"R0001\";\nB = \"R0002\";\nC = \"R0001\";\n", &manual);
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all[0].contains("is taken") && all[1].contains("order"), "{all:?}");
    }
}
