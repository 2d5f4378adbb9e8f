//! What is wrong with a command line that could not be read, for people and for programs.

use crate::exit::Exit;
use crate::output::Printer;
use clap::CommandFactory;
use clap::error::ErrorKind as Wrong;
use retoma_core::{Error, ErrorKind, error::codes};
use std::ffi::OsStr;

/// Prints what clap has to say: help and version are data, everything else is an error.
pub(super) fn end(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        error.print().ok();
        return Exit::Ok;
    }
    let printer = Printer::new(asks_for_json(std::env::args_os().skip(1)), false);
    let text = error.render().to_string();
    if matches!(error.kind(), Wrong::DisplayHelpOnMissingArgumentOrSubcommand | Wrong::MissingSubcommand) {
        let help = super::Cli::command().render_help();
        let missing = Error::new(ErrorKind::Invalid, codes::USAGE, "no verb is given")
            .with_hint("`retoma --help` lists the verbs");
        printer.usage(&format!("{}\n\n{help}", missing.message()), &missing);
    } else {
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        printer.usage(text, &described(text));
    }
    Exit::Failed
}

/// The command line could not be read, so its words are looked at as they are; after `--` stand no options.
fn asks_for_json(words: impl Iterator<Item = impl AsRef<OsStr>>) -> bool {
    words.take_while(|word| word.as_ref() != "--").any(|word| word.as_ref() == "--json")
}

/// Message and hint of the text: paragraphs, of which the first says what is wrong, and others start with `tip:` or
/// `Usage:`.
fn described(text: &str) -> Error {
    let line = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs = text.split("\n\n").map(line);
    let message = paragraphs.next().unwrap_or_default();
    let advice = paragraphs.find_map(|paragraph| {
        let tip = paragraph.strip_prefix("tip: ").map(str::to_owned);
        tip.or_else(|| paragraph.strip_prefix("Usage: ").map(|usage| format!("write it as `{usage}`")))
    });
    let advice = advice.unwrap_or_else(|| "`retoma --help` lists the verbs and options".to_owned());
    Error::new(ErrorKind::Invalid, codes::USAGE, message).with_hint(advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_asked_for_by_an_option_alone() {
        assert!(asks_for_json(["bakcup", "--json"].iter()));
        assert!(!asks_for_json(["ls", "--", "--json"].iter()));
        assert!(!asks_for_json(["ls", "--jsonp"].iter()));
    }

    #[test]
    fn a_tip_is_the_hint_and_otherwise_the_usage() {
        let error = described("no such thing\n\n  tip: take\n  another\n\nUsage: retoma ls\n");
        assert_eq!((error.message(), error.hint()), ("no such thing", Some("take another")));
        let error =
            described("missing:\n  --target <DIR>\n\nUsage: retoma restore --target <DIR>\n\nFor more\n");
        assert_eq!(error.message(), "missing: --target <DIR>");
        assert_eq!(error.hint(), Some("write it as `retoma restore --target <DIR>`"));
    }
}
