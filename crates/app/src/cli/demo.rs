//! `retoma demo`: a real service, destroyed and brought back, in a folder of its own.

use super::drill::{Scenarios, exit, language, show};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use retoma_control::Interrupt;
use retoma_control::demo::{self, Demo};
use retoma_control::drill::{MARKS, Scenario};
use retoma_core::manifest::Command;
use retoma_core::render::Language;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What breaks
    #[arg(long, default_value = "application-failure", value_parser = Scenarios { with_several: false })]
    scenario: Scenario,
    /// The folder in which each run makes its own (default: retoma-demo-USER in the folder for temporary files)
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// The language of the page and the terminal
    #[arg(long, value_name = "LANGUAGE", default_value = "en", value_parser = language)]
    language: Language,
    /// How much data the service has. Hidden: what the demo promises is about the real size; tests take less.
    #[arg(long, hide = true, value_name = "ROWS", default_value_t = retoma_marabet::SeedOptions::default().rows)]
    rows: u64,
}

impl Args {
    /// Models and logs shrink and grow with the rows.
    fn seed_options(&self) -> retoma_marabet::SeedOptions {
        let full = retoma_marabet::SeedOptions::default();
        let part = |bytes: u64| bytes.saturating_mul(self.rows) / full.rows;
        retoma_marabet::SeedOptions {
            rows: self.rows,
            model_bytes: part(full.model_bytes),
            log_bytes: part(full.log_bytes),
            ..full
        }
    }
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let base = args.folder.clone().unwrap_or_else(default_folder);
    if base.exists() && !base.is_dir() {
        let message = format!("`{}` is not a folder", base.display());
        return Err(Error::new(ErrorKind::Invalid, codes::USAGE, message)
            .with_hint("name a folder with `--folder DIR`"));
    }
    let supervisor = super::shell::supervisor()?;
    let words = ["__marabet", "serve", "--root", ".", "--port", "{port}"];
    let start = Command {
        program: supervisor.program.display().to_string(),
        arguments: words.map(str::to_owned).to_vec(),
    };
    let watch = output::watch::Lines::new(context.printer);
    let options = args.seed_options();
    let seed = |root: &Path| retoma_marabet::seed(root, &options, &|_| ()).map(drop);
    let shown = demo::run(&Demo {
        base: &base,
        scenario: args.scenario,
        start: &start,
        seed: &seed,
        supervisor: &supervisor,
        tool_version: env!("CARGO_PKG_VERSION"),
        language: args.language,
        marks: MARKS,
        watch: &watch,
        interrupt: &Interrupt::new(context.interrupt.flag()),
    })?;
    show(context, &shown.report, args.language)?;
    if args.scenario.is_of_server() {
        // Its server is stopped again, so that nothing could be backed up or drilled.
        let page = shown.page.display();
        context
            .printer
            .note(&format!("\nThe page with the picture: {page}\nThe next demo removes this one's folder."));
        return Ok(exit(&shown.report));
    }
    let manifest = shown.manifest_path.display();
    let program = supervisor.program.display();
    context.printer.note(&format!(
        "\nThe page with the picture: {}\nTry next:\n  {program} -f {manifest} snapshots\n  {program} -f {manifest} verify \
         --read-data\n  {program} -f {manifest} drill corruption\n  {program} -f {manifest} evidence\n  {program} demo \
         --scenario lost-key\nThe next demo removes this one's folder.",
        shown.page.display()
    ));
    Ok(exit(&shown.report))
}

/// Where nobody else's files are: below the folder for temporary files, with the user's number.
#[allow(clippy::disallowed_methods)]
fn default_folder() -> PathBuf {
    let (uid, _) = retoma_repo::host::ids();
    std::env::temp_dir().join(format!("retoma-demo-{uid}"))
}
