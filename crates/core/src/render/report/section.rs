//! Controls, what was not proven, what it ran with and how to repeat it.

use super::html::Html;
use crate::drill::{ControlKind, ControlOutcome, ControlResult, DrillReport};
use crate::render::Language;

/// The tests of the verifier.
pub(super) fn controls(html: &mut Html, report: &DrillReport, language: Language) {
    let texts = language.texts();
    html.raw("<section aria-labelledby=\"controls\">\n<h2 id=\"controls\">").text(texts.controls_title);
    html.raw("</h2>\n").element("p", texts.controls_intro).raw("\n");
    if report.controls.is_empty() {
        html.raw("<p class=\"outcome bad\">✗ ").text(texts.controls_none).raw("</p>\n</section>\n");
        return;
    }
    html.raw("<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>");
    let heads = [
        texts.column_control,
        texts.column_feeds,
        texts.column_expected,
        texts.column_found,
        texts.column_outcome,
        texts.column_detail,
    ];
    for head in heads {
        html.raw("<th scope=\"col\">").text(head).raw("</th>");
    }
    html.raw("</tr></thead>\n<tbody>\n");
    for control in &report.controls {
        control_row(html, control, language);
    }
    html.raw("</tbody>\n</table></div>\n</section>\n");
}

fn control_row(html: &mut Html, control: &ControlResult, language: Language) {
    let texts = language.texts();
    let feeds = match control.kind {
        ControlKind::Negative => texts.feeds_broken,
        ControlKind::Positive => texts.feeds_sound,
    };
    let (outcome, word) = match control.outcome {
        ControlOutcome::AsExpected => ("<td class=\"outcome good\">✓ ", texts.as_expected),
        ControlOutcome::Wrong => ("<td class=\"outcome bad\">✗ ", texts.wrong),
    };
    html.raw("<tr><th scope=\"row\">").text(&control.name).raw("</th>").element("td", feeds);
    for code in [&control.expected_code, &control.found_code] {
        match code {
            Some(code) => html.raw("<td><code>").text(code).raw("</code></td>"),
            None => html.element("td", texts.accepted),
        };
    }
    html.raw(outcome).text(word).raw("</td>").element("td", &control.detail).raw("</tr>\n");
}

/// The limits of this drill, then those of every drill.
pub(super) fn not_proven(html: &mut Html, report: &DrillReport, language: Language) {
    let texts = language.texts();
    html.raw("<section aria-labelledby=\"limits\">\n<h2 id=\"limits\">").text(texts.not_proven_title);
    html.raw("</h2>\n");
    if !report.not_proven.is_empty() {
        html.raw("<ul>\n");
        for limit in &report.not_proven {
            html.element("li", limit).raw("\n");
        }
        html.raw("</ul>\n");
    }
    html.element("p", texts.not_proven_intro).raw("\n<ul>\n");
    let limits =
        [texts.limit_once, texts.limit_place, texts.limit_scenario, texts.limit_load, texts.limit_people];
    for limit in limits {
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
