//! Medians, ratios, and the section of `docs/benchmarks.md` that is written from them.

use super::data::Shape;
use super::measure::Measured;
use super::tools::Step;
use crate::sh::{self, Result};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const BEGIN: &str = "<!-- bench files: begin -->";
const END: &str = "<!-- bench files: end -->";
/// The tool that the others are compared with.
const BASE: &str = "restic";

/// All measurements so far.
#[derive(Debug, Default)]
pub(super) struct Results {
    costs: BTreeMap<(Step, &'static str), Vec<Measured>>,
    sizes: BTreeMap<(Step, &'static str), u64>,
}

impl Results {
    pub(super) fn add(&mut self, step: Step, tool: &'static str, measured: Measured) {
        self.costs.entry((step, tool)).or_default().push(measured);
    }

    /// The size of the repository after `step`, in bytes.
    pub(super) fn add_size(&mut self, step: Step, tool: &'static str, bytes: u64) {
        self.sizes.insert((step, tool), bytes);
    }

    /// The median of one number of the measurements.
    fn median(&self, step: Step, tool: &'static str, number: impl Fn(&Measured) -> f64) -> Option<f64> {
        let mut numbers: Vec<f64> = self.costs.get(&(step, tool))?.iter().map(number).collect();
        numbers.sort_by(f64::total_cmp);
        let middle = numbers.len() / 2;
        if numbers.len() % 2 == 1 {
            return Some(numbers[middle]);
        }
        Some(f64::midpoint(numbers[middle - 1], numbers[middle]))
    }
}

/// The report as Markdown, without date.
pub(super) fn render(
    results: &Results,
    steps: &[Step],
    versions: &[(&'static str, String)],
    shape: &Shape,
    rounds: usize,
) -> String {
    let mut text = format!(
        "Machine: {}. Data: {} MiB, of these half in {} small files ({} a folder), a third in models, the rest in logs; \
         the big file has {} MiB. Medians of {rounds}.\n\nVersions: {}.\n",
        machine(),
        shape.bytes >> 20,
        shape.files,
        shape.per_folder,
        shape.big_bytes >> 20,
        versions.iter().map(|(_, version)| version.as_str()).collect::<Vec<_>>().join("; ")
    );
    let tools: Vec<&'static str> = versions.iter().map(|(name, _)| *name).collect();
    let wall = |step, tool| results.median(step, tool, |cost| cost.wall_seconds);
    let cpu = |step, tool| results.median(step, tool, |cost| cost.cpu_seconds);
    #[allow(clippy::cast_precision_loss)]
    let peak = |step, tool| results.median(step, tool, |cost| (cost.peak_bytes >> 20) as f64);
    #[allow(clippy::cast_precision_loss)]
    let size = |step, tool| results.sizes.get(&(step, tool)).map(|bytes| *bytes as f64 / f64::from(1 << 20));
    let sized = [Step::Initial, Step::Changed];
    table(
        &mut text,
        "Wall time, seconds (in brackets: how many times faster than restic)",
        &tools,
        steps,
        wall,
        true,
    );
    table(
        &mut text,
        "CPU time, seconds (user and system; in brackets: restic's share)",
        &tools,
        steps,
        cpu,
        true,
    );
    table(&mut text, "Peak memory of the largest process, MiB", &tools, steps, peak, false);
    let sized: Vec<Step> = steps.iter().copied().filter(|step| sized.contains(step)).collect();
    table(&mut text, "Size of the repository after the step, MiB", &tools, &sized, size, false);
    text
}

fn table(
    text: &mut String,
    title: &str,
    tools: &[&'static str],
    steps: &[Step],
    value: impl Fn(Step, &'static str) -> Option<f64>,
    with_ratio: bool,
) {
    let decimals = if with_ratio { 2 } else { 0 };
    let cell = |step, tool| match (value(step, tool), value(step, BASE)) {
        (None, _) => "–".to_owned(),
        (Some(own), Some(base)) if with_ratio && tool != BASE && own > 0.0 => {
            format!("{own:.decimals$} ({:.1}×)", base / own)
        }
        (Some(own), _) => format!("{own:.decimals$}"),
    };
    let mut lines =
        vec![format!("| step | {} |", tools.join(" | ")), format!("|---|{}", "--:|".repeat(tools.len()))];
    for step in steps {
        let cells: Vec<String> = tools.iter().map(|tool| cell(*step, tool)).collect();
        lines.push(format!("| {} | {} |", step.title(), cells.join(" | ")));
    }
    // Writing to a string cannot fail.
    let _written = write!(text, "\n**{title}**\n\n{}\n", lines.join("\n"));
}

/// Processor, cores, memory, system: enough to compare, nothing that names a machine.
fn machine() -> String {
    let field = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kibibytes: u64 =
        field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel: String = kernel.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    format!(
        "{}, {cores} cores, {} GiB, Linux {}",
        field("/proc/cpuinfo", "model name"),
        (kibibytes + (1 << 19)) >> 20,
        kernel.trim_end_matches('.')
    )
}

/// Puts `text` between the marks of the page at `path`.
pub(super) fn write(path: &Path, date: &str, text: &str) -> Result {
    let page = sh::read(path)?;
    let section = format!("Measured on {date}.\n\n{text}");
    let page = replace(&page, &section)
        .ok_or_else(|| format!("`{}` has lost its marks {BEGIN} … {END}", path.display()))?;
    sh::write(path, page)?;
    println!("bench: {} written", path.display());
    Ok(())
}

fn replace(page: &str, section: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{section}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(wall_seconds: f64) -> Measured {
        Measured { wall_seconds, cpu_seconds: wall_seconds * 2.0, peak_bytes: 300 << 20 }
    }

    fn results() -> Results {
        let mut results = Results::default();
        for seconds in [9.0, 1.0, 4.0] {
            results.add(Step::Initial, "restic", cost(seconds));
        }
        for seconds in [1.0, 3.0] {
            results.add(Step::Initial, "retoma", cost(seconds));
        }
        results.add_size(Step::Initial, "restic", 64 << 20);
        results
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        let median = |tool| results().median(Step::Initial, tool, |cost| cost.wall_seconds);
        assert_eq!(median("restic"), Some(4.0));
        assert_eq!(median("retoma"), Some(2.0));
        assert_eq!(median("borg"), None);
    }

    #[test]
    fn the_report_has_ratios_and_dashes_for_what_was_not_run() {
        let versions = [("restic", "restic 0.14".to_owned()), ("retoma", "retoma 0.1".to_owned())];
        let shape = Shape { bytes: 3 << 30, files: 50_000, per_folder: 500, big_bytes: 4 << 30 };
        let text = render(&results(), &[Step::Initial, Step::Verify], &versions, &shape, 3);
        for wanted in [
            "Versions: restic 0.14; retoma 0.1.",
            "| initial backup | 4.00 | 2.00 (2.0×) |",
            "| initial backup | 300 | 300 |",
            "| initial backup | 64 | – |",
            "| verify, reading all data | – | – |",
            "Medians of 3.",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in:\n{text}");
        }
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("# T\nbefore\n{BEGIN}\nold\n{END}\nafter\n");
        let page = replace(&page, "new\n").unwrap();
        assert_eq!(page, format!("# T\nbefore\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert_eq!(replace("# no marks", "new"), None);
    }
}
