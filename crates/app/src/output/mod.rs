//! The only place that prints. stdout is data, stderr is progress and messages.

pub(crate) mod panic;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod watch;

use retoma_core::Error;
use retoma_core::error::codes;
use retoma_core::render::terminal::{Role, Style};
use serde_json::{Value, json};
use std::borrow::Cow;
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

#[allow(clippy::unused_self)] // All output goes through a printer, also what looks the same in every form.
impl Printer {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet, colour: wants_colour(&std::io::stderr()) }
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

    /// One event of a stream for programs: a line by itself, with `--json` alone.
    pub(crate) fn json_line(self, schema: &str, mut value: Value) {
        if self.json {
            if let Value::Object(map) = &mut value {
                map.insert("schema".to_owned(), json!(schema));
            }
            let mut out = std::io::stdout().lock();
            writeln!(out, "{value}").and_then(|()| out.flush()).ok();
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
            say(text);
        }
    }

    /// Something unexpected that did not stop us.
    pub(crate) fn warning(self, text: &str) {
        say(&format!("{}: {text}", self.paint("warning", "33")));
    }

    /// Something unexpected that has a code and a next step, and did not stop us.
    pub(crate) fn explain_warning(self, error: &Error) {
        let head = self.paint(&format!("warning[{}]", error.code()), "1;33");
        say(&format!("{head}: {error}\n{}: {}", self.paint("hint", "1;36"), next_step(error)));
    }

    /// Text that is complete in itself, such as the manifest's problems.
    pub(crate) fn block(self, text: &str) {
        say(text.trim_end());
    }

    /// An error that is in the verb's own document too: what happened, why, what to do next.
    pub(crate) fn explain(self, error: &Error) {
        say(&self.error_text(error));
    }

    /// Wrong usage, as `text` explains it. With `--json` also as an object on stdout.
    pub(crate) fn usage(self, text: &str, error: &Error) {
        say(&format!("{}: {}", self.head(error), text.trim_end()));
        self.error_document(error);
    }

    /// The error that ends the run. With `--json` also as an object on stdout, the only one.
    pub(crate) fn error(self, error: &Error) {
        self.explain(error);
        self.error_document(error);
    }

    fn error_document(self, error: &Error) {
        self.json("retoma.error/1", error_object(error));
    }

    fn head(self, error: &Error) -> String {
        self.paint(&format!("error[{}]", error.code()), "1;31")
    }

    fn error_text(self, error: &Error) -> String {
        let head = self.head(error);
        let mut text = format!("{head}: failed to {error}");
        if error.contexts().next().is_none() {
            text = format!("{head}: {error}");
        }
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            let line = inner.to_string();
            // Our own messages about files end with the system's words already.
            if !text.contains(&line) {
                text += &format!("\n  because: {line}");
            }
            source = inner.source();
        }
        text + &format!("\n{}: {}", self.paint("hint", "1;36"), next_step(error))
    }

    fn paint(self, text: &str, code: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// An error as part of a document.
pub(crate) fn error_object(error: &Error) -> Value {
    json!({
        "code": error.code().as_str(),
        "kind": format!("{:?}", error.kind()).to_lowercase(),
        "message": error.to_string(),
        "hint": next_step(error),
    })
}

/// What to do next: the error's own hint, or where it is explained.
pub(crate) fn next_step(error: &Error) -> Cow<'_, str> {
    if let Some(hint) = error.hint() {
        return Cow::Borrowed(hint);
    }
    let code = error.code();
    Cow::Owned(match code {
        codes::IO_NOT_FOUND => "check the path, and that what it lies on is mounted".to_owned(),
        codes::IO_PERMISSION => {
            "give this user the right to it, or run the command as a user that has it".to_owned()
        }
        codes::IO_FULL => "make room, then run the command again".to_owned(),
        codes::CANCELLED => "run the command again; nothing half-done counts".to_owned(),
        _ => format!("docs/errors.md says under {code} what to do"),
    })
}

/// A line on stderr; when nobody listens any more, the work goes on.
fn say(text: &str) {
    writeln!(std::io::stderr().lock(), "{text}").ok();
}

/// Columns of the terminal; 100 where there is none.
pub(crate) fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let asked = || rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_col));
    columns.or_else(asked).filter(|columns| *columns > 0).unwrap_or(100).min(120)
}

fn wants_colour(stream: &impl IsTerminal) -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && stream.is_terminal()
}

/// Colours for reports on stdout, where it is a terminal that wants them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Colours(bool);

impl Colours {
    pub(crate) fn stdout() -> Self {
        Self(wants_colour(&std::io::stdout()))
    }
}

impl Style for Colours {
    fn paint(&self, role: Role, text: &str) -> String {
        let code = match role {
            Role::Heading => "1",
            Role::Good => "32",
            Role::Bad => "1;31",
            Role::Quiet => "2",
            Role::Bar => "36",
            Role::LongestBar => "1;33",
        };
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::error::ErrorKind;

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
        assert_eq!(
            PLAIN.error_text(&error),
            "error[R0002]: it is so\nhint: docs/errors.md says under R0002 what to do"
        );
    }
}
