//! Which lines of a Rust file are tests, and which are comments: by the shape that rustfmt gives them, not by parsing.

use super::File;

/// One line of a source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: usize,
    pub(super) text: &'a str,
    /// In a `#[cfg(test)]` item or in a file that is all test.
    pub(super) is_test: bool,
}

impl Line<'_> {
    /// Whether the whole line is a comment (doc comments too).
    pub(super) fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with("//")
    }
}

/// Whether the whole file is test code.
pub(super) fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("crates/testkit/")
}

/// The lines of `file`, classified.
pub(super) fn lines(file: &File) -> Vec<Line<'_>> {
    let all_test = is_test_file(&file.path);
    let mut end_of_tests: Option<String> = None;
    let mut starts = false;
    let mut lines = Vec::new();
    for (index, text) in file.text.lines().enumerate() {
        let trimmed = text.trim();
        let was_inside = end_of_tests.is_some() || starts;
        if let Some(end) = &end_of_tests {
            if text == end {
                end_of_tests = None;
            }
        } else if trimmed == "#[cfg(test)]" {
            starts = true;
        } else if starts && !trimmed.starts_with("#[") {
            starts = false;
            if trimmed.ends_with('{') {
                let indent = &text[..text.len() - text.trim_start().len()];
                end_of_tests = Some(format!("{indent}}}"));
            }
        }
        let is_test = all_test || was_inside || starts;
        lines.push(Line { number: index + 1, text, is_test });
    }
    lines
}

/// Whether `text` has `word` not as a part of a longer name.
pub(super) fn has_word(text: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(is_name)
            && !text[at + word.len()..].chars().next().is_some_and(is_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_lines(path: &str, text: &str) -> Vec<usize> {
        let file = File { path: path.into(), text: text.into() };
        lines(&file).iter().filter(|line| line.is_test).map(|line| line.number).collect()
    }

    #[test]
    fn a_test_module_ends_at_its_own_brace() {
        let text = "fn a() {\n}\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\nfn c() {}\n";
        assert_eq!(test_lines("src/a.rs", text), [3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_test_module_in_its_own_file_is_one_line_here_and_all_lines_there() {
        let text = "#[cfg(test)]\n#[path = \"x\"]\nmod tests;\nfn a() {}\n";
        assert_eq!(test_lines("src/a.rs", text), [1, 2, 3]);
        assert_eq!(test_lines("src/a/tests.rs", "fn a() {}\n"), [1]);
        assert_eq!(test_lines("crates/x/tests/it/main.rs", "fn a() {}\n"), [1]);
    }

    #[test]
    fn an_indented_test_function_ends_at_its_indent() {
        let text =
            "impl A {\n    #[cfg(test)]\n    fn b() {\n        {\n        }\n    }\n    fn c() {}\n}\n";
        assert_eq!(test_lines("src/a.rs", text), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("let x = Instant::now();", "Instant"));
        assert!(!has_word("struct Instantly;", "Instant"));
        assert!(!has_word("my_tokio", "tokio"));
        assert!(has_word("use tokio;", "tokio"));
    }
}
