//! Completions, the manual page, and the hidden verbs.

use super::Cli;
use crate::context::Context;
use crate::exit::Exit;
use clap::CommandFactory;
use retoma_control::Supervisor;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::ffi::OsString;

#[derive(Debug, clap::Args)]
pub(super) struct CompletionArgs {
    /// The shell
    shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// The verb, such as `backup` or `evidence verify` (default: the whole program)
    verb: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct MarabetArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(super) struct SuperviseArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// How this binary is called to watch over a service: the service ends when we do, however we end.
pub(super) fn supervisor() -> Result<Supervisor> {
    let program = std::env::current_exe().map_err(|error| Error::io("this program", error))?;
    Ok(Supervisor { program, arguments: vec!["__supervise".into(), "--".into()] })
}

/// Ends with the service's status.
pub(super) fn supervise(args: &SuperviseArgs) -> Result<Exit> {
    retoma_control::service::supervise(&args.command)
        .map(|status| if status == 0 { Exit::Ok } else { Exit::Failed })
}

pub(super) fn completions(context: &Context, args: &CompletionArgs) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "retoma", &mut script);
    context.printer.raw(&script);
    Exit::Ok
}

pub(super) fn man(context: &Context, args: &ManArgs) -> Result<Exit> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command_of(&args.verb)?)
        .render(&mut page)
        .map_err(|error| Error::io("the page", error))?;
    context.printer.raw(&page);
    Ok(Exit::Ok)
}

/// The command that these words lead to.
fn command_of(words: &[String]) -> Result<clap::Command> {
    let mut whole = Cli::command();
    if words.is_empty() {
        return Ok(whole);
    }
    whole.build();
    let mut found = &whole;
    for word in words {
        let visible = |command: &&clap::Command| !command.is_hide_set() && command.get_name() != "help";
        found = found.find_subcommand(word).filter(visible).ok_or_else(|| {
            let known: Vec<&str> =
                found.get_subcommands().filter(visible).map(clap::Command::get_name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let message = format!("`{}` has no verb `{}`", found.get_name(), word.escape_debug());
            Error::new(ErrorKind::Invalid, codes::USAGE, message).with_hint(format!("its verbs are: {known}"))
        })?;
    }
    Ok(found.clone())
}

pub(super) fn marabet(args: &MarabetArgs) -> Result<Exit> {
    retoma_marabet::command(&args.arguments, &mut std::io::stdout()).map(|()| Exit::Ok)
}
