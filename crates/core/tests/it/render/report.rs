use super::sample;
use retoma_core::render::{Language, report::page};

#[test]
fn a_green_drill_in_english() {
    insta::assert_snapshot!(page(&sample::green(), Language::English));
}

#[test]
fn a_red_drill_in_portuguese() {
    insta::assert_snapshot!(page(&sample::red(), Language::Portuguese));
}

#[test]
fn a_broken_verifier_is_said_at_the_top() {
    let page = page(&sample::broken(), Language::English);
    let top = page.find("Broken verifier").unwrap();
    assert!(top < page.find("class=\"facts\"").unwrap());
    assert!(page.contains("“flipped byte in a pack” had to be refused with R0203 and was accepted"));
    assert!(page.contains("had to be refused with R0202 and was refused with R0001"));
}

#[test]
fn a_drill_that_failed_shows_no_time_in_which_it_was_back() {
    let page = page(&sample::failed(), Language::English);
    assert!(page.contains("<dt>Back after</dt><dd>not measured</dd>"));
    assert!(page.contains("From the disaster until the drill failed: 1.25 s."));
    assert!(page.contains("the drill ended with an error: restore `database` from snapshot 5f2e61c0"));
    assert!(page.contains("What to do: run `retoma verify`."));
}

#[test]
fn nothing_from_the_data_becomes_markup() {
    for language in Language::ALL {
        let page = page(&sample::hostile(), language);
        assert!(page.contains("&lt;script&gt;"), "the names are shown");
        for forbidden in ["<script", "\"1\"", "\u{1b}", "\u{202e}"] {
            assert!(!page.contains(forbidden), "`{}` got through", forbidden.escape_debug());
        }
    }
}

#[test]
fn the_same_elements_whatever_the_names_are() {
    let tags = |page: &str| page.matches('<').count();
    let (hostile, harmless) = (sample::hostile(), sample::named("name"));
    assert_eq!(tags(&page(&hostile, Language::English)), tags(&page(&harmless, Language::English)));
}

#[test]
fn the_page_loads_and_runs_nothing() {
    for report in [sample::green(), sample::red(), sample::broken(), sample::hostile()] {
        for language in Language::ALL {
            let page = page(&report, language);
            for forbidden in [
                "<script", "<link", "<img", "<iframe", "src=", "href=", "url(", "@import", "http://",
                "https://", " onload",
            ] {
                assert!(!page.contains(forbidden), "`{forbidden}` in the page");
            }
            assert!(page.contains(&format!("<html lang=\"{}\">", language.tag())));
        }
    }
}

#[test]
fn every_element_is_closed() {
    const VOID: [&str; 5] = ["meta", "rect", "line", "!doctype", "br"];
    for report in [sample::green(), sample::red(), sample::broken(), sample::hostile()] {
        let page = page(&report, Language::English);
        let mut open: Vec<&str> = Vec::new();
        for piece in page.split('<').skip(1) {
            let tag = piece.split(['>', ' ', '/']).next().unwrap();
            if let Some(closed) = piece.strip_prefix('/') {
                assert_eq!(open.pop(), closed.split('>').next(), "near `{piece}`");
            } else if !VOID.contains(&tag) {
                open.push(tag);
            }
        }
        assert!(open.is_empty(), "still open: {open:?}");
    }
}

#[test]
fn the_picture_has_a_table_and_words_beside_it() {
    let page = page(&sample::green(), Language::English);
    assert!(page.contains("role=\"img\" aria-labelledby=\"picture-title picture-text\""));
    assert!(page.contains("fetch takes the most: 2.631 s, 61 % of it."));
    assert!(page.contains("<th scope=\"row\">fetch</th><td>0.251 s</td><td>2.631 s</td><td>61 %</td>"));
}

#[test]
fn the_printed_steps_add_up_to_the_printed_total() {
    let page = page(&sample::green(), Language::English);
    let table = page.split("class=\"numbers\"").nth(1).unwrap().split("</table>").next().unwrap();
    let millis = |cell: &str| cell.trim_end_matches(" s").replace('.', "").parse::<u64>().unwrap();
    let rows: Vec<Vec<&str>> = table
        .split("<tr")
        .filter(|row| row.contains("<td>") && row.contains("scope=\"row\""))
        .map(|row| row.split("<td>").skip(1).map(|cell| cell.split('<').next().unwrap()).collect())
        .collect();
    let (total, steps) = rows.split_last().unwrap();
    assert_eq!(steps.len(), 8);
    assert_eq!(steps.iter().map(|row| millis(row[1])).sum::<u64>(), millis(total[1]));
    let mut end = 0;
    for step in steps {
        assert_eq!(millis(step[0]), end, "each step starts where the one before ends");
        end += millis(step[1]);
    }
}

#[test]
fn portuguese_numbers_have_their_own_marks() {
    let page = page(&sample::green(), Language::Portuguese);
    assert!(page.contains("4,312 s"));
    assert!(page.contains("1.000.394"));
    assert!(page.contains("136,0 MiB"));
    assert!(!page.contains("4.312 s"));
}

#[test]
fn a_drill_without_anything_still_has_a_page() {
    let mut report = sample::green();
    report.components.clear();
    report.controls.clear();
    report.waterfall = retoma_core::drill::Waterfall::default();
    let report = sample::concluded(report);
    let page = page(&report, Language::English);
    for text in
        ["No step was timed.", "Nothing came back.", "No control was run.", "Broken verifier", "no result"]
    {
        assert!(page.contains(text), "`{text}` is missing");
    }
}
