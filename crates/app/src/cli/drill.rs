//! `retoma drill`.

use super::record;
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use clap::builder::{PossibleValue, TypedValueParser};
use retoma_control::drill::{self, MARKS, Scenario};
use retoma_control::{Interrupt, Stopwatch, durable};
use retoma_core::decide::drill::exit_code;
use retoma_core::drill::DrillReport;
use retoma_core::render::{Language, report, terminal};
use retoma_core::{Error, Result};
use retoma_repo::SnapshotId;
use retoma_repo::evidence::{Outcome, SubjectComponent, What};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What breaks
    #[arg(value_parser = Scenarios { with_several: true })]
    scenario: Scenario,
    /// Only these components
    #[arg(long, value_name = "NAME")]
    component: Vec<String>,
    /// Write the result as a page and as JSON into this folder
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// The language of the page and the terminal
    #[arg(long, value_name = "LANGUAGE", default_value = "en", value_parser = language)]
    language: Language,
}

/// Reads the name of a scenario; help and completions know all of them.
#[derive(Debug, Clone)]
pub(super) struct Scenarios {
    /// Whether those count that need several repositories.
    pub(super) with_several: bool,
}

impl TypedValueParser for Scenarios {
    type Value = Scenario;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> std::result::Result<Scenario, clap::Error> {
        TypedValueParser::parse_ref(&scenario, command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let value = |scenario: Scenario| PossibleValue::new(scenario.as_str()).help(scenario.about());
        let counts = |scenario: &Scenario| self.with_several || scenario.extent().is_none();
        Some(Box::new(Scenario::ALL.into_iter().filter(counts).map(value)))
    }
}

fn scenario(name: &str) -> std::result::Result<Scenario, String> {
    let known: Vec<&str> = Scenario::ALL.iter().map(|scenario| scenario.as_str()).collect();
    Scenario::from_name(name).ok_or_else(|| format!("the scenarios are {}", known.join(", ")))
}

pub(super) fn language(tag: &str) -> std::result::Result<Language, String> {
    let known: Vec<&str> = Language::ALL.iter().map(|language| language.tag()).collect();
    let found = Language::ALL.iter().find(|language| language.tag().starts_with(tag));
    found
        .copied()
        .filter(|_| !tag.is_empty())
        .ok_or_else(|| format!("the languages are {}", known.join(", ")))
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let loaded = context.manifest()?;
    let described = context.chosen(&loaded.manifest)?;
    for name in &args.component {
        crate::context::component(&loaded.manifest, name)?;
    }
    // Said as by every other verb, before anything is copied: no repository, or a password that opens none.
    drop(context.open(&loaded.manifest)?);
    let supervisor = super::shell::supervisor()?;
    let interrupt = Interrupt::new(context.interrupt.flag());
    let watch = output::watch::Lines::new(context.printer);
    let repeat = repeat(args);
    let told = drill::Context {
        supervisor: &supervisor,
        tool_version: env!("CARGO_PKG_VERSION"),
        repeat: &repeat,
        watch: &watch,
        interrupt: &interrupt,
        clock: Stopwatch::start(),
        marks: MARKS,
    };
    let (manifest, text) = (&loaded.manifest, &loaded.text);
    let result = drill::drill(manifest, text, described, &args.component, args.scenario, &told)?;
    // The result is printed whatever becomes of page and record, and alone; the record is kept without the page too.
    show(context, &result, args.language)?;
    let page = args.report.as_ref().map(|folder| write_report(folder, &result, args.language)).transpose();
    if let Ok(Some(page)) = &page {
        context.printer.note(&format!("the page: {}", page.display()));
    }
    let mut code = exit(&result);
    for failed in [keep_record(context, manifest, &result).err(), page.err()].into_iter().flatten() {
        context.printer.explain(&failed);
        code = Exit::of(&failed);
    }
    Ok(code)
}

/// The command that does the same again.
fn repeat(args: &Args) -> String {
    let start = format!("retoma drill {}", args.scenario);
    args.component.iter().fold(start, |command, name| command + " --component " + name)
}

/// Prints a result on the terminal, or as JSON.
pub(super) fn show(context: &Context, result: &DrillReport, language: Language) -> Result<()> {
    if context.printer.json {
        context.printer.raw(format!("{}\n", result.to_json()?).as_bytes());
    } else {
        let text = terminal::drill(result, output::width(), language, &output::Colours::stdout());
        context.printer.raw(text.as_bytes());
    }
    Ok(())
}

/// The exit code of a verdict.
pub(super) fn exit(result: &DrillReport) -> Exit {
    if exit_code(result.verdict) == 0 { Exit::Ok } else { Exit::Missed }
}

/// Writes `drill-<scenario>.html` and `.json`; gives the page's path.
pub(super) fn write_report(folder: &Path, result: &DrillReport, language: Language) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).map_err(|error| Error::io(folder.display(), error))?;
    let name = format!("drill-{}", result.scenario);
    let page = folder.join(format!("{name}.html"));
    durable::write(&page, report::page(result, language).as_bytes(), durable::SHARED)?;
    durable::write(&folder.join(format!("{name}.json")), result.to_json()?.as_bytes(), durable::SHARED)?;
    Ok(page)
}

fn keep_record(
    context: &Context,
    manifest: &retoma_core::manifest::Manifest,
    result: &DrillReport,
) -> Result<()> {
    if manifest.evidence.signing_key.is_none() {
        return Ok(());
    }
    let subject = result.components.iter().map(|component| SubjectComponent {
        component: component.component.clone(),
        kind: component.kind.clone(),
        snapshot: component.snapshot.as_deref().and_then(|id| SnapshotId::parse(id).ok()),
        data_bytes: component.bytes,
    });
    let outcome = if exit(result) == Exit::Ok { Outcome::Passed } else { Outcome::Failed };
    let details = serde_json::from_str(&result.to_json()?)
        .map_err(|error| Error::internal(format!("the result is not JSON: {error}")))?;
    let repository = context.open(manifest)?;
    record::keep(context, manifest, &repository, What::Drill, outcome, subject.collect(), details);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_repeat_a_drill_of_a_part_its_components_are_named() {
        let component = ["models", "config"].map(str::to_owned).to_vec();
        let args = Args { scenario: Scenario::Deletion, component, report: None, language: Language::ALL[0] };
        assert_eq!(repeat(&args), "retoma drill deletion --component models --component config");
        assert_eq!(repeat(&Args { component: Vec::new(), ..args }), "retoma drill deletion");
    }
}
