//! A drill's result as one page: HTML with its style and pictures inside, that loads nothing and runs nothing.
//!
//! The page shows what the report states and decides nothing. Everything that comes from the report is escaped. The
//! pictures are repeated as tables or text, no meaning hangs on colour alone, and it prints.

mod component;
mod picture;
mod section;

use super::Language;
use super::language::{fill, reason, repositories};
use crate::drill::{CheckOutcome, ControlOutcome, DrillReport, VerdictKind};
use crate::render::html::Html;

/// The page for `report` in `language`, from `<!doctype html>` to `</html>`.
pub fn page(report: &DrillReport, language: Language) -> String {
    let texts = language.texts();
    let mut html = Html::default();
    let title = fill(texts.page_title, &[("service", &report.service), ("scenario", &report.scenario)]);
    html.raw("<!doctype html>\n<html lang=\"").raw(texts.tag).raw("\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.raw("<meta name=\"color-scheme\" content=\"light dark\">\n");
    html.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n");
    html.element("title", &title)
        .raw("\n<style>\n")
        .raw(include_str!("style.css"))
        .raw("</style>\n</head>\n");
    html.raw("<body>\n<main>\n");
    header(&mut html, report, language);
    verdict(&mut html, report, language);
    facts(&mut html, report, language);
    picture::waterfall(&mut html, report, language);
    component::all(&mut html, report, language);
    section::controls(&mut html, report, language);
    section::not_proven(&mut html, report, language);
    section::environment(&mut html, report, language);
    html.raw("<footer>").element("p", texts.footer).raw("</footer>\n</main>\n</body>\n</html>\n");
    html.finish()
}

fn header(html: &mut Html, report: &DrillReport, language: Language) {
    let texts = language.texts();
    html.raw("<header>\n<p class=\"brand\"><b>Retoma</b> ").text(texts.drill_report).raw("</p>\n");
    html.raw("<h1>")
        .text(&report.service)
        .raw(" <span>")
        .text(&report.scenario)
        .raw("</span></h1>\n<p class=\"meta\">");
    html.text(texts.started).raw(" <time>").text(&timestamp(report.started)).raw("</time> · ");
    html.text(texts.drill_id).raw(" <code>").text(&report.drill).raw("</code></p>\n</header>\n");
}

/// To the second, in UTC: `2026-11-21 14:03:22 UTC`.
fn timestamp(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn verdict(html: &mut Html, report: &DrillReport, language: Language) {
    let texts = language.texts();
    let (class, mark, word, means) = match report.verdict {
        VerdictKind::Green => ("green", "✓", texts.verdict_green, texts.green_means),
        VerdictKind::Red => ("red", "✗", texts.verdict_red, texts.red_means),
        VerdictKind::BrokenVerifier => ("broken", "!", texts.verdict_broken, texts.broken_means),
    };
    html.raw("<section class=\"verdict ").raw(class).raw("\" aria-labelledby=\"verdict\">\n");
    html.raw("<h2 id=\"verdict\"><span class=\"mark\" aria-hidden=\"true\">").raw(mark).raw("</span>");
    html.text(word).raw("</h2>\n");
    html.element("p", means).raw("\n");
    if !report.reasons.is_empty() {
        html.element("h3", texts.why_not_green).raw("\n<ul>\n");
        for why in &report.reasons {
            html.raw("<li>").text(&reason(why, language)).raw(" <code>").text(why.code().as_str());
            html.raw("</code></li>\n");
        }
        html.raw("</ul>\n");
    }
    if let Some(hint) = report.failure.as_ref().and_then(|failure| failure.hint.as_ref()) {
        html.element("p", &fill(texts.failure_hint, &[("hint", hint)])).raw("\n");
    }
    html.raw("</section>\n");
}

/// The four numbers that people ask for first.
fn facts(html: &mut Html, report: &DrillReport, language: Language) {
    let texts = language.texts();
    let of = |count: u64, total: u64| {
        fill(texts.count_of, &[("count", &language.integer(count)), ("total", &language.integer(total))])
    };
    let checks = || report.components.iter().flat_map(|component| &component.checks);
    let passed = checks().filter(|check| check.outcome == CheckOutcome::Passed).count() as u64;
    let good = report.controls.iter().filter(|control| control.outcome == ControlOutcome::AsExpected);
    // Hostile numbers may be large; a sum that stops at the top is still not a small one.
    let sum = |of: fn(&crate::drill::ComponentResult) -> u64| {
        report.components.iter().map(of).fold(0, u64::saturating_add)
    };
    let numbers = [
        (
            texts.fact_back,
            report.back_after().map_or_else(|| texts.not_measured.to_owned(), |it| language.duration(it)),
        ),
        (
            texts.fact_lost,
            of(sum(|component| component.markers_lost), sum(|component| component.markers_written)),
        ),
        (texts.fact_checks, of(passed, checks().count() as u64)),
        (texts.fact_controls, of(good.count() as u64, report.controls.len() as u64)),
    ];
    html.raw("<dl class=\"facts\">\n");
    for (name, value) in numbers {
        html.raw("<div>").element("dt", name).element("dd", &value).raw("</div>\n");
    }
    html.raw("</dl>\n");
    if let Some(text) = repositories(report, language) {
        html.element("p", &text).raw("\n");
    }
}
