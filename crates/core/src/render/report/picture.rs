//! The waterfall as a picture, and the same as a table.
//!
//! Widths in the picture are percentages and letters keep their size, so that it stays readable on a narrow screen.

use crate::drill::DrillReport;
use crate::render::Language;
use crate::render::html::Html;
use crate::render::language::{fill, percent, step_name};
use crate::render::waterfall::{Bar, bars};

/// Heights in the picture, in pixels.
const ROW: usize = 38;
const BAR: usize = 10;

/// The section about the waterfall.
pub(super) fn waterfall(html: &mut Html, report: &DrillReport, language: Language) {
    let texts = language.texts();
    html.raw("<section aria-labelledby=\"waterfall\">\n<h2 id=\"waterfall\">").text(texts.waterfall_title);
    html.raw("</h2>\n");
    let waterfall = &report.waterfall;
    let Some((name, duration)) = waterfall.dominating() else {
        html.element("p", texts.waterfall_none).raw("\n</section>\n");
        return;
    };
    let total = waterfall.total();
    let summary = fill(
        texts.waterfall_dominates,
        &[
            ("step", step_name(name, language)),
            ("duration", &language.duration(duration)),
            ("share", &percent(duration.share_of(total))),
        ],
    );
    let intro =
        if report.back_after().is_some() { texts.waterfall_intro } else { texts.waterfall_intro_failed };
    let intro = fill(intro, &[("total", &language.duration(total))]);
    html.raw("<p>").text(&intro).raw(" <strong>").text(&summary).raw("</strong></p>\n");
    let bars = bars(waterfall, language);
    svg(html, &bars, &summary, language);
    table(html, &bars, total.as_millis_rounded(), language);
    html.raw("</section>\n");
}

fn svg(html: &mut Html, bars: &[Bar], summary: &str, language: Language) {
    let height = bars.len() * ROW + 4;
    html.raw("<svg class=\"waterfall\" role=\"img\" aria-labelledby=\"picture-title picture-text\" width=\"100%\" height=\"");
    html.number(height).raw("\">\n<title id=\"picture-title\">").text(language.texts().waterfall_title);
    html.raw("</title>\n<desc id=\"picture-text\">").text(summary).raw("</desc>\n");
    for quarter in ["0%", "25%", "50%", "75%", "100%"] {
        html.raw("<line class=\"grid\" x1=\"").raw(quarter).raw("\" x2=\"").raw(quarter);
        html.raw("\" y1=\"0\" y2=\"").number(height).raw("\"/>\n");
    }
    for (index, bar) in bars.iter().enumerate() {
        let top = index * ROW;
        let group = if bar.dominates { "<g class=\"most\">" } else { "<g>" };
        html.raw(group).raw("<text x=\"6\" y=\"").number(top + 17).raw("\">").text(&bar.label).raw("</text>");
        html.raw("<text class=\"time\" x=\"100%\" dx=\"-6\" y=\"").number(top + 17).raw("\">");
        html.text(&language.milliseconds(bar.duration_millis)).raw("</text>");
        // A step too short to see still gets a hair, inside the picture.
        let width = bar.share.max(0.004);
        let left = bar.start_share.min(1.0 - width);
        html.raw("<rect class=\"track\" x=\"0\" width=\"100%\" y=\"").number(top + 23).raw("\" height=\"");
        html.number(BAR).raw("\"/><rect class=\"bar\" x=\"").percent(left).raw("\" width=\"").percent(width);
        html.raw("\" y=\"").number(top + 23).raw("\" height=\"").number(BAR).raw("\"/></g>\n");
    }
    html.raw("</svg>\n");
}

fn table(html: &mut Html, bars: &[Bar], total_millis: u64, language: Language) {
    let texts = language.texts();
    html.raw("<div class=\"scroll\" tabindex=\"0\"><table class=\"numbers\">\n");
    html.heads(&[texts.column_step, texts.column_starts, texts.column_takes, texts.column_share]);
    for bar in bars {
        let row = if bar.dominates { "<tr class=\"most\">" } else { "<tr>" };
        html.raw(row).raw("<th scope=\"row\">").text(&bar.label).raw("</th>");
        html.element("td", &language.milliseconds(bar.start_millis));
        html.element("td", &language.milliseconds(bar.duration_millis));
        html.element("td", &percent(bar.share)).raw("</tr>\n");
    }
    html.raw("</tbody>\n<tfoot><tr><th scope=\"row\">").text(texts.total).raw("</th><td></td>");
    html.element("td", &language.milliseconds(total_millis));
    html.raw("<td></td></tr></tfoot>\n</table></div>\n");
}
