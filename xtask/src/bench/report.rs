//! Medians, ratios, and the section of `docs/benchmarks.md` that is written from them.

use super::measure::Measured;
use crate::sh::{self, Result};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// What is measured: its name on the command line, and what it stands for in a table.
pub(super) type Row = (&'static str, &'static str);

/// What is reported, apart from the numbers.
pub(super) struct Report<'a> {
    /// Names the section of `docs/benchmarks.md`.
    pub(super) benchmark: &'static str,
    /// The tool that the others are compared with.
    pub(super) base: &'static str,
    /// What was worked on.
    pub(super) data: String,
    pub(super) rounds: usize,
    /// Tools with their versions, in the order of the columns.
    pub(super) tools: &'a [(&'static str, String)],
    pub(super) rows: &'a [Row],
    /// The rows after which the size of the repository tells something.
    pub(super) sized: &'a [Row],
    /// Markdown that follows on the tables.
    pub(super) notes: String,
}

/// All measurements so far.
#[derive(Debug, Default)]
pub(super) struct Results {
    costs: BTreeMap<(&'static str, &'static str), Vec<Measured>>,
    sizes: BTreeMap<(&'static str, &'static str), u64>,
}

impl Results {
    pub(super) fn add(&mut self, step: &'static str, tool: &'static str, measured: Measured) {
        self.costs.entry((step, tool)).or_default().push(measured);
    }

    /// The size of the repository after `step`, in bytes.
    pub(super) fn add_size(&mut self, step: &'static str, tool: &'static str, bytes: u64) {
        self.sizes.insert((step, tool), bytes);
    }

    /// The median of one number of the measurements.
    fn median(
        &self,
        step: &'static str,
        tool: &'static str,
        number: impl Fn(&Measured) -> f64,
    ) -> Option<f64> {
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
pub(super) fn render(results: &Results, report: &Report<'_>) -> String {
    let versions: Vec<&str> = report.tools.iter().map(|(_, version)| version.as_str()).collect();
    let mut text = format!(
        "Machine: {}. Data: {}. Medians of {}.\n\nVersions: {}.\n",
        machine(),
        report.data,
        report.rounds,
        versions.join("; ")
    );
    let wall = |step, tool| results.median(step, tool, |cost| cost.wall_seconds);
    let cpu = |step, tool| results.median(step, tool, |cost| cost.cpu_seconds);
    #[allow(clippy::cast_precision_loss)]
    let peak = |step, tool| results.median(step, tool, |cost| (cost.peak_bytes >> 20) as f64);
    #[allow(clippy::cast_precision_loss)]
    let size = |step, tool| results.sizes.get(&(step, tool)).map(|bytes| *bytes as f64 / f64::from(1 << 20));
    let base = report.base;
    let wall_title = format!("Wall time, seconds (in brackets: how many times faster than {base})");
    let cpu_title = format!("CPU time, seconds (user and system; in brackets: {base}'s share)");
    table(&mut text, &wall_title, report, report.rows, wall, true);
    table(&mut text, &cpu_title, report, report.rows, cpu, true);
    table(&mut text, "Peak memory of the largest process, MiB", report, report.rows, peak, false);
    if !report.sized.is_empty() {
        table(&mut text, "Size of the repository after the step, MiB", report, report.sized, size, false);
    }
    text + &report.notes
}

fn table(
    text: &mut String,
    title: &str,
    report: &Report<'_>,
    rows: &[Row],
    value: impl Fn(&'static str, &'static str) -> Option<f64>,
    with_ratio: bool,
) {
    let decimals = if with_ratio { 2 } else { 0 };
    let cell = |step, tool| match (value(step, tool), value(step, report.base)) {
        (None, _) => "–".to_owned(),
        (Some(own), Some(base)) if with_ratio && tool != report.base && own > 0.0 => {
            format!("{own:.decimals$} ({:.1}×)", base / own)
        }
        (Some(own), _) => format!("{own:.decimals$}"),
    };
    let tools: Vec<&'static str> = report.tools.iter().map(|(name, _)| *name).collect();
    let mut lines =
        vec![format!("| step | {} |", tools.join(" | ")), format!("|---|{}", "--:|".repeat(tools.len()))];
    for (step, step_title) in rows {
        let cells: Vec<String> = tools.iter().map(|tool| cell(*step, *tool)).collect();
        lines.push(format!("| {step_title} | {} |", cells.join(" | ")));
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

/// Puts `text` between the marks of the benchmark in the page at `path`.
pub(super) fn write(path: &Path, benchmark: &str, date: &str, text: &str) -> Result {
    let page = sh::read(path)?;
    let section = format!("Measured on {date}.\n\n{text}");
    let page = replace(&page, benchmark, &section)
        .ok_or_else(|| format!("`{}` has lost its marks of `bench {benchmark}`", path.display()))?;
    sh::write(path, page)?;
    println!("bench: {} written", path.display());
    Ok(())
}

fn replace(page: &str, benchmark: &str, section: &str) -> Option<String> {
    let begin = format!("<!-- bench {benchmark}: begin -->");
    let end = format!("<!-- bench {benchmark}: end -->");
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{section}{end}{after}"))
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
            results.add("initial", "restic", cost(seconds));
        }
        for seconds in [1.0, 3.0] {
            results.add("initial", "retoma", cost(seconds));
        }
        results.add_size("initial", "restic", 64 << 20);
        results
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        let median = |tool| results().median("initial", tool, |cost| cost.wall_seconds);
        assert_eq!(median("restic"), Some(4.0));
        assert_eq!(median("retoma"), Some(2.0));
        assert_eq!(median("borg"), None);
    }

    #[test]
    fn the_report_has_ratios_and_dashes_for_what_was_not_run() {
        let versions = [("restic", "restic 0.14".to_owned()), ("retoma", "retoma 0.1".to_owned())];
        let rows = [("initial", "initial backup"), ("verify", "verify, reading all data")];
        let report = Report {
            benchmark: "files",
            base: "restic",
            data: "3 files".to_owned(),
            rounds: 3,
            tools: &versions,
            rows: &rows,
            sized: &rows[..1],
            notes: String::new(),
        };
        let text = render(&results(), &report);
        for wanted in [
            "Versions: restic 0.14; retoma 0.1.",
            "| initial backup | 4.00 | 2.00 (2.0×) |",
            "| initial backup | 300 | 300 |",
            "| initial backup | 64 | – |",
            "| verify, reading all data | – | – |",
            "Data: 3 files. Medians of 3.",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in:\n{text}");
        }
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = |inner: &str| {
            format!("before\n<!-- bench files: begin -->\n{inner}\n<!-- bench files: end -->\nafter\n")
        };
        assert_eq!(replace(&page("old"), "files", "new\n"), Some(page("new")));
        assert_eq!(replace(&page("old"), "postgres", "new"), None);
        assert_eq!(replace("# no marks", "files", "new"), None);
    }
}
