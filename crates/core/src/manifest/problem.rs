//! What is wrong with a manifest, and how it is shown: in the style of rustc, without colour, never with a secret.

use super::source::{Excerpt, Source, is_printable};
use crate::error::{Code, Error, ErrorKind, codes};
use crate::units::counted;
use std::ops::Range;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The manifest is not accepted.
    Error,
    /// The manifest is accepted; somebody should look.
    Warning,
}

/// One problem of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The stable code, explained in `docs/errors.md`.
    pub code: Code,
    /// Whether the manifest is refused because of it.
    pub severity: Severity,
    /// Where, as bytes of the text.
    pub span: Range<usize>,
    /// The line in which `span` starts, from 1.
    pub line: usize,
    /// The character of that line, from 1.
    pub column: usize,
    /// What is wrong: one sentence without a full stop, values in backticks, no secrets.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The known word that was probably meant.
    pub did_you_mean: Option<String>,
    excerpt: Excerpt,
}

/// A problem before its position is known in lines.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    code: Code,
    severity: Severity,
    span: Range<usize>,
    message: String,
    hint: Option<String>,
    did_you_mean: Option<String>,
}

impl Draft {
    pub(super) fn error(code: Code, span: &Range<usize>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, severity: Severity::Error, span: span.clone(), message, hint: None, did_you_mean: None }
    }

    pub(super) fn warning(code: Code, span: &Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn did_you_mean(mut self, word: Option<String>) -> Self {
        self.did_you_mean = word;
        self
    }

    pub(super) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Gives drafts their lines, in the order of the text.
pub(super) fn locate(source: &Source<'_>, drafts: Vec<Draft>) -> Vec<Problem> {
    let mut problems: Vec<_> = drafts.into_iter().map(|draft| draft.locate(source)).collect();
    problems.sort_by_key(|problem| problem.span.start);
    problems
}

impl Draft {
    fn locate(self, source: &Source<'_>) -> Problem {
        let (line, column) = source.position(self.span.start);
        Problem {
            excerpt: source.excerpt(&self.span),
            code: self.code,
            severity: self.severity,
            span: self.span,
            line,
            column,
            message: self.message,
            hint: self.hint,
            did_you_mean: self.did_you_mean,
        }
    }
}

impl Severity {
    /// The word in front of the code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

impl Problem {
    /// The problem as several lines that end with a line end; `file_name` is shown as it is.
    pub fn render(&self, file_name: &str) -> String {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let mut text = format!("{}[{}]: {}\n", self.severity.as_str(), self.code, self.message);
        let mut line = |prefix: &str, rest: &str| {
            text.push_str(format!("{prefix}{rest}").trim_end());
            text.push('\n');
        };
        line(&format!("{gutter}--> "), &format!("{file_name}:{}:{}", self.line, self.column));
        line(&format!("{gutter} |"), "");
        line(&format!("{number} | "), &self.excerpt.line);
        let carets = " ".repeat(self.excerpt.caret_start) + &"^".repeat(self.excerpt.caret_count);
        line(&format!("{gutter} | "), &carets);
        if let Some(word) = &self.did_you_mean {
            line(&format!("{gutter} = "), &format!("help: did you mean `{word}`?"));
        }
        if let Some(hint) = &self.hint {
            line(&format!("{gutter} = "), &format!("hint: {hint}"));
        }
        text
    }
}

/// All problems as text, with an empty line after each, and their number in the last line; empty for none.
pub fn render(problems: &[Problem], file_name: &str) -> String {
    let mut text = String::new();
    for problem in problems {
        text.push_str(&problem.render(file_name));
        text.push('\n');
    }
    if !problems.is_empty() {
        text.extend([file_name, ": ", &count(problems), "\n"]);
    }
    text
}

/// The problems as the one error that ends a command; they have to be printed before it.
pub fn summary(problems: &[Problem], file_name: &str) -> Error {
    let message = format!("the manifest `{file_name}` has {}", count(problems));
    Error::new(ErrorKind::Invalid, codes::MANIFEST_INVALID, message)
        .with_hint("repair what is listed; `docs/errors.md` explains each code, `docs/manifest.md` each key")
}

fn count(problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count() as u64;
    match (errors, problems.len() as u64 - errors) {
        (errors, 0) => counted(errors, "error", "errors"),
        (0, warnings) => counted(warnings, "warning", "warnings"),
        (errors, warnings) => {
            format!("{} and {}", counted(errors, "error", "errors"), counted(warnings, "warning", "warnings"))
        }
    }
}

/// A text from the manifest for use in a message: in backticks, on one line, not too long.
pub(super) fn quoted(text: &str) -> String {
    const LIMIT_CHARS: usize = 60;
    let mut short: String =
        text.chars().take(LIMIT_CHARS).map(|c| if is_printable(c) { c } else { '\u{fffd}' }).collect();
    if text.chars().nth(LIMIT_CHARS).is_some() {
        short.push('…');
    }
    format!("`{short}`")
}

/// Words as a list in a sentence: "`a`, `b` or `c`".
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => format!("`{only}`"),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(|word| format!("`{word}`")).collect();
            format!("{} or `{last}`", first.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_shown_with_its_line_and_carets() {
        let source = Source::new("version = 1\nteir = 2\n", Vec::new(), false);
        let draft = Draft::error(codes::MANIFEST_UNKNOWN_KEY, &(12..16), "unknown key `teir`")
            .hint("the keys are `tier`")
            .did_you_mean(Some("tier".into()));
        let problems = locate(&source, vec![draft]);
        let expected = "error[R0104]: unknown key `teir`\n --> retoma.toml:2:1\n  |\n2 | teir = 2\n  | ^^^^\n  = help: \
                        did you mean `tier`?\n  = hint: the keys are `tier`\n\nretoma.toml: 1 error\n";
        assert_eq!(render(&problems, "retoma.toml"), expected);
        assert_eq!(summary(&problems, "f").message(), "the manifest `f` has 1 error");
        assert_eq!(render(&[], "retoma.toml"), "");
    }

    #[test]
    fn texts_in_messages_stay_on_one_line() {
        assert_eq!(quoted("a\nb\u{1b}"), "`a\u{fffd}b\u{fffd}`");
        assert_eq!(quoted(&"x".repeat(100)), format!("`{}…`", "x".repeat(60)));
        assert_eq!(one_of(&["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
