//! The only place that prints. stdout is data, stderr is progress and messages.

#![allow(clippy::print_stdout, clippy::print_stderr)]

pub(crate) mod panic;
pub(crate) mod progress;
pub(crate) mod table;

use retoma_core::Error;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};

/// How much is said, and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    /// Results as one JSON document.
    pub(crate) json: bool,
    /// Only errors on stderr.
    pub(crate) quiet: bool,
    /// Colours on stderr.
    colour: bool,
}

impl Printer {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { json, quiet, colour: !no_colour && std::io::stderr().is_terminal() }
    }

    /// A piece of data for people: not printed with `--json`. A closed pipe ends the output, not the program.
    pub(crate) fn data(self, text: &str) {
        if !self.json {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{text}").ok();
        }
    }

    /// The result for programs: printed with `--json` alone. `schema` is `retoma.<verb>/1`.
    pub(crate) fn json(self, schema: &str, mut value: Value) {
        if self.json {
            if let Value::Object(map) = &mut value {
                map.insert("schema".to_owned(), json!(schema));
            }
            let mut out = std::io::stdout().lock();
            writeln!(out, "{value:#}").ok();
        }
    }

    /// A file's contents, as they are.
    pub(crate) fn raw(self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).ok();
    }

    /// A message for people.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// Something unexpected that did not stop us.
    pub(crate) fn warning(self, text: &str) {
        eprintln!("{}: {text}", self.paint("warning", "33"));
    }

    /// Text that is complete in itself, such as the manifest's problems.
    pub(crate) fn block(self, text: &str) {
        eprintln!("{}", text.trim_end());
    }

    /// An error: what happened, why, what to do next. With `--json` also as an object on stdout.
    pub(crate) fn error(self, error: &Error) {
        eprintln!("{}", self.error_text(error));
        let object = json!({
            "code": error.code().as_str(),
            "kind": format!("{:?}", error.kind()).to_lowercase(),
            "message": error.to_string(),
            "hint": error.hint(),
        });
        self.json("retoma.error/1", object);
    }

    fn error_text(self, error: &Error) -> String {
        let head = self.paint(&format!("error[{}]", error.code()), "1;31");
        let mut text = format!("{head}: failed to {error}");
        if error.contexts().next().is_none() {
            text = format!("{head}: {error}");
        }
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            let line = inner.to_string();
            // Our own messages about files end with the system's words already.
            if !text.contains(&line) {
                text.push_str(&format!("\n  because: {line}"));
            }
            source = inner.source();
        }
        if let Some(hint) = error.hint() {
            text.push_str(&format!("\n{}: {hint}", self.paint("hint", "1;36")));
        }
        text
    }

    fn paint(self, text: &str, code: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::error::{ErrorKind, codes};

    const PLAIN: Printer = Printer { json: false, quiet: false, colour: false };

    #[test]
    fn an_error_says_what_why_and_what_next() {
        let inner = Error::io("/data/x", std::io::Error::from(std::io::ErrorKind::PermissionDenied));
        let error = Error::new(ErrorKind::Invalid, codes::USAGE, "it is so")
            .context("back up models")
            .with_source(inner)
            .with_hint("do this");
        let expected = "error[R0002]: failed to back up models: it is so\n  because: `/data/x`: permission denied\nhint: do this";
        assert_eq!(PLAIN.error_text(&error), expected);
    }

    #[test]
    fn without_context_there_is_no_verb() {
        let error = Error::new(ErrorKind::Invalid, codes::USAGE, "it is so");
        assert_eq!(PLAIN.error_text(&error), "error[R0002]: it is so");
    }
}
