//! A drill's result for a terminal: lines of plain characters, at most as wide as asked for as long as names and
//! numbers are not longer than a line themselves.
//!
//! Colours come from whoever prints: a [`Style`] sees each piece with its [`Role`], after it was padded. Everything
//! that comes from the report is stripped of what could steer a terminal.

use super::Language;
use super::language::{fill, percent, reason, repositories, step_name};
use super::text::clean;
use super::waterfall::bars;
use crate::drill::{
    CheckOutcome, ComponentResult, ControlKind, ControlOutcome, DrillReport, Seconds, VerdictKind,
};

/// What a piece of text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The name of a section.
    Heading,
    /// What went as it must.
    Good,
    /// What did not.
    Bad,
    /// What explains something else.
    Quiet,
    /// The bar of a step.
    Bar,
    /// The bar of the step that takes the most.
    LongestBar,
}

/// Gives a piece of text its looks.
pub trait Style {
    /// `text` with what its `role` looks like around it; its letters stay.
    fn paint(&self, role: Role, text: &str) -> String;
}

/// No looks at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Style for Plain {
    fn paint(&self, _role: Role, text: &str) -> String {
        text.to_owned()
    }
}

/// The least width that is used, whatever is asked for.
const MIN_WIDTH: usize = 40;
/// Before every line of a section.
const INDENT: &str = "  ";

/// The whole result, in lines of `width` columns, with a line break at the end.
pub fn drill(report: &DrillReport, width: usize, language: Language, style: &dyn Style) -> String {
    let page = Page { width: width.max(MIN_WIDTH), language, style };
    let sections = [
        page.head(report),
        page.waterfall(report),
        page.components(report),
        page.controls(report),
        page.not_proven(report),
        page.verdict(report),
    ];
    let mut text = String::new();
    for section in sections.iter().filter(|lines| !lines.is_empty()) {
        if !text.is_empty() {
            text.push('\n');
        }
        for line in section {
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

struct Page<'a> {
    width: usize,
    language: Language,
    style: &'a dyn Style,
}

impl Page<'_> {
    fn head(&self, report: &DrillReport) -> Vec<String> {
        let texts = self.language.texts();
        let title = fill(texts.page_title, &[("service", &report.service), ("scenario", &report.scenario)]);
        let started = report.started.strftime("%Y-%m-%d %H:%M:%S UTC");
        let below = format!("{} {started}, {} {}", texts.started, texts.drill_id, report.drill);
        let mut lines: Vec<String> = wrap(&clean(&title), self.width)
            .iter()
            .map(|line| self.style.paint(Role::Heading, line))
            .collect();
        lines.extend(wrap(&clean(&below), self.width).iter().map(|line| self.style.paint(Role::Quiet, line)));
        let repositories = repositories(report, self.language).unwrap_or_default();
        lines.extend(wrap(&clean(&repositories), self.width));
        lines
    }

    fn waterfall(&self, report: &DrillReport) -> Vec<String> {
        let texts = self.language.texts();
        let total = report.waterfall.total();
        let Some((name, longest)) = report.waterfall.dominating() else {
            return vec![self.heading(texts.waterfall_title), format!("{INDENT}{}", texts.waterfall_none)];
        };
        let mut lines = vec![self.heading(texts.waterfall_title)];
        let bars = bars(&report.waterfall, self.language);
        let labels: Vec<String> =
            bars.iter().map(|bar| shorten(&clean(&bar.label), self.width / 3)).collect();
        let times: Vec<String> =
            bars.iter().map(|bar| self.language.milliseconds(bar.duration_millis)).collect();
        let total_time = self.language.milliseconds(total.as_millis_rounded());
        let label_width = widest(labels.iter().map(String::as_str).chain([texts.total]));
        let time_width = widest(times.iter().map(String::as_str).chain([total_time.as_str()]));
        let room = self.width.saturating_sub(INDENT.len() * 3 + label_width + time_width).max(8);
        for ((bar, label), time) in bars.iter().zip(&labels).zip(&times) {
            let (left, length) = cells(bar.start_share, bar.share, room);
            let role = if bar.dominates { Role::LongestBar } else { Role::Bar };
            let drawn = self.style.paint(role, &"#".repeat(length));
            let start = format!("{}{}  {}  ", INDENT, pad(label, label_width), pad_left(time, time_width));
            lines.push(format!("{start}{}{drawn}", " ".repeat(left)));
        }
        lines.push(format!(
            "{INDENT}{}  {}",
            pad(texts.total, label_width),
            pad_left(&total_time, time_width)
        ));
        let values = [
            ("step", step_name(name, self.language)),
            ("duration", &self.language.duration(longest)),
            ("share", &percent(longest.share_of(total))),
        ];
        lines.extend(self.indented(&fill(texts.waterfall_dominates, &values)));
        lines
    }

    fn components(&self, report: &DrillReport) -> Vec<String> {
        let texts = self.language.texts();
        let mut lines = vec![self.heading(texts.components_title)];
        let head = [
            texts.short_component,
            "RTO",
            texts.short_of,
            "RPO",
            texts.short_worst,
            texts.short_of,
            texts.short_lost,
            texts.short_checks,
        ];
        let mut rows: Vec<Vec<Cell>> = vec![head.iter().map(|head| Cell::of(Role::Quiet, head)).collect()];
        rows.extend(report.components.iter().map(|result| self.component_row(result)));
        if report.components.is_empty() {
            lines.push(format!("{INDENT}{}", texts.components_none));
        } else {
            lines.extend(self.table(rows));
        }
        for result in &report.components {
            for check in result.checks.iter().filter(|check| check.outcome != CheckOutcome::Passed) {
                let word = if check.outcome == CheckOutcome::Failed { texts.failed } else { texts.not_run };
                let line = format!("{}: {}: {word}: {}", result.component, check.name, check.detail);
                lines.extend(
                    self.indented(&clean(&line)).iter().map(|line| self.style.paint(Role::Bad, line)),
                );
            }
        }
        for name in report.missing_components() {
            let line = format!("{}: {}", clean(name), texts.missing_component);
            lines.extend(self.indented(&line).iter().map(|line| self.style.paint(Role::Bad, line)));
        }
        lines
    }

    fn component_row(&self, result: &ComponentResult) -> Vec<Cell> {
        let time = |span: Option<Seconds>, objective: Seconds| match span {
            None => Cell::of(Role::Bad, "-"),
            Some(span) => {
                let role = if span <= objective { Role::Good } else { Role::Bad };
                Cell::of(role, &self.language.duration(span))
            }
        };
        let passed = result.checks.iter().filter(|check| check.outcome == CheckOutcome::Passed).count();
        let all = result.checks.len();
        let checked = if passed == all && all > 0 { Role::Good } else { Role::Bad };
        vec![
            Cell::of(Role::Heading, &result.component),
            time(result.rto_measured_seconds, result.rto_objective_seconds),
            Cell::of(Role::Quiet, &self.language.duration(result.rto_objective_seconds)),
            time(result.rpo_measured_seconds, result.rpo_objective_seconds),
            time(result.rpo_worst_case_seconds, result.rpo_objective_seconds),
            Cell::of(Role::Quiet, &self.language.duration(result.rpo_objective_seconds)),
            Cell::of(Role::Quiet, &format!("{}/{}", result.markers_lost, result.markers_written)),
            Cell::of(checked, &format!("{passed}/{all}")),
        ]
    }

    /// Rows with columns as wide as their widest cell; the first one gives way when a row would be too wide.
    fn table(&self, rows: Vec<Vec<Cell>>) -> Vec<String> {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width_of = |column: usize| {
            widest(rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.as_str()))
        };
        let mut widths: Vec<usize> = (0..columns).map(width_of).collect();
        let needed = widths.iter().sum::<usize>() + INDENT.len() * columns;
        if let Some(first) = widths.first_mut() {
            *first = first.saturating_sub(needed.saturating_sub(self.width)).max(8.min(*first));
        }
        let line = |row: Vec<Cell>| {
            let cells = row.into_iter().zip(&widths).map(|(cell, width)| {
                let text = pad(&shorten(&cell.text, *width), *width);
                format!("{INDENT}{}", self.style.paint(cell.role, &text))
            });
            cells.collect::<String>()
        };
        rows.into_iter().map(line).collect()
    }

    fn controls(&self, report: &DrillReport) -> Vec<String> {
        let texts = self.language.texts();
        let mut lines = vec![self.heading(texts.controls_title)];
        if report.controls.is_empty() {
            lines.push(format!("{INDENT}{}", self.style.paint(Role::Bad, texts.controls_none)));
            return lines;
        }
        let code = |code: &Option<String>| code.clone().unwrap_or_else(|| texts.accepted.to_owned());
        let head = [
            texts.column_control,
            texts.column_feeds,
            texts.column_expected,
            texts.column_found,
            texts.column_outcome,
        ];
        let mut rows: Vec<Vec<Cell>> = vec![head.iter().map(|head| Cell::of(Role::Quiet, head)).collect()];
        for control in &report.controls {
            let feeds = match control.kind {
                ControlKind::Negative => texts.feeds_broken,
                ControlKind::Positive => texts.feeds_sound,
            };
            let (role, word) = match control.outcome {
                ControlOutcome::AsExpected => (Role::Good, texts.as_expected),
                ControlOutcome::Wrong => (Role::Bad, texts.wrong),
            };
            rows.push(vec![
                Cell::of(Role::Heading, &control.name),
                Cell::of(Role::Quiet, feeds),
                Cell::of(Role::Quiet, &code(&control.expected_code)),
                Cell::of(Role::Quiet, &code(&control.found_code)),
                Cell::of(role, word),
            ]);
        }
        lines.extend(self.table(rows));
        lines
    }

    fn not_proven(&self, report: &DrillReport) -> Vec<String> {
        if report.not_proven.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![self.heading(self.language.texts().not_proven_title)];
        lines.extend(report.not_proven.iter().flat_map(|limit| self.item(&clean(limit))));
        lines
    }

    fn verdict(&self, report: &DrillReport) -> Vec<String> {
        let texts = self.language.texts();
        let (role, word, means) = match report.verdict {
            VerdictKind::Green => (Role::Good, texts.verdict_green, texts.green_means),
            VerdictKind::Red => (Role::Bad, texts.verdict_red, texts.red_means),
            VerdictKind::BrokenVerifier => (Role::Bad, texts.verdict_broken, texts.broken_means),
        };
        let sentence = format!("{}: {means}", word.to_uppercase());
        let mut lines: Vec<String> =
            wrap(&sentence, self.width).iter().map(|line| self.style.paint(role, line)).collect();
        for why in &report.reasons {
            lines.extend(self.item(&format!("{} ({})", clean(&reason(why, self.language)), why.code())));
        }
        if let Some(hint) = report.failure.as_ref().and_then(|failure| failure.hint.as_ref()) {
            lines.extend(self.indented(&clean(&fill(texts.failure_hint, &[("hint", hint)]))));
        }
        lines
    }

    fn heading(&self, text: &str) -> String {
        self.style.paint(Role::Heading, text)
    }

    fn indented(&self, text: &str) -> Vec<String> {
        let lines = wrap(text, self.width.saturating_sub(INDENT.len()));
        lines.into_iter().map(|line| format!("{INDENT}{line}")).collect()
    }

    /// A text with a dash before its first line.
    fn item(&self, text: &str) -> Vec<String> {
        let lines = wrap(text, self.width.saturating_sub(INDENT.len() + 2));
        let bullet = |index: usize| if index == 0 { "- " } else { "  " };
        lines.iter().enumerate().map(|(index, line)| format!("{INDENT}{}{line}", bullet(index))).collect()
    }
}

/// One cell of a table; its text is clean.
struct Cell {
    role: Role,
    text: String,
}

impl Cell {
    fn of(role: Role, text: &str) -> Self {
        Self { role, text: clean(text) }
    }
}

/// Where a bar starts and how long it is, in columns out of `room`; at least one column, and never beyond the room.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn cells(start_share: f64, share: f64, room: usize) -> (usize, usize) {
    let column = |at: f64| ((at.clamp(0.0, 1.0) * room as f64).round() as usize).min(room);
    let left = column(start_share).min(room.saturating_sub(1));
    (left, column(start_share + share).saturating_sub(left).max(1))
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

fn widest<'t>(texts: impl Iterator<Item = &'t str>) -> usize {
    texts.map(columns).max().unwrap_or(0)
}

fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

fn pad_left(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(columns(text))))
}

/// Cuts what is longer than `width`, with a mark that it was cut.
fn shorten(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(2)).collect();
    format!("{kept}..")
}

/// Lines of at most `width` columns, broken between words; a longer word has a line of its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if columns(line) + 1 + columns(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A bar is seen, never leaves its room, and the next one begins where it ends.
        #[test]
        fn bars_are_drawn_in_their_room_and_touch(start in 0.0..=1.0f64, share in 0.0..=1.0f64, room in 8usize..200) {
            let share = share.min(1.0 - start);
            let (left, length) = cells(start, share, room);
            prop_assert!(length >= 1 && left + length <= room, "{} {}", left, length);
            let (next, _) = cells(start + share, 1.0 - start - share, room);
            if length > 1 && next < room - 1 {
                prop_assert_eq!(left + length, next);
            }
        }

        #[test]
        fn wrapped_lines_are_the_words_in_order_and_as_full_as_can_be(text in "[a-zé]{0,9}( [a-zé]{1,9}){0,9}", width in 1usize..20) {
            let lines = wrap(&text, width);
            prop_assert_eq!(lines.join(" "), text.split_whitespace().collect::<Vec<_>>().join(" "));
            for line in &lines {
                prop_assert!(columns(line) <= width || !line.contains(' '));
            }
            for pair in lines.windows(2) {
                let first = pair[1].split(' ').next().unwrap_or_default();
                prop_assert!(columns(&pair[0]) + 1 + columns(first) > width, "`{}` has room for `{first}`", pair[0]);
            }
        }

        #[test]
        fn a_cell_has_its_width(text in "[a-zé]{0,12}", width in 2usize..12) {
            prop_assert_eq!(columns(&pad(&shorten(&text, width), width)), width);
            prop_assert_eq!(columns(&pad_left(&shorten(&text, width), width)), width);
            prop_assert_eq!(shorten(&text, width) == text, columns(&text) <= width, "what fits is not cut");
        }
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!((shorten("abcdef", 5).as_str(), shorten("abcde", 5).as_str()), ("abc..", "abcde"));
        assert_eq!((pad("ab", 4).as_str(), pad_left("ab", 4).as_str()), ("ab  ", "  ab"));
        assert_eq!(cells(0.0, 0.0, 10), (0, 1), "a step without length is seen");
        assert_eq!(cells(1.0, 0.0, 10), (9, 1));
    }
}
