//! What each component promised, what was measured, and what was checked.

use crate::drill::{CheckOutcome, CheckResult, ComponentResult, DrillReport, Seconds};
use crate::render::Language;
use crate::render::html::Html;
use crate::render::language::fill;

/// The section about components: every result, then those that have none.
pub(super) fn all(html: &mut Html, report: &DrillReport, language: Language) {
    let texts = language.texts();
    html.raw("<section aria-labelledby=\"components\">\n<h2 id=\"components\">").text(texts.components_title);
    html.raw("</h2>\n");
    if report.components.is_empty() {
        html.element("p", texts.components_none).raw("\n");
    }
    for result in &report.components {
        one(html, result, language);
    }
    for name in report.missing_components() {
        html.raw("<article class=\"component bad\">\n<h3>")
            .text(name)
            .raw("</h3>\n<p class=\"outcome bad\">✗ ");
        html.text(texts.missing_component).raw("</p>\n</article>\n");
    }
    html.raw("</section>\n");
}

fn one(html: &mut Html, result: &ComponentResult, language: Language) {
    let texts = language.texts();
    html.raw("<article class=\"component\">\n<h3>").text(&result.component).raw(" <span>");
    html.text(&format!("{} {}, {} {}", texts.word_kind, result.kind, texts.word_tier, result.tier));
    html.raw("</span></h3>\n<div class=\"objectives\">\n");
    let rows = [
        (texts.rto, result.rto_measured_seconds, result.rto_objective_seconds),
        (texts.rpo_counted, result.rpo_measured_seconds, result.rpo_objective_seconds),
        (texts.rpo_worst, result.rpo_worst_case_seconds, result.rpo_objective_seconds),
    ];
    for (name, measured, objective) in rows {
        objective_bar(html, name, measured, objective, language);
    }
    html.raw("</div>\n<dl class=\"data\">\n");
    for (name, value) in data(result, language) {
        html.raw("<div>").element("dt", name).element("dd", &value).raw("</div>\n");
    }
    html.raw("</dl>\n");
    checks(html, result, language);
    html.raw("</article>\n");
}

fn data(result: &ComponentResult, language: Language) -> Vec<(&'static str, String)> {
    let texts = language.texts();
    let from_to = |before: &str, after: &str| fill(texts.from_to, &[("before", before), ("after", after)]);
    let mut data = vec![
        (texts.word_snapshot, result.snapshot.clone().unwrap_or_else(|| texts.no_snapshot.to_owned())),
        (texts.word_size, from_to(&language.bytes(result.bytes_before), &language.bytes(result.bytes))),
    ];
    if result.rows_before.is_some() || result.rows.is_some() {
        let rows = |count: Option<u64>| {
            count.map_or_else(|| texts.not_measured.to_owned(), |count| language.integer(count))
        };
        data.push((texts.word_rows, from_to(&rows(result.rows_before), &rows(result.rows))));
    }
    let lost = language.integer(result.markers_lost);
    let written = language.integer(result.markers_written);
    data.push((texts.word_markers, fill(texts.markers_lost_of, &[("lost", &lost), ("written", &written)])));
    data
}

/// Measured against promised: words and numbers first, then the same as a bar with a line at the objective.
fn objective_bar(
    html: &mut Html,
    name: &'static str,
    measured: Option<Seconds>,
    objective: Seconds,
    language: Language,
) {
    let texts = language.texts();
    let (class, mark, word) = match measured {
        None => ("bad", "✗", texts.not_measured),
        Some(measured) if measured <= objective => ("good", "✓", texts.met),
        Some(_) => ("bad", "✗", texts.missed),
    };
    let numbers = match measured {
        None => format!("{} {}", texts.objective, language.duration(objective)),
        Some(measured) => fill(
            texts.bar_text,
            &[("measured", &language.duration(measured)), ("objective", &language.duration(objective))],
        ),
    };
    html.raw("<div class=\"objective ")
        .raw(class)
        .raw("\">\n<p><span>")
        .text(name)
        .raw("</span> <b>")
        .text(&numbers);
    html.raw("</b> <span class=\"outcome ")
        .raw(class)
        .raw("\">")
        .raw(mark)
        .raw(" ")
        .text(word)
        .raw("</span></p>\n");
    let measured = measured.unwrap_or(Seconds::ZERO);
    let longer = measured.max(objective);
    // The line of the objective stays inside the picture, with a little room beyond it.
    let scale = |span: Seconds| span.share_of(longer) * 0.94;
    html.raw("<svg aria-hidden=\"true\" width=\"100%\" height=\"14\"><rect class=\"track\" y=\"3\" width=\"100%\" height=\"8\"/>");
    html.raw("<rect class=\"bar\" y=\"3\" width=\"").percent(scale(measured).max(visible(measured)));
    html.raw("\" height=\"8\"/><line class=\"mark\" x1=\"").percent(scale(objective)).raw("\" x2=\"");
    html.percent(scale(objective)).raw("\" y1=\"0\" y2=\"14\"/></svg>\n</div>\n");
}

/// The least width of a bar that is not zero.
fn visible(span: Seconds) -> f64 {
    if span == Seconds::ZERO { 0.0 } else { 0.006 }
}

fn checks(html: &mut Html, result: &ComponentResult, language: Language) {
    let texts = language.texts();
    if result.checks.is_empty() {
        html.raw("<p class=\"outcome bad\">✗ ").text(texts.checks_none).raw("</p>\n");
        return;
    }
    html.raw("<table class=\"list\">\n<caption>");
    html.text(&fill(texts.checks_of, &[("component", &result.component)])).raw("</caption>\n");
    html.heads(&[
        texts.column_check,
        texts.column_outcome,
        texts.column_expected,
        texts.column_found,
        texts.column_detail,
    ]);
    for check in &result.checks {
        row(html, check, language);
    }
    html.raw("</tbody>\n</table>\n");
}

fn row(html: &mut Html, check: &CheckResult, language: Language) {
    let texts = language.texts();
    let (outcome, word) = match check.outcome {
        CheckOutcome::Passed => ("\" class=\"outcome good\">✓ ", texts.passed),
        CheckOutcome::Failed => ("\" class=\"outcome bad\">✗ ", texts.failed),
        CheckOutcome::NotRun => ("\" class=\"outcome bad\">– ", texts.not_run),
    };
    html.raw("<tr><th scope=\"row\">")
        .text(&check.name)
        .raw("</th><td data-head=\"")
        .text(texts.column_outcome);
    html.raw(outcome).text(word).raw("</td>");
    html.cell(texts.column_expected, check.expected.as_deref().unwrap_or_default());
    html.cell(texts.column_found, check.found.as_deref().unwrap_or_default());
    html.cell(texts.column_detail, &check.detail).raw("</tr>\n");
}
