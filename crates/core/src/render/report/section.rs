//! Controls, what was not proven, what it ran with and how to repeat it.

use crate::drill::{ControlKind, ControlOutcome, ControlResult, DrillReport};
use crate::render::Language;
use crate::render::html::Html;

/// The tests of the verifier.
pub(super) fn controls(html: &mut Html, report: &DrillReport, language: Language) {
    let texts = language.texts();
    html.raw("<section aria-labelledby=\"controls\">\n<h2 id=\"controls\">").text(texts.controls_title);
    html.raw("</h2>\n").element("p", texts.controls_intro).raw("\n");
    if report.controls.is_empty() {
        html.raw("<p class=\"outcome bad\">✗ ").text(texts.controls_none).raw("</p>\n</section>\n");
        return;
    }
    html.raw("<table class=\"list\">\n").heads(&[
        texts.column_control,
        texts.column_feeds,
        texts.column_expected,
        texts.column_found,
        texts.column_outcome,
        texts.column_detail,
    ]);
    for control in &report.controls {
        control_row(html, control, language);
    }
    html.raw("</tbody>\n</table>\n</section>\n");
}

fn control_row(html: &mut Html, control: &ControlResult, language: Language) {
    let texts = language.texts();
    let feeds = match control.kind {
        ControlKind::Negative => texts.feeds_broken,
        ControlKind::Positive => texts.feeds_sound,
    };
    let (outcome, word) = match control.outcome {
        ControlOutcome::AsExpected => ("\" class=\"outcome good\">✓ ", texts.as_expected),
        ControlOutcome::Wrong => ("\" class=\"outcome bad\">✗ ", texts.wrong),
    };
    let code = |code: &Option<String>| code.clone().unwrap_or_else(|| texts.accepted.to_owned());
    html.raw("<tr><th scope=\"row\">").text(&control.name).raw("</th>").cell(texts.column_feeds, feeds);
    html.cell(texts.column_expected, &code(&control.expected_code));
    html.cell(texts.column_found, &code(&control.found_code));
    html.raw("<td data-head=\"").text(texts.column_outcome).raw(outcome).text(word).raw("</td>");
    html.cell(texts.column_detail, &control.detail).raw("</tr>\n");
}

/// What the drill says that it leaves open; where it says nothing, the limits of every drill. One list: a drill names
/// the limits of every drill among its own, but for the load.
pub(super) fn not_proven(html: &mut Html, report: &DrillReport, language: Language) {
    let texts = language.texts();
    html.raw("<section aria-labelledby=\"limits\">\n<h2 id=\"limits\">").text(texts.not_proven_title);
    html.raw("</h2>\n").element("p", texts.not_proven_intro).raw("\n<ul>\n");
    let of_every_drill = [texts.limit_once, texts.limit_place, texts.limit_scenario, texts.limit_people];
    let general = if report.not_proven.is_empty() { of_every_drill.as_slice() } else { &[] };
    let limits = report.not_proven.iter().map(String::as_str).chain(general.iter().copied());
    for limit in limits.chain([texts.limit_load]) {
        html.element("li", limit).raw("\n");
    }
    html.raw("</ul>\n</section>\n");
}

/// What it ran with, and the command that repeats it.
pub(super) fn environment(html: &mut Html, report: &DrillReport, language: Language) {
    let texts = language.texts();
    let environment = &report.environment;
    html.raw("<section aria-labelledby=\"environment\">\n<h2 id=\"environment\">")
        .text(texts.environment_title);
    html.raw("</h2>\n<dl class=\"data\">\n");
    let rows = [
        (texts.word_version, environment.tool_version.clone()),
        (texts.word_system, environment.system.clone()),
        (texts.word_cpus, language.integer(environment.cpus.into())),
        (texts.word_memory, language.bytes(environment.memory_bytes)),
        (texts.word_repository, environment.repository_id.clone()),
        (texts.word_key, environment.key_id.clone()),
        (texts.word_manifest, environment.manifest_hash.clone()),
    ];
    for (name, value) in rows {
        html.raw("<div>").element("dt", name).element("dd", &value).raw("</div>\n");
    }
    html.raw("</dl>\n").element("h3", texts.repeat_title).raw("\n").element("p", texts.repeat_intro);
    html.raw("\n<pre><code>").text(&report.repeat).raw("</code></pre>\n</section>\n");
}
