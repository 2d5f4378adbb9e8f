//! Completions, the manual page, and the hidden verbs.

use super::Cli;
use crate::context::Context;
use crate::exit::Exit;
use clap::CommandFactory;
use retoma_core::{Error, Result};
use std::ffi::OsString;

#[derive(Debug, clap::Args)]
pub(super) struct CompletionArgs {
    /// The shell
    shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct MarabetArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(super) fn completions(context: &Context, args: &CompletionArgs) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "retoma", &mut script);
    context.printer.raw(&script);
    Exit::Ok
}

pub(super) fn man(context: &Context) -> Result<Exit> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(|error| Error::io("the page", error))?;
    context.printer.raw(&page);
    Ok(Exit::Ok)
}

pub(super) fn marabet(args: &MarabetArgs) -> Result<Exit> {
    retoma_marabet::command(&args.arguments, &mut std::io::stdout()).map(|()| Exit::Ok)
}
